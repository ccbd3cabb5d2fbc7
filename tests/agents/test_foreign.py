"""An agent with the verbs of the jaxrl family alone, written for these tests, through the adapter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents import agent_class, agent_config, agent_settings
from racer.agents.protocol import BATCH_FIELDS, REPLAY, Learner
from racer.core.errors import UsageError

OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
ACTIONS = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MeanOfTheBest:
    """Moves a mean towards the actions that paid more than others; immutable, as jaxrl's agents are."""

    mean: jax.Array
    rng: jax.Array

    @classmethod
    def create(
        cls, seed: int, observation_space: gym.Space, action_space: gym.Space, start: float = 0.0
    ) -> MeanOfTheBest:
        return cls(jnp.full(action_space.shape, start), jax.random.PRNGKey(seed))

    def update(self, batch: dict[str, np.ndarray], utd_ratio: int) -> tuple[MeanOfTheBest, dict[str, Any]]:
        assert set(batch) == set(BATCH_FIELDS)
        weights = jax.nn.softmax(10.0 * jnp.asarray(batch["rewards"]))
        best = weights @ jnp.asarray(batch["actions"])
        return replace(self, mean=self.mean + 0.5 * (best - self.mean)), {"gap": jnp.abs(best - self.mean).max()}

    def sample_actions(self, observations: np.ndarray) -> tuple[np.ndarray, MeanOfTheBest]:
        rng, key = jax.random.split(self.rng)
        noise = jax.random.normal(key, (len(observations), *self.mean.shape))
        return np.asarray(jnp.clip(self.mean + 0.5 * noise, -1.0, 1.0)), replace(self, rng=rng)

    def eval_actions(self, observations: np.ndarray) -> np.ndarray:
        return np.tile(np.asarray(self.mean), (len(observations), 1))


class Unsaveable(MeanOfTheBest):
    """A class that JAX does not know as a tree."""


NAME = f"{__name__}:MeanOfTheBest"


def train(learner: Any, updates: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    for _ in range(updates):
        seen = rng.normal(size=(32, 3)).astype(np.float32)
        actions, memory, extras = learner.policy.act(learner.policy_params, seen, {}, rng)
        assert not memory
        assert not extras
        rewards = -np.abs(actions[:, 0] - 0.6)
        batch = {"observations": seen, "actions": actions, "rewards": rewards, "next_observations": seen}
        learner, info = learner.update({**batch, "masks": np.ones(32), "dones": np.zeros(32)}, 1)
        assert set(info) == {"gap"}
    return learner


def test_it_learns_by_the_doors_of_this_house() -> None:
    cls = agent_class(NAME)
    assert cls.wants == REPLAY
    learner = cls.create(0, OBSERVATIONS, ACTIONS, action_names=("push",), world="highway", start=-0.5)
    assert isinstance(learner, Learner)
    learner = train(learner, 30)
    best = learner.policy.act({}, np.zeros((2, 3), np.float32), {}, None, deterministic=True)[0]
    assert best.dtype == np.float32
    np.testing.assert_allclose(best, 0.6, atol=0.1)


def test_its_state_is_saved_and_goes_on_exactly() -> None:
    cls = agent_class(NAME)
    learner = train(cls.create(0, OBSERVATIONS, ACTIONS), 3)
    arrays = learner.state_arrays()
    assert set(arrays) == {"mean", "rng"}
    other = cls.create(7, OBSERVATIONS, ACTIONS).with_state_arrays(arrays)
    ended, again = train(learner, 3, seed=5).state_arrays(), train(other, 3, seed=5).state_arrays()
    for name, value in ended.items():
        np.testing.assert_array_equal(value, again[name])
    with pytest.raises(UsageError, match="mean: missing"):
        other.with_state_arrays({"rng": arrays["rng"]})
    mute = agent_class(f"{__name__}:Unsaveable").create(0, OBSERVATIONS, ACTIONS)
    with pytest.raises(UsageError, match="cannot be saved"):
        mute.state_arrays()


def test_what_is_wrong_is_said_in_one_line() -> None:
    assert agent_config(NAME) is None
    assert agent_settings(NAME, {"start": 0.25}) == {"start": 0.25}
    with pytest.raises(UsageError, match="did you mean 'start'"):
        agent_settings(NAME, {"strat": 0.25})
    with pytest.raises(UsageError, match="lacks the verbs: create, sample_actions"):
        agent_class("collections:OrderedDict")
    with pytest.raises(UsageError, match="seed"):
        agent_class(NAME).create(-1, OBSERVATIONS, ACTIONS)
