"""Populations: every member learns as it would alone."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from racer.agents.ppo import PPOLearner
from racer.agents.registry import agent_class
from racer.core.errors import UsageError
from racer.envs.registry import get_world
from racer.envs.world import Functional
from racer.sweeps.population import Member, PopulationResult, train_population

AGENT = {
    "rollout_length": 16, "num_epochs": 2, "num_minibatches": 2, "hidden_dims": (8,), "value_hidden_dims": (8,),
    "memory": {"kind": "gru", "size": 6}, "value_heads": 2, "actor_lr": 1e-3,
}  # fmt: skip
SETTINGS = [{**AGENT, "ld_weight": 0.25}, {**AGENT, "actor_lr": 3e-3, "discount": 0.9, "entropy_coef": 0.02}]


@pytest.fixture(scope="module")
def functional() -> Functional:
    world = get_world("tmaze")
    assert world.functional is not None
    return world.functional(world.resolve({"length": 1, "max_episode_steps": 20}))


def _train(functional: Functional, settings: list[dict[str, Any]], seeds: list[int], **given: Any) -> PopulationResult:
    sizes = {"num_envs": 4, "num_transitions": 256, "chunk": 2, **given}
    return train_population(PPOLearner, functional, settings, seeds, **sizes)


@pytest.fixture(scope="module")
def population(functional: Functional) -> PopulationResult:
    return _train(functional, SETTINGS, [3, 8])


def test_members_are_every_setting_with_every_seed(population: PopulationResult) -> None:
    assert population.members == (Member(0, 3), Member(0, 8), Member(1, 3), Member(1, 8))
    assert population.transitions.tolist() == [64, 128, 192, 256]
    assert population.episodes.shape == (4, 4)
    assert np.asarray(population.states.updates).tolist() == [4] * 4
    assert np.asarray(population.states.transitions).tolist() == [256] * 4
    kernels = np.asarray(population.states.actor.params["trunk/hidden_0/kernel"])
    assert len(np.unique(kernels.reshape(4, -1), axis=0)) == 4


def test_a_member_equals_its_own_run(functional: Functional, population: PopulationResult) -> None:
    """float32 sums over members run in another order: parameters agree to 1e-5, episodes exactly."""
    for row, member in enumerate(population.members):
        if row in (1, 2):
            continue
        alone = _train(functional, [SETTINGS[member.setting]], [member.seed])
        np.testing.assert_array_equal(alone.episodes[0], population.episodes[row])
        for name, values in alone.sums.items():
            np.testing.assert_allclose(values[0], population.sums[name][row], rtol=1e-6)
        for got, want in zip(jax.tree.leaves(population.states), jax.tree.leaves(alone.states), strict=True):
            np.testing.assert_allclose(np.asarray(got)[row], np.asarray(want)[0], rtol=1e-4, atol=1e-5)


def test_means_are_over_episodes(population: PopulationResult) -> None:
    episodes, lengths = population.episodes, population.sums["length"]
    assert (episodes.sum(axis=1) > 0).all()
    np.testing.assert_allclose(population.mean("length"), lengths.sum(axis=1) / episodes.sum(axis=1))
    places, curve = population.curve("length", 2)
    assert places.tolist() == [96.0, 224.0]
    np.testing.assert_allclose(curve[:, 1], lengths[:, 2:].sum(axis=1) / episodes[:, 2:].sum(axis=1))


def test_progress_is_told_and_an_interrupt_is_heard(functional: Functional) -> None:
    told = []

    def on_chunk(transitions: int, seconds: float, means: Any) -> None:
        told.append((transitions, means["return"].shape, seconds > 0))
        if transitions > 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(functional, SETTINGS, [3, 8], num_transitions=10_000, on_chunk=on_chunk)
    assert told == [(128, (4,), True), (256, (4,), True)]


def test_what_cannot_share_a_compilation_is_named(functional: Functional) -> None:
    for other in ({**AGENT, "hidden_dims": (9,)}, {**AGENT, "value_clip": 0.2}):
        with pytest.raises(UsageError, match=r"setting 1 cannot share.*(hidden_dims|value_clip)"):
            _train(functional, [AGENT, other], [0])
    with pytest.raises(UsageError, match="num_minibatches"):
        _train(functional, [AGENT], [0], num_envs=3)
    with pytest.raises(UsageError, match="needs a setting"):
        _train(functional, [], [0])
    with pytest.raises(UsageError, match="does not learn from rollouts"):
        train_population(agent_class("SACLearner"), functional, [{}], [0], num_envs=4, num_transitions=64)


def test_it_learns_the_short_maze_with_memory(functional: Functional) -> None:
    agent = {
        **AGENT, "memory": {"kind": "gru", "size": 16}, "rollout_length": 32, "num_epochs": 4, "num_minibatches": 2,
        "actor_lr": 1e-2, "critic_lr": 1e-2, "entropy_coef": 0.01, "value_heads": 1,
    }  # fmt: skip
    result = _train(functional, [agent], [0, 1], num_envs=16, num_transitions=25_600, chunk=10)
    # The coin earns 1.95 * .99 ** 2 = 1.91, knowing the way 4 * .99 ** 2 = 3.92.
    assert result.mean("discounted_return", slice(-10, None)).min() > 3.5
