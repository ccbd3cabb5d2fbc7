"""Attention block by block: what is read follows the rule of the cache, loss and gradients are those of all scores.

Judged against float64: whoever rounds differs in the last bits, and the sum of a gradient that is nothing but rounding
differs altogether (all keys shifted by one vector change no softmax, so a key's bias has no slope where all that is
read was written in the sequence).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.networks import blockwise, gate
from racer.networks.memory import Sequence
from racer.networks.transformer import Transformer, _places

CORE = Transformer(embed=16, layers=2, heads=2, hidden=32, length=100)
STEPS, INPUTS = 150, 5


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def scene():
    """Rows: fresh; fresh with 2 episodes; with 3; continued; continued with a ring that came round; limbo first."""
    starts = np.array([0, 0, 0, 40, 230, 0], np.float32)
    forget, valid = np.zeros((STEPS, len(starts)), np.float32), np.ones((STEPS, len(starts)), np.float32)
    forget[70, 1] = forget[[30, 99], 2] = forget[90, 3] = forget[148, 4] = 1.0
    # Limbo before an end, over a block's border, and at the start.
    valid[50:70, 1] = valid[60:66, 3] = valid[10:90, 4] = valid[:70, 5] = 0.0
    memory = CORE.initial_memory(len(starts))
    for seed, name in enumerate(("keys", "values")):
        memory[name] = numbers(*memory[name].shape, seed=seed)
    return {**memory, "position": starts}, Sequence(forget, valid)


def reads_by_hand(start, forget, valid):
    """Return for every row of one sequence the numbers of the tokens that it reads besides itself."""
    tokens, readable, found = [("cache", i) for i in range(int(start))], [], []
    for t in range(STEPS):
        readable = tokens[-(CORE.length - 1) :]
        found.append({STEPS + i % CORE.length if kind == "cache" else i for kind, i in readable})
        if valid[t]:
            tokens.append(("row", t))
        if forget[t]:
            tokens = []
    return found


def test_what_a_query_reads_is_what_acting_would_find_in_its_cache():
    memory, rows = scene()
    places = _places(jnp.asarray(memory["position"]), rows)
    written = jnp.where(rows.valid > 0, places.stamp, blockwise.UNREADABLE).T
    stamps = jnp.concatenate([written, CORE._cache_stamps(jnp.asarray(memory["position"]))], axis=-1)
    reads = CORE._reading(places, stamps)
    mask = np.asarray(blockwise.readable(reads.floor, reads.ceiling, reads.stamps))
    for n, start in enumerate(memory["position"]):
        expected = reads_by_hand(start, rows.forget[:, n], rows.valid[:, n])
        assert [set(np.flatnonzero(row)) for row in mask[n]] == expected
    # Every pair of blocks with something to read is there, once, and not all pairs are.
    pairs = {tuple(pair) for pair in np.asarray(reads.pairs[:, : int(reads.active)]).T}
    assert len(pairs) == int(reads.active) < reads.pairs.shape[1]
    size = blockwise._BLOCK
    assert {(n, t // size, s // size) for n, t, s in np.argwhere(mask)} <= pairs


def slopes(form, monkeypatch, kind):
    """Return the loss and its gradients by parameters and inputs, computed in numbers of such a kind."""
    memory, rows = scene()
    params = CORE.init(jax.random.key(0), INPUTS)
    inputs, peek = numbers(STEPS, 6, INPUTS, seed=2), numbers(STEPS, 6, INPUTS, seed=3)
    aims = numbers(2, STEPS, 6, 16, seed=4)
    monkeypatch.setattr(blockwise, "attend", form)
    with jax.enable_x64(kind is np.float64):
        given = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), kind), (params, inputs, peek))
        context = jax.tree.map(lambda x: jnp.asarray(x, kind), (memory, rows))

        @jax.jit
        def compute(params, inputs, peek):
            def loss(params, inputs, peek):
                found = jnp.stack(CORE.unroll(params, inputs, *context, peek))
                return jnp.sum(found * aims * context[1].valid[..., None])

            return jax.value_and_grad(loss, argnums=(0, 1, 2))(params, inputs, peek)

        loss, (by_params, by_inputs, by_peek) = compute(*given)
        named = {**by_params, "inputs": by_inputs, "peek": by_peek}
        return float(loss), {name: np.asarray(value, np.float64) for name, value in named.items()}


def test_loss_and_gradients_are_those_of_all_scores_as_far_as_float64_can_tell(monkeypatch):
    exact_loss, exact = slopes(blockwise.attend_masked, monkeypatch, np.float64)
    wide_loss, wide = slopes(blockwise.attend_blocks, monkeypatch, np.float64)
    assert wide_loss == pytest.approx(exact_loss, rel=1e-12)
    scale = {name: np.abs(value).max() for name, value in exact.items()}
    for name, value in exact.items():
        np.testing.assert_allclose(wide[name], value, atol=1e-11 * max(scale[name], 1.0), rtol=0.0, err_msg=name)
    errors = {}
    for form in (blockwise.attend_blocks, blockwise.attend_masked):
        loss, found = slopes(form, monkeypatch, np.float32)
        assert loss == pytest.approx(exact_loss, rel=1e-5)
        errors[form] = {name: np.abs(found[name] - exact[name]).max() / scale[name] for name in exact}
    for name in exact:
        blocks, masked = errors[blockwise.attend_blocks][name], errors[blockwise.attend_masked][name]
        assert blocks < max(3.0 * masked, 1e-6), name


def test_in_a_fresh_episode_a_keys_bias_has_no_slope():
    """Why two float32 gradients of it may differ altogether: both are rounding."""
    rows = Sequence(np.zeros((STEPS, 1), np.float32), np.ones((STEPS, 1), np.float32))
    inputs = numbers(STEPS, 1, INPUTS)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), np.float64), CORE.init(jax.random.key(0), INPUTS))
        memory = CORE.initial_memory(1)
        found = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(CORE.unroll(p, inputs, memory, rows)[0]))))(params)
    for layer in range(CORE.layers):
        bias, kernel = (np.abs(found[f"memory/layer_{layer}/key/{part}"]).max() for part in ("bias", "kernel"))
        assert bias < 1e-12 * kernel


def test_members_of_a_population_have_the_gradients_that_each_has_alone():
    """Each with pairs of blocks of its own."""
    floor = jnp.asarray([[[0.0] * 90], [[0.0] * 70 + [70.0] * 20]])
    ceiling = jnp.broadcast_to(jnp.arange(90.0), (2, 1, 90))
    tokens = blockwise.Tokens(*(jnp.asarray(numbers(2, 1, 2, 90, 4, seed=seed)) for seed in range(5)))

    def slope(tokens, floor, ceiling):
        reads = blockwise.reading(floor, ceiling, ceiling)
        return jax.grad(lambda tokens: jnp.sum(jnp.sin(blockwise.attend_blocks(tokens, reads))))(tokens)

    together = jax.jit(jax.vmap(slope))(tokens, floor, ceiling)
    alone = jax.jit(slope)
    for member in range(2):
        expected = alone(jax.tree.map(lambda x, n=member: x[n], tokens), floor[member], ceiling[member])
        for found, other in zip(together, expected, strict=True):
            np.testing.assert_allclose(found[member], other, atol=1e-6)


def test_a_gates_own_gradient_is_the_derived_one():
    with jax.enable_x64(True):
        shapes = {"new/kernel": (6, 18), "old/kernel": (6, 12), "reset/kernel": (6, 6), "bias": (6,)}
        params = {f"g/{name}": jnp.asarray(numbers(*shape, seed=3), np.float64) for name, shape in shapes.items()}
        old, new = (jnp.asarray(numbers(7, 3, 6, seed=seed), np.float64) for seed in (1, 2))

        def derived(params, old, new):
            return jnp.sum(jnp.sin(gate._join(*(params[f"g/{name}"] for name in shapes), old, new)))

        def given(params, old, new):
            return jnp.sum(jnp.sin(gate.joined(params, "g", old, new)))

        expected, found = (jax.jit(jax.grad(f, argnums=(0, 1, 2)))(params, old, new) for f in (derived, given))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), found, expected)
