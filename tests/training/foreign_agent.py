"""A learner of the jaxrl family as somebody else would write it: its verbs, and nothing of this house."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeanLearner:
    """Acts around the mean of the actions that it has seen."""

    mean: jax.Array
    rng: jax.Array

    @classmethod
    def create(cls, seed: int, observation_space: Any, action_space: Any, step_size: float = 0.1) -> MeanLearner:
        """Begin at the centre."""
        if step_size <= 0.0:
            raise ValueError("step_size must be above 0")
        return cls(jnp.zeros(action_space.shape), jax.random.PRNGKey(seed))

    def update(self, batch: dict[str, np.ndarray], utd_ratio: int) -> tuple[MeanLearner, dict[str, Any]]:
        """Move towards the batch's mean action."""
        assert set(batch) == {"observations", "actions", "rewards", "masks", "dones", "next_observations"}
        mean = 0.9 * self.mean + 0.1 * batch["actions"].mean(axis=0)
        return dataclasses.replace(self, mean=mean), {"mean": jnp.mean(mean)}

    def sample_actions(self, observations: np.ndarray) -> tuple[np.ndarray, MeanLearner]:
        """Draw around the mean."""
        rng, key = jax.random.split(self.rng)
        noise = 0.1 * jax.random.normal(key, (len(observations), *self.mean.shape))
        return np.clip(np.asarray(self.mean + noise), -1.0, 1.0), dataclasses.replace(self, rng=rng)

    def eval_actions(self, observations: np.ndarray) -> np.ndarray:
        """Take the mean."""
        return np.tile(np.asarray(self.mean), (len(observations), 1))
