"""Positional encodings against their formulas in float64, on NumPy and JAX arrays, and within every agent."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents.registry import agent_class
from racer.core.errors import UsageError
from racer.envs.registry import get_world
from racer.networks.encodings import TABLE, build_encoding, encoding_spec
from racer.networks.policy import build_policy
from racer.training.run_spec import create_agent, spec_from_config

PLACED = {"x": 1, "y": 2, "presence": 0, "metres": [2.0, 3.0]}
KINDS: dict[str, dict[str, Any]] = {
    "rank": {"kind": "rank", **PLACED, "dim": 4},
    "distance": {"kind": "distance", **PLACED, "dim": 6, "base": 100.0, "max_distance": 40.0},
    "rotary": {"kind": "rotary", **PLACED, "base": 100.0, "max_distance": 40.0},
}


def scenes(seed: int = 0, rows: int = 5, columns: int = 6) -> np.ndarray:
    """Return ``[2, 3, V, F]``: a present observer with a position of its own, others, and an empty last row."""
    rng = np.random.default_rng(seed)
    found = rng.normal(0.0, 5.0, (2, 3, rows, columns)).astype(np.float32)
    found[..., 0] = 1.0
    found[..., -1, :] = 0.0
    return found


def by_hand(kind: str, row: np.ndarray, near: float, extra: Any = None) -> np.ndarray:
    """Encode one row with the formulas as they are written down, in float64."""
    row = row.astype(np.float64)
    if kind == "rank":
        return np.concatenate([row, np.tanh(extra)])
    if kind == "distance":
        waves = [2 * math.pi * near * 100.0 ** (-2 * k / 6) for k in range(3)]
        return np.concatenate([row, [math.sin(w) for w in waves], [math.cos(w) for w in waves]])
    turned = row.copy()
    for p in range(3):
        theta = 2 * math.pi * near * 100.0 ** (-p / 3)
        a, b = row[2 * p], row[2 * p + 1]
        turned[2 * p : 2 * p + 2] = a * math.cos(theta) - b * math.sin(theta), a * math.sin(theta) + b * math.cos(theta)
    return turned


@pytest.mark.parametrize("kind", KINDS)
def test_encodings_are_their_formulas_on_both_array_libraries(kind: str) -> None:
    encoding = build_encoding(KINDS[kind])
    assert encoding is not None
    observations = scenes()
    params = encoding.init(jax.random.PRNGKey(0), (5, 6))
    scaled = observations * np.float32(0.5)
    numpy = encoding.encode({k: np.asarray(v) for k, v in params.items()}, observations, scaled)
    compiled = jax.jit(encoding.encode)(params, jnp.asarray(observations), jnp.asarray(scaled))
    assert numpy.dtype == np.float32
    assert numpy.shape[-2:] == encoding.shape((5, 6))
    np.testing.assert_allclose(numpy, compiled, atol=2e-5)
    for place in np.ndindex(2, 3, 4):
        row = observations[place]
        distance = math.hypot(2.0 * row[1], 3.0 * row[2]) if place[2] else 0.0
        near = min(distance / 40.0, 1.0)
        extra = np.asarray(params[TABLE])[place[2]] if kind == "rank" else None
        np.testing.assert_allclose(numpy[place], by_hand(kind, scaled[place], near, extra), atol=2e-5)
    # The empty row stays empty, whatever its place.
    assert not numpy[:, :, -1].any()
    assert build_encoding(encoding_spec(encoding)) == encoding


def test_rotations_keep_norms_and_are_the_identity_at_no_distance() -> None:
    encoding = build_encoding(KINDS["rotary"])
    assert encoding is not None
    observations = scenes(1)
    turned = encoding.encode({}, observations, observations)
    for pair in (slice(0, 2), slice(2, 4), slice(4, 6)):
        np.testing.assert_allclose(
            np.linalg.norm(turned[..., pair], axis=-1), np.linalg.norm(observations[..., pair], axis=-1), rtol=1e-5
        )
    np.testing.assert_array_equal(turned[..., 0, :], observations[..., 0, :])
    assert np.abs(turned - observations)[..., 1:4, :].max() > 0.1
    odd = build_encoding({**KINDS["rotary"], "presence": None})
    assert odd is not None
    five = observations[..., :5]
    np.testing.assert_array_equal(odd.encode({}, five, five)[..., 4], five[..., 4])


def test_as_run_measures_what_the_study_measured() -> None:
    """Normalized rows that are relative to the observer already, less its absolute row, over 100: almost nothing."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(-0.5, 0.5, (7, 5, 5)).astype(np.float32)
    rows[:, 0, 1] = 1.0
    as_run = build_encoding({"kind": "distance", "x": 1, "y": 2, "metres": [100.0, 100.0], "variant": "as_run"})
    corrected = build_encoding({"kind": "distance", "x": 1, "y": 2, "metres": [100.0, 100.0]})
    near, right = as_run.nearness(rows, 100.0), corrected.nearness(rows, 100.0)  # type: ignore[union-attr]
    assert near.max() < 0.02
    np.testing.assert_allclose(near[:, 1], np.hypot(*(rows[:, 1, 1:3] - rows[:, 0, 1:3]).T) / 100.0, rtol=1e-4)
    np.testing.assert_allclose(right[:, 1:], np.hypot(rows[:, 1:, 1], rows[:, 1:, 2]), rtol=1e-5)
    assert (right[:, 0] == 0.0).all()
    rotary = build_encoding({"kind": "rotary", "x": 1, "y": 2, "variant": "as_run"})
    np.testing.assert_array_equal(rotary.encode({}, rows, rows), as_run.encode({}, rows, rows))  # type: ignore[union-attr]


def test_absolute_positions_are_taken_relative_to_row_zero() -> None:
    rows = scenes(2)
    absolute = build_encoding({**KINDS["distance"], "absolute": True})
    relative = build_encoding(KINDS["distance"])
    moved = rows.copy()
    moved[..., 1:4, 1:3] += rows[..., :1, 1:3]
    np.testing.assert_allclose(
        absolute.nearness(moved, 40.0)[..., :4], relative.nearness(rows, 40.0)[..., :4], atol=1e-5  # type: ignore[union-attr]
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("rotari", "unknown positional encoding kind 'rotari'; did you mean 'rotary'"),
        ({"kind": "distance", "x": 1, "y": 2, "dim": 5}, "dim must be even"),
        ({"kind": "rank", "variant": "fixed"}, "variant"),
        ({"kind": "rotary", "colour": 1}, "unknown key of positional encoding 'rotary'"),
    ],
)
def test_wrong_descriptions_are_refused(given: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_encoding(given)


def test_what_has_no_rows_or_columns_is_refused() -> None:
    for given, shape, words in (
        ("rank", (6,), "in rows"), ("rotary", (5, 6), "needs the columns x and y"),
        ({"kind": "rotary", "x": 9, "y": 2}, (5, 6), "rows have 6 columns"),
    ):  # fmt: skip
        encoding = build_encoding(given)
        assert encoding is not None
        with pytest.raises(UsageError, match=words):
            encoding.shape(shape)


def agent_of(kind: str, encoding: Any, **more: Any) -> Any:
    sizes = {"ppo": ("hidden_dims", "value_hidden_dims")}.get(kind, ("actor_hidden_dims", "critic_hidden_dims"))
    config = {"model_cls": {"ppo": "PPOLearner", "sac": "SACLearner", "cvar": "DistributionalSACLearner"}[kind],
              "positional_encoding": encoding, **dict.fromkeys(sizes, (8,)), **more}  # fmt: skip
    env = {"observation": {"vehicles_count": 4}}
    spec = spec_from_config({**config, "env": env}, 0)
    made = get_world("highway").make(spec.env_config, 1)
    spaces = made.single_observation_space, made.single_action_space
    made.close()
    return create_agent(spec, *spaces)


@pytest.mark.parametrize(("kind", "encoding"), [("ppo", "rotary"), ("sac", "rank"), ("cvar", "rotary")])
def test_every_agent_takes_an_encoding_by_name(kind: str, encoding: str) -> None:
    agent = agent_of(kind, encoding, encoder={"kind": "attention", "embed": 8, "heads": 2})
    positions = agent.policy.torso.positions
    assert (positions.x, positions.y, positions.presence, positions.metres) == (1, 2, 0, (1.0, 1.0))
    assert build_policy(agent.policy.spec) == agent.policy
    rows = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    rows[..., 0] = 1.0
    policy, params = agent.policy, agent.policy_params
    plain = policy.act(params, rows, policy.initial_memory(3), np.random.default_rng(0), True)[0]
    jitted = {k: jnp.asarray(v) for k, v in params.items()}
    compiled = policy.act(jitted, jnp.asarray(rows), policy.initial_memory(3), jax.random.PRNGKey(0), True)[0]
    np.testing.assert_allclose(plain, compiled, atol=1e-5)
    names = [name for name in agent.state_arrays() if TABLE in name or "rank_frozen" in name]
    assert bool(names) == (encoding == "rank")


def test_the_rank_table_is_saved_and_never_trained() -> None:
    agent = agent_of("sac", "rank", critic_weight_decay=0.1)
    before = agent.state_arrays()
    tables = [name for name in before if "rank_frozen" in name and "/params/" in name]
    # Actor and critics have tables of their own.
    assert len(tables) == 2
    rng, shapes = np.random.default_rng(0), {"observations": (4, 6), "next_observations": (4, 6), "actions": (2,)}
    data = {name: rng.random((8, *shapes.get(name, ())), np.float32)
            for name in ("observations", "next_observations", "actions", "rewards", "masks", "dones")}  # fmt: skip
    for _ in range(2):
        agent, _ = agent.update(data)
    after = agent.state_arrays()
    for name in tables:
        np.testing.assert_array_equal(after[name], before[name])
    kernel = next(name for name in before if name.startswith("actor/params") and name.endswith("kernel"))
    assert (after[kernel] != before[kernel]).any()
    assert agent_class("sac") is type(agent)


def test_the_world_says_where_positions_stand() -> None:
    world = get_world("highway")
    ranges = {"x": [-100, 100], "y": [-50, 50]}
    observation = {"features": ["x", "vx", "y", "vy"], "normalize": True, "features_range": ranges}
    spec = spec_from_config({"model_cls": "PPOLearner", "positional_encoding": {"kind": "rotary", "max_distance": 60.0},
                             "env": {"observation": observation}}, 0)  # fmt: skip
    encoding = spec.agent_config["positional_encoding"]
    assert (encoding["x"], encoding["y"], encoding["presence"], encoding["metres"]) == (0, 2, None, [100.0, 50.0])
    assert encoding["max_distance"] == 60.0
    assert world.row_layout is not None
    usual = world.row_layout(world.resolve({"observation": {"normalize": True}, "lanes_count": 3}))
    assert usual["metres"] == (200.0, 12.0)
    for env, words in (
        ({"flatten_observation": True}, "in rows"),
        ({"observation": {"features": ["vx"]}}, "'x' and 'y'"),
        ({"observation": {"normalize": True, "features_range": {"x": [0, 9]}}}, "symmetric"),
    ):
        with pytest.raises(UsageError, match=words):
            spec_from_config({"model_cls": "PPOLearner", "positional_encoding": "rank", "env": env}, 0)
