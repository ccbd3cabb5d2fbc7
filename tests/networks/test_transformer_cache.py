"""The cache of a transformer as acting uses it: written in place, read block by block as far as it is filled."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from racer.networks.memory import Sequence, cleared
from racer.networks.transformer import Transformer

CORE = Transformer(embed=16, layers=2, heads=2, hidden=32, length=300)
INPUTS = 5


@pytest.fixture(scope="module")
def params():
    drawn = CORE.init(jax.random.key(0), INPUTS)
    return {name: np.asarray(value) + 0.1 * np.sin(np.arange(value.size)).reshape(value.shape).astype(np.float32)
            for name, value in drawn.items()}  # fmt: skip


def tokens(count, rows=1, seed=0):
    return np.random.default_rng(seed).standard_normal((count, rows, INPUTS)).astype(np.float32)


def driven(params, inputs, memory=None):
    """Step through ``inputs`` ``[T, N, D]``; returns outputs ``[T, N, H]`` and the memory."""
    memory = CORE.initial_memory(inputs.shape[1]) if memory is None else memory
    outputs = []
    for row in inputs:
        out, memory = CORE.step(params, row, memory)
        outputs.append(out)
    return np.stack(outputs), memory


def copied(memory):
    return {name: value.copy() for name, value in memory.items()}


def test_a_rows_bits_do_not_depend_on_how_full_its_neighbours_caches_are(params):
    inputs = tokens(310)
    alone, _ = driven(params, inputs)
    # A neighbour that is 290 tokens ahead makes acting read blocks that the row has not reached; later it comes round.
    _, full = driven(params, tokens(290, seed=1))
    memory = {name: np.concatenate([value, full[name]]) for name, value in CORE.initial_memory(1).items()}
    beside, _ = driven(params, np.concatenate([inputs, tokens(310, seed=2)], axis=1), memory)
    assert beside[:, :1].tobytes() == alone.tobytes()


@pytest.mark.parametrize("before", [40, 127, 128, 299, 300, 450])
def test_a_step_may_be_taken_again_from_the_memory_before_it(params, before):
    """As an ego in limbo does: its step is undone, and nothing of it is read later."""
    _, memory = driven(params, tokens(before))
    kept = copied(memory)
    following, limbo = tokens(20, seed=3), 100.0 * tokens(1, seed=4)[0]
    CORE.step(params, limbo, memory)
    undone, _ = driven(params, following, memory)
    expected, _ = driven(params, following, kept)
    assert undone.tobytes() == expected.tobytes()


def test_memory_that_is_read_only_is_copied(params):
    _, memory = driven(params, tokens(5))
    expected, _ = CORE.step(params, tokens(1, seed=5)[0], copied(memory))
    for value in memory.values():
        value.flags.writeable = False
    before = memory["keys"].tobytes()
    found, after = CORE.step(params, tokens(1, seed=5)[0], memory)
    assert found.tobytes() == expected.tobytes()
    assert memory["keys"].tobytes() == before
    assert after["keys"].flags.writeable


def test_steps_over_all_blocks_are_the_unrolled_sequence(params):
    """One row forgets on the way, one is no transition for a while; the cache comes round."""
    inputs, steps = tokens(340, rows=3), 340
    forget, valid = np.zeros((steps, 3), np.float32), np.ones((steps, 3), np.float32)
    forget[200, 1], valid[100:160, 2] = 1.0, 0.0
    outputs, memory = [], CORE.initial_memory(3)
    for t in range(steps):
        before = memory
        out, memory = CORE.step(params, inputs[t], memory)
        outputs.append(out)
        held = valid[t] == 0
        memory["position"] = np.where(held, before["position"], memory["position"]) * (1.0 - forget[t])
    start = CORE.initial_memory(3)
    unrolled, _ = jax.jit(CORE.unroll)(params, inputs, start, Sequence(forget, valid))
    np.testing.assert_allclose(np.stack(outputs), np.asarray(unrolled), atol=1e-5)


def test_attention_has_no_weight_on_slots_that_hold_nothing(params):
    """Exactly 0, however full the neighbour's cache is; a row's own weights sum to 1."""
    _, full = driven(params, tokens(290, seed=1))
    _, short = driven(params, tokens(60, seed=2))
    memory = {name: np.concatenate([short[name], full[name]]) for name in short}
    shares = CORE.attention(params, tokens(1, rows=2, seed=3)[0], memory)
    assert shares.shape == (2, CORE.layers, CORE.heads, CORE.length)
    assert not shares[0, :, :, 61:].any()
    assert (shares[0, :, :, :61] > 0.0).all()
    assert not shares[1, :, :, 291:].any()
    np.testing.assert_allclose(shares.sum(axis=-1), 1.0, atol=1e-5)
    alone = CORE.attention(params, tokens(1, rows=2, seed=3)[0][:1], copied(short))
    assert alone.tobytes() == shares[:1].tobytes()


def test_one_rows_new_episode_leaves_the_others_alone(params):
    """Positions are counted a row: the neighbour goes on, the row itself begins as anew."""
    _, memory = driven(params, tokens(150, rows=2))
    kept, following = copied(memory), tokens(30, rows=2, seed=6)
    begun = cleared(memory, np.array([True, False]))
    assert begun["position"].tolist() == [0.0, 150.0]
    found, _ = driven(params, following, begun)
    expected, _ = driven(params, following, kept)
    anew, _ = driven(params, following[:, :1])
    assert found[:, 1].tobytes() == expected[:, 1].tobytes()
    assert found[:, 0].tobytes() == anew[:, 0].tobytes()
    assert found[:, 0].tobytes() != expected[:, 0].tobytes()
