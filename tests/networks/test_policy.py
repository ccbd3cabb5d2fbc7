"""Policies: acting step by step is what training unrolls, on both array libraries, whatever the number of rows."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.networks.policy import Policy, build_policy, cleared, merged
from racer.networks.torso import build_torso
from racer.networks.uniform import UniformPolicy, uniform_policy

SHAPE = (5, 6)
MEMORIES = {
    "none": None,
    "gru": {"kind": "gru", "size": 24},
    "transformer": {"kind": "transformer", "embed": 12, "layers": 2, "heads": 8, "length": 128},
    "short transformer": {"kind": "transformer", "embed": 16, "layers": 2, "heads": 2, "length": 5},
}
KINDS = ("squashed_gaussian", "tanh_gaussian", "beta", "categorical")
BOUNDS = {"action_low": np.array([-1.0, -0.1], np.float32), "action_high": np.array([1.0, 0.3], np.float32)}


def make_policy(kind="tanh_gaussian", memory=None, encoder="pointnet", **changes) -> Policy:
    fields = {"hidden_dims": (16, 16), "encoder": {"kind": encoder}, "memory": memory, "observation_scale": (1.0,) * 6}
    torso = build_torso(SHAPE, fields)
    return Policy(kind=kind, observation_shape=SHAPE, torso=torso, size=3 if kind == "categorical" else 2, **changes)


def params_of(policy: Policy, seed: int = 0) -> dict[str, np.ndarray]:
    """Parameters far from their first values, so that heads and gates matter."""
    found = policy.init(jax.random.PRNGKey(seed))
    rng = np.random.default_rng(seed)
    spread = {name: np.asarray(v) + 0.3 * rng.standard_normal(v.shape).astype(np.float32) for name, v in found.items()}
    return spread if policy.discrete else {**spread, **BOUNDS}


def observations_of(*lead: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((*lead, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_rows_do_not_depend_on_how_many_there_are(kind, memory):
    policy = make_policy(kind, MEMORIES[memory], encoder="attention")
    params, observations = params_of(policy), observations_of(9)
    together, remembered, _ = policy.act(params, observations, policy.initial_memory(9), None, deterministic=True)
    for i in range(9):
        alone, memory_alone, _ = policy.act(
            params, observations[i : i + 1], policy.initial_memory(1), None, deterministic=True
        )
        np.testing.assert_array_equal(alone[0], together[i])
        for name, value in memory_alone.items():
            np.testing.assert_array_equal(value[0], remembered[name][i])


@pytest.mark.parametrize("kind", KINDS)
def test_both_array_libraries_agree(kind):
    policy = make_policy(kind, MEMORIES["gru"])
    params, observations = params_of(policy), observations_of(4)
    memory = {name: np.full_like(value, 0.2) for name, value in policy.initial_memory(4).items()}
    ours, after, extras = policy.act(params, observations, memory, None, deterministic=True)
    act = jax.jit(lambda p, o, m: policy.act(p, o, m, None, deterministic=True))
    theirs, after_jax, extras_jax = act(params, observations, memory)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for mine, other in ((after, after_jax), (extras, extras_jax)):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            np.testing.assert_allclose(value, other[name], atol=2e-5, rtol=1e-4, err_msg=name)


def episode_flags(steps: int, envs: int, ends: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``ends`` episode ends in each column, and some rows that are no transition."""
    rng = np.random.default_rng(seed)
    forget, valid = np.zeros((steps, envs), np.float32), np.ones((steps, envs), np.float32)
    for n in range(envs):
        forget[rng.choice(steps - 1, ends, replace=False), n] = 1.0
        valid[rng.choice(steps, 3, replace=False), n] = 0.0
    return forget, valid


@pytest.mark.parametrize("ends", [0, 1, 2])
@pytest.mark.parametrize("memory", [name for name in MEMORIES if name != "none"])
def test_acting_step_by_step_equals_unrolling(memory, ends):
    policy, steps, envs = make_policy("tanh_gaussian", MEMORIES[memory]), 17, 3
    params, observations = params_of(policy), observations_of(steps + 1, envs)
    forget, valid = episode_flags(steps, envs, ends, seed=ends)
    peek = observations[1:].copy()
    peek[forget > 0] = observations_of(steps, envs, seed=9)[forget > 0]
    now = policy.initial_memory(envs)
    for t in range(3):  # a sequence that begins in the middle of episodes
        _, now, _ = policy.act(params, observations_of(envs, seed=20 + t), now, None, deterministic=True)
    start, means, following = now, [], []
    for t in range(steps):
        _, after, extras = policy.act(params, observations[t], now, None, deterministic=True)
        means.append(extras["draws"])
        after = merged(valid[t] > 0, after, now)
        following.append(policy.act(params, peek[t], after, None, deterministic=True)[2]["draws"])
        now = cleared(after, forget[t] > 0)
    unroll = jax.jit(policy.unroll)
    distribution, _, later = unroll(params, observations[:-1], start, forget, valid, peek)
    np.testing.assert_allclose(distribution["mean"], np.stack(means), atol=1e-5)
    assert later is not None
    np.testing.assert_allclose(policy.distribution(params, later)["mean"], np.stack(following), atol=1e-5)


@pytest.mark.parametrize("memory", [name for name in MEMORIES if name != "none"])
def test_what_is_no_transition_is_not_remembered(memory):
    policy, steps = make_policy("tanh_gaussian", MEMORIES[memory]), 8
    params, observations = params_of(policy), observations_of(steps, 2)
    forget, valid = np.zeros((steps, 2), np.float32), np.ones((steps, 2), np.float32)
    valid[3, 0] = 0.0
    other = observations.copy()
    other[3, 0] += 5.0

    def means(seen):
        return np.asarray(policy.unroll(params, jnp.asarray(seen), policy.initial_memory(2), forget, valid)[0]["mean"])

    changed = np.abs(means(observations) - means(other)).max(axis=-1) > 0
    assert changed[3, 0]
    assert changed.sum() == 1


@pytest.mark.parametrize("memory", [name for name in MEMORIES if name != "none"])
def test_a_memory_reaches_later_steps_and_ends_with_its_episode(memory):
    policy, steps = make_policy("tanh_gaussian", MEMORIES[memory]), 6
    params, observations = params_of(policy), observations_of(steps, 1)
    forget, valid = np.zeros((steps, 1), np.float32), np.ones((steps, 1), np.float32)
    forget[3] = 1.0
    other = observations.copy()
    other[0] += 5.0

    def means(seen):
        return np.asarray(policy.unroll(params, jnp.asarray(seen), policy.initial_memory(1), forget, valid)[0]["mean"])

    changed = np.abs(means(observations) - means(other)).max(axis=(1, 2)) > 1e-7
    assert changed.tolist() == [True, True, True, True, False, False]


@pytest.mark.parametrize("memory", ["transformer", "short transformer"])
def test_what_is_masked_has_weight_zero_and_one_rows_reset_is_nobody_elses(memory):
    """Rows with caches of different fill: what an agent has not written in this episode has weight exactly 0."""
    policy, rows = make_policy("tanh_gaussian", MEMORIES[memory]), 3
    params, length = params_of(policy), MEMORIES[memory]["length"]
    now = policy.initial_memory(rows)
    for t in range(7):
        _, after, _ = policy.act(params, observations_of(rows, seed=30 + t), now, None, deterministic=True)
        # The second agent is in limbo now and then, the third one's episode ends.
        after = merged(np.array([True, t not in (1, 4), True]), after, now)
        now = cleared(after, np.array([False, False, t == 2]))
    assert now["position"].tolist() == [7.0, 5.0, 4.0]
    observations = observations_of(rows, seed=50)
    weights = policy.attention(params, observations, now)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-6)
    for i, position in enumerate((7, 5, 4)):
        written = min(position + 1, length)
        assert (weights[i, :, :, :written] > 0.0).all()
        assert (weights[i, :, :, written:] == 0.0).all()
    reset = cleared(now, np.array([False, True, False]))
    assert reset["position"].tolist() == [7.0, 0.0, 4.0]
    again = policy.attention(params, observations, reset)
    np.testing.assert_array_equal(again[[0, 2]], weights[[0, 2]])
    assert (again[1, :, :, 1:] == 0.0).all()
    # Garbage in masked slots reaches nobody.
    dirty = {name: np.array(value) for name, value in now.items()}
    dirty["values"][2, :, :, 5:] = 1e6
    acted = [policy.act(params, observations, m, None, deterministic=True)[2]["draws"] for m in (now, dirty)]
    np.testing.assert_array_equal(acted[0], acted[1])


def test_correlated_noise_remembers_and_begins_anew_with_an_episode():
    policy = make_policy("squashed_gaussian", noise_correlation=0.9)
    params, rng = params_of(policy), np.random.default_rng(0)
    memory, noises = policy.initial_memory(20_000), []
    for _ in range(3):
        _, memory, _ = policy.act(params, observations_of(20_000), memory, rng)
        noises.append(memory["noise"])
    for noise in noises:
        assert abs(noise.std() - 1.0) < 0.02
    assert abs(np.mean(noises[0] * noises[1]) - 0.9) < 0.02
    fresh = cleared(memory, np.ones(20_000, bool))
    _, after, _ = policy.act(params, observations_of(20_000), fresh, rng)
    assert abs(np.mean(after["noise"] * memory["noise"])) < 0.02
    assert policy.without_exploration().initial_memory(3) == {}


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_description_goes_through_json(kind, memory):
    policy = make_policy(kind, MEMORIES[memory], encoder="attention")
    again = build_policy(json.loads(json.dumps(policy.spec)))
    assert again == policy
    assert hash(again) == hash(policy)


def test_flat_observations_are_read_in_the_policys_own_shape():
    policy = make_policy()
    params, observations = params_of(policy), observations_of(4)
    rows = policy.act(params, observations, {}, None, deterministic=True)[0]
    flat = policy.act(params, observations.reshape(4, -1), {}, None, deterministic=True)[0]
    np.testing.assert_array_equal(rows, flat)
    with pytest.raises(UsageError, match=r"takes observations \[N, 5, 6\], got \[4, 31\]"):
        policy.act(params, np.zeros((4, 31), np.float32), {}, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "tanh_gausian"}, "did you mean 'tanh_gaussian'"),
        ({"view": "lane_slots", "world": None}, "names no world"),
        ({"noise_correlation": 1.0}, "noise_correlation' must be a finite number at least 0 and below 1"),
        ({"action_names": ["a"]}, "2 actions but 1 action_names"),
        ({"size": 0}, "'size' must be a whole number at least 1"),
        ({"observation_shape": [5, 7]}, "observation_scale has 6 values"),
        ({"surprise": 1}, "unknown key of policy 'tanh_gaussian' 'surprise'"),
        ({"torso": None}, "lacks: torso"),
    ],
)
def test_a_wrong_description_is_one_line(change, message):
    with pytest.raises(UsageError, match=message):
        build_policy({**make_policy().spec, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": {"kind": "pointnett"}}, "did you mean 'pointnet'"),
        ({"encoder": {"kind": "pointnet", "width": [3]}}, "did you mean 'widths'"),
        ({"encoder": {"kind": "pointnet", "widths": [10**10]}}, "whole number"),
        ({"memory": {"kind": "lstm"}}, "unknown memory kind 'lstm'"),
        ({"memory": {"kind": "gru", "size": 0}}, "memory 'gru' 'size' must be a whole number"),
        ({"observation_scale": [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]}, "above 0"),
        ({"hidden_dims": [1.5]}, "'hidden_dims' must be a tuple of whole numbers"),
        ({"activation": "gelu"}, "'activation': 'gelu'"),
    ],
)
def test_a_wrong_torso_is_one_line(change, message):
    spec = make_policy().spec
    with pytest.raises(UsageError, match=message):
        build_policy({**spec, "torso": {**spec["torso"], **change}})


def test_random_policies():
    rng = np.random.default_rng(0)
    policy = UniformPolicy((-1.0, 0.0), (1.0, 3.0))
    actions = policy.act({}, np.zeros((1000, 2), np.float32), {}, rng)[0]
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions.mean(axis=0), [0.0, 1.5], atol=0.1)
    assert build_policy(policy.spec) == policy

    class Choices:
        n, start = 4, 2

    chosen = uniform_policy(Choices()).act({}, np.zeros((1000, 1)), {}, rng)[0]
    assert sorted(set(chosen.tolist())) == [2, 3, 4, 5]
    with pytest.raises(UsageError, match="bounded action range"):
        UniformPolicy((-np.inf,), (1.0,))


def test_a_learners_replacement_of_a_field_is_checked():
    with pytest.raises(UsageError):
        dataclasses.replace(make_policy(), size=-1)
