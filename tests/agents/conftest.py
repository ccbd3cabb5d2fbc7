"""Small spaces, batches and agents for the tests of the learners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

OBSERVATION_DIM = 12
ACTION_NAMES = ("acceleration", "steering")
# Small enough that compiling dominates; tests share these values so that they share a compilation.
SMALL: dict[str, Any] = {"actor_hidden_dims": (16, 16), "critic_hidden_dims": (16, 16)}
BATCH_SIZE, UTD_RATIO = 8, 2


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """Compile without optimization: at these sizes compiling takes longer than running."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def observation_space() -> gym.spaces.Box:
    return gym.spaces.Box(-100.0, 100.0, (OBSERVATION_DIM,), np.float32)


@pytest.fixture(scope="session")
def action_space() -> gym.spaces.Box:
    return gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


@pytest.fixture(scope="session")
def make_agent(observation_space: gym.spaces.Box, action_space: gym.spaces.Box) -> Callable[..., Any]:
    from racer.agents import agent_class

    def make(name: str = "DistributionalSACLearner", seed: int = 0, **config: Any) -> Any:
        if name == "DistributionalSACLearner":
            config = {"num_atoms": 11, "q_min": -5.0, "q_max": 5.0, "learned_action": "steering", **config}
        values = {**SMALL, **config}
        cls = agent_class(name)
        return cls.create(seed, observation_space, action_space, action_names=ACTION_NAMES, **values)

    return make


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., dict[str, np.ndarray]]:
    def make(seed: int = 0, rows: int = BATCH_SIZE * UTD_RATIO, masks: float | None = None) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        alive = (rng.random(rows) > 0.3).astype(np.float32)
        if masks is not None:
            alive = np.full(rows, masks, np.float32)
        return {
            "observations": rng.normal(size=(rows, OBSERVATION_DIM)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
            "rewards": rng.normal(size=rows).astype(np.float32),
            "masks": alive,
            "dones": 1.0 - alive,
            "next_observations": rng.normal(size=(rows, OBSERVATION_DIM)).astype(np.float32),
        }

    return make
