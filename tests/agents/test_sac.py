"""Soft actor-critic: losses by hand, the same guarantees as the distributional learner, a bandit solved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents import sac
from racer.agents.learner import run_update
from racer.agents.losses import sac as losses
from racer.core.errors import UsageError

Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_critic_target_by_hand() -> None:
    values = jnp.array([[1.0, 5.0], [3.0, 2.0]])
    found = losses.critic_target(values, jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0]), 0.9, jnp.array([0.2, 9.0]))
    np.testing.assert_allclose(found, [0.5 + 0.9 * (1.0 + 0.2), 0.5], rtol=1e-6)


def test_critic_and_actor_loss_by_hand() -> None:
    values = jnp.array([[1.0, 2.0], [3.0, -1.0]])
    np.testing.assert_allclose(losses.critic_loss(values, jnp.array([0.0, 1.0])), (1 + 1 + 9 + 4) / 4)
    found = losses.actor_loss(values, jnp.array([1.0, -2.0]), jnp.float32(0.5))
    np.testing.assert_allclose(found, np.mean([0.5 - 2.0, -1.0 - 0.5]), rtol=1e-6)


def test_update_compiles_once_counts_and_donates(make_agent: Make, make_batch: Make) -> None:
    agent = make_agent("SACLearner")
    first = agent
    agent, info = agent.update(make_batch(0), 2)
    size = run_update._cache_size()
    agent, _ = agent.update(make_batch(1), 2)
    assert run_update._cache_size() == size
    assert agent.state.gradient_steps == 4
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(agent.state))
    assert jax.tree.leaves(first.state.critic.params)[0].is_deleted()
    assert all(np.isfinite(value) for value in info.values())


def test_state_round_trip_continues_bit_for_bit(make_agent: Make, make_batch: Make) -> None:
    agent, _ = make_agent("SACLearner").update(make_batch(0), 2)
    other = make_agent("SACLearner", seed=9).with_state_arrays(agent.state_arrays())
    agent, _ = agent.update(make_batch(1), 2)
    other, _ = other.update(make_batch(1), 2)
    continued, again = agent.state_arrays(), other.state_arrays()
    for name in continued:
        np.testing.assert_array_equal(continued[name], again[name], err_msg=name)


def test_terminated_transitions_do_not_bootstrap(make_agent: Make, make_batch: Make) -> None:
    batch = make_batch(masks=0.0)
    moved = {**batch, "next_observations": batch["next_observations"] + 1.0}
    first, _ = make_agent("SACLearner").update(batch, 2)
    second, _ = make_agent("SACLearner").update(moved, 2)
    for a, b in zip(
        jax.tree.leaves(first.state.critic.params), jax.tree.leaves(second.state.critic.params), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_the_minimum_runs_over_a_subset_drawn_for_every_minibatch(make_agent: Make, make_batch: Make) -> None:
    agent = make_agent("SACLearner", num_qs=6, num_min_qs=2)
    minibatches = {name: jnp.asarray(x).reshape(8, 2, *x.shape[1:]) for name, x in make_batch().items()}
    data = sac.critic_rows(agent.static, agent.state, minibatches, jax.random.PRNGKey(0))
    assert data.subset.shape == (8, 2)
    assert np.all(data.subset[:, 0] != data.subset[:, 1])
    assert len(np.unique(np.asarray(data.subset), axis=0)) > 1


def test_a_non_finite_minibatch_is_skipped_and_counted(make_agent: Make, make_batch: Make) -> None:
    agent = make_agent("SACLearner")
    before = jax.tree.map(lambda leaf: np.array(leaf, copy=True), agent.state)
    bad = make_batch()
    bad["rewards"][[0, 8]] = np.inf
    agent, info = agent.update(bad, 2)
    assert info["nonfinite_updates"] == 2
    for a, b in zip(jax.tree.leaves(before.critic), jax.tree.leaves(agent.state.critic), strict=True):
        np.testing.assert_array_equal(a, b)


def test_reset_keeps_what_is_excluded(make_agent: Make) -> None:
    agent = make_agent("SACLearner")
    kept = agent.reset(exclude=("actor",))
    same = [
        np.array_equal(a, b)
        for a, b in zip(
            jax.tree.leaves(agent.state.actor.params), jax.tree.leaves(kept.state.actor.params), strict=True
        )
    ]
    assert all(same)
    assert not np.array_equal(
        agent.state.critic.params["members/output_kernel"], kept.state.critic.params["members/output_kernel"]
    )
    with pytest.raises(UsageError, match="unknown agent component"):
        agent.reset(exclude=("limits",))


def test_a_bandit_is_solved_inside_an_action_range_of_its_own() -> None:
    from racer.agents.sac import SACLearner

    agent = SACLearner.create(
        1,
        gym.spaces.Box(-1.0, 1.0, (1,), np.float32),
        gym.spaces.Box(-2.0, 4.0, (1,), np.float32),
        actor_hidden_dims=(32,),
        critic_hidden_dims=(32, 32),
        actor_lr=1e-2,
        critic_lr=1e-2,
        temp_lr=0.0,
        init_temperature=0.02,
    )
    rng = np.random.default_rng(0)
    for _ in range(150):
        actions = rng.uniform(-2, 4, (256, 1)).astype(np.float32)
        batch = {
            "observations": np.zeros((256, 1), np.float32),
            "actions": actions,
            "rewards": -np.square(actions[:, 0] - 2.5),
            "masks": np.zeros(256, np.float32),
            "dones": np.ones(256, np.float32),
            "next_observations": np.zeros((256, 1), np.float32),
        }
        agent, _ = agent.update(batch, 4)
    np.testing.assert_allclose(agent.eval_actions(np.zeros(1, np.float32)), 2.5, atol=0.4)
