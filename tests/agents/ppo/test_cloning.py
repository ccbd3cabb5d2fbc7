"""Behaviour cloning and the first updates of the value network alone."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from racer.agents.cloning import clone_actions
from racer.agents.ppo import PPOLearner
from racer.core.errors import UsageError
from tests.agents.ppo.ppo_problems import make_agent, random_rollout

pytestmark = pytest.mark.usefixtures("quick_compilation")


def demonstrations(count=512):
    seen = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    return seen, np.stack([0.6 * np.tanh(seen[:, 0]), -0.3 * np.ones(count)], axis=1)


@pytest.mark.parametrize("distribution", ["beta", "tanh_gaussian"])
def test_the_deterministic_action_becomes_the_demonstrated_one(distribution):
    agent = make_agent(distribution=distribution)
    seen, done = demonstrations()
    cloned, loss = clone_actions(agent, seen, done, epochs=60, batch_size=64, learning_rate=1e-2)
    assert loss < 2e-3
    found = cloned.eval_actions(seen)
    assert np.abs(found - done).mean() < 0.04
    assert np.abs(agent.eval_actions(seen) - done).mean() > 0.2


def test_a_choice_becomes_likely():
    agent = make_agent(action_space=gym.spaces.Discrete(2, start=5))
    seen, _ = demonstrations()
    cloned, _ = clone_actions(agent, seen, 5 + (seen[:, 0] > 0), epochs=30, batch_size=64, learning_rate=1e-2)
    assert (cloned.eval_actions(seen) == 5 + (seen[:, 0] > 0)).mean() > 0.97


def test_only_the_policy_changes_and_equal_seeds_agree():
    agent = make_agent()
    seen, done = demonstrations()
    one, two = (clone_actions(agent, seen, done, epochs=2, seed=3)[0].state_arrays() for _ in range(2))
    before = agent.state_arrays()
    changed = {name for name in before if not np.array_equal(before[name], one[name])}
    assert changed
    assert all(name.startswith("actor/params/") for name in changed)
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])


@pytest.mark.parametrize(
    ("seen", "done"),
    [
        (np.zeros((0, 3)), np.zeros((0, 2))),
        (np.zeros((4, 3)), np.zeros((4, 1))),
        (np.zeros((4, 3)), np.full((4, 2), np.nan)),
    ],
)
def test_demonstrations_that_do_not_fit_are_refused(seen, done):
    with pytest.raises(UsageError, match="demonstrations"):
        clone_actions(make_agent(), seen, done, epochs=1)


def test_a_memory_is_refused():
    with pytest.raises(UsageError, match="without a memory"):
        clone_actions(make_agent(memory="gru"), *demonstrations(), epochs=1)


def test_the_value_network_learns_alone_at_first():
    agent = make_agent(critic_warmup=2)
    changed = []
    for seed in range(3):
        before = {name: np.array(value) for name, value in agent.state_arrays().items()}
        agent, _ = agent.update(random_rollout(agent, seed))
        after = agent.state_arrays()
        moved = {name for name in before if not np.array_equal(before[name], after[name])}
        changed.append([any(name.startswith(f"{part}/params") for name in moved) for part in ("actor", "critic")])
    assert changed == [[False, True], [False, True], [True, True]]


def test_a_policy_with_a_view_learns_from_what_it_sees():
    rows = gym.spaces.Box(-np.inf, np.inf, (6, 6), np.float32)
    action = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    agent = PPOLearner.create(0, rows, action, world="highway", view="lane_slots", hidden_dims=(16,))
    observations = np.random.default_rng(0).normal(size=(256, 6, 6)).astype(np.float32)
    done = np.full((256, 2), 0.4, np.float32)
    cloned, _ = clone_actions(agent, observations, done, epochs=300, batch_size=64)
    found, _, _ = cloned.policy.act(cloned.policy_params, observations, {}, np.random.default_rng(1), True)
    np.testing.assert_allclose(found.mean(axis=0), [0.4, 0.4], atol=0.1)
