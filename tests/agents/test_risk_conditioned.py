"""One policy for every risk level."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents.distributional_sac import DistributionalSACLearner
from racer.core.errors import UsageError
from racer.networks.categorical import Support, cvar
from racer.networks.policy import MAX_RISK, Policy, build_policy

BOX = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
SMALL: dict[str, Any] = {"actor_hidden_dims": (16,), "critic_hidden_dims": (16,), "num_atoms": 21}

pytestmark = pytest.mark.usefixtures("quick_compilation")


def make(**changes: Any) -> DistributionalSACLearner:
    return DistributionalSACLearner.create(0, BOX, BOX, **{**SMALL, "risk_conditioned": True, **changes})


def batch(rows: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "observations": rng.normal(size=(rows, 3)), "next_observations": rng.normal(size=(rows, 3)),
        "actions": rng.uniform(-1.0, 1.0, (rows, 3)), "rewards": rng.normal(size=rows), "masks": np.zeros(rows),
        "dones": np.ones(rows),
    }  # fmt: skip


def test_cvar_takes_a_level_for_each_distribution() -> None:
    support, rng = Support(-2.0, 2.0, 9), np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(9), 5).astype(np.float32)
    levels = np.array([0.0, 0.2, 0.5, 0.9, 1.0], np.float32)
    found = cvar(support, jnp.asarray(probs), jnp.asarray(levels))
    each = [cvar(support, jnp.asarray(row), jnp.float32(level)) for row, level in zip(probs, levels, strict=True)]
    np.testing.assert_allclose(found, each, rtol=1e-6)
    assert found[0] == pytest.approx(probs[0].astype(float) @ np.linspace(-2.0, 2.0, 9), rel=1e-5)


def test_networks_are_told_the_level_and_read_it_back() -> None:
    policy = make(cvar_risk=0.4).policy
    assert isinstance(policy, Policy)
    assert policy.torso.shape == (4,)
    seen = policy.viewed(np.zeros((2, 3), np.float32))
    np.testing.assert_allclose(seen, [[0.0, 0.0, 0.0, 0.4]] * 2)
    levels = np.array([0.1, 0.7], np.float32)
    np.testing.assert_array_equal(policy.told_risk(policy.viewed(np.zeros((2, 3), np.float32), levels)), levels)
    assert build_policy(policy.spec) == policy


def test_rows_are_each_told() -> None:
    rows = gym.spaces.Box(-1.0, 1.0, (5, 3), np.float32)
    agent = DistributionalSACLearner.create(
        0, rows, BOX, **SMALL, risk_conditioned=True, encoder={"kind": "pointnet", "widths": (4,)},
        observation_scale=(1.0, 2.0, 3.0),
    )  # fmt: skip
    seen = agent.policy.viewed(np.zeros((2, 5, 3), np.float32), np.array([0.2, 0.3], np.float32))
    assert seen.shape == (2, 5, 4)
    np.testing.assert_allclose(agent.policy.told_risk(seen), [0.2, 0.3])


def test_an_episode_keeps_its_level_and_the_next_draws_another() -> None:
    agent = make()
    policy, params, rng = agent.policy, agent.policy_params, np.random.default_rng(0)
    observations, memory = np.zeros((64, 3), np.float32), agent.policy.initial_memory(64)
    _, first, _ = policy.act(params, observations, memory, rng)
    _, second, _ = policy.act(params, observations, first, rng)
    np.testing.assert_array_equal(first["risk"], second["risk"])
    assert (first["risk"] >= 0.0).all()
    assert (first["risk"] <= MAX_RISK).all()
    assert len(np.unique(first["risk"])) == 64
    ended = {name: np.where(np.arange(64)[:, None] < 32, 0.0, value) for name, value in second.items()}
    _, third, _ = policy.act(params, observations, ended, rng)
    assert (third["risk"][:32] != second["risk"][:32]).all()
    np.testing.assert_array_equal(third["risk"][32:], second["risk"][32:])


def test_without_exploration_the_level_is_the_chosen_one() -> None:
    policy = make(cvar_risk=0.3).policy.without_exploration()
    assert policy.initial_memory(2) == {}
    assert policy.at_risk(0.9).risk == 0.9
    plain = make(risk_conditioned=False).policy
    with pytest.raises(UsageError, match="risk_conditioned is off"):
        plain.at_risk(0.5)
    with pytest.raises(UsageError, match=r"between 0 and 1, got 1\.5"):
        policy.at_risk(1.5)


def test_it_gambles_at_low_risk_only() -> None:
    """One step: action 0 = a earns a / 2 in the mean, with a deviation of 0.8 (a + 1).

    The mean is best at a = 1. The mean of the worst fifth is 1.4 deviations lower (a normal's), so best at a = -1.
    """
    agent = make(
        actor_lr=3e-3, critic_lr=3e-3, temp_lr=0.0, init_temperature=0.01, q_min=-5.0, q_max=5.0,
        q_entropy_target_diff=None,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(400):
        data = batch(256, rng)
        gamble = data["actions"][:, 0]
        data["rewards"] = 0.5 * gamble + 0.8 * (gamble + 1.0) * rng.normal(size=256)
        agent, _ = agent.update(data, 2)
    observations = rng.normal(size=(200, 3)).astype(np.float32)
    policy, params = agent.policy.without_exploration(), agent.policy_params
    chosen = [policy.at_risk(level).act(params, observations, {}, rng, True)[0][:, 0] for level in (0.0, 0.4, 0.8)]
    assert chosen[0].mean() > 0.5
    assert chosen[2].mean() < -0.5
    assert chosen[2].mean() < chosen[1].mean() < chosen[0].mean()


def test_a_level_cannot_be_swept_beside_all_levels() -> None:
    with pytest.raises(UsageError, match="cannot be swept"):
        make(cvar_risk=jax.numpy.asarray([0.1, 0.2]))
