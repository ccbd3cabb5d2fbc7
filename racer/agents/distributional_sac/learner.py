"""The agent object: checks at the door, the compiled functions behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import gymnasium as gym
import jax
import numpy as np

from racer.agents.distributional_sac import update as compiled
from racer.agents.distributional_sac.config import DistributionalSACConfig
from racer.agents.limits import make_action_range
from racer.agents.shared import observation_rows, squashed_gaussian_spec
from racer.agents.state import flax_params
from racer.agents.stateful import StatefulLearner
from racer.agents.validation import Interfaces, checked_batch, checked_seed, config_from_mapping

__all__ = ["DistributionalSACLearner"]


@dataclass(frozen=True)
class DistributionalSACLearner(StatefulLearner):
    """RACER's learner; see :class:`racer.agents.protocol.Agent` for the verbs and docs/agents.md for the maths.

    Attributes:
        recipe: what does not change during training.
        state: what does.
    """

    recipe: compiled.Recipe
    state: compiled.LearnerState

    config_class: ClassVar[type[DistributionalSACConfig]] = DistributionalSACConfig
    components = compiled.COMPONENTS
    initial_state = staticmethod(compiled.initial_state)

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        action_names: Sequence[str] | None = None,
        **config: Any,
    ) -> DistributionalSACLearner:
        """See :meth:`racer.agents.protocol.Agent.create`."""
        name = cls.__name__
        checked = config_from_mapping(DistributionalSACConfig, config, name)
        interfaces = Interfaces.from_spaces(name, observation_space, action_space, action_names)
        interfaces.check_rows(checked.vehicle_features, checked.pointnet_dims, checked.observation_scale)
        action_range = make_action_range(
            interfaces,
            checked.learned_action,
            checked.learned_action_limit_kind,
            checked.learned_action_initial_limit,
        )
        recipe = compiled.Recipe(checked, interfaces, action_range)
        return cls(recipe, compiled.initial_state(recipe, jax.random.PRNGKey(checked_seed(seed))))

    def update(
        self, batch: Mapping[str, np.ndarray], utd_ratio: int
    ) -> tuple[DistributionalSACLearner, dict[str, jax.Array]]:
        """Take ``utd_ratio`` critic steps and ``policy_steps`` of the policy; this object's arrays are donated."""
        arrays = checked_batch(batch, utd_ratio, self.recipe.interfaces)
        state, info = compiled.update(self.recipe, self.state, arrays, utd_ratio)
        return replace(self, state=state), info

    def sample_actions(self, observations: np.ndarray) -> tuple[np.ndarray, DistributionalSACLearner]:
        """Draw actions; the returned agent carries the next random key."""
        rows, shape = observation_rows(observations, self.recipe.interfaces)
        actor, limit = self.state.actor.params, self.state.limits.params["limit"]
        actions, rng = compiled.sample(self.recipe, actor, limit, self.state.rng, rows)
        return np.array(actions).reshape(shape), replace(self, state=self.state._replace(rng=rng))

    def eval_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the squashed and limited mean actions."""
        rows, shape = observation_rows(observations, self.recipe.interfaces)
        actor, limit = self.state.actor.params, self.state.limits.params["limit"]
        return np.array(compiled.deterministic_actions(self.recipe, actor, limit, rows)).reshape(shape)

    @property
    def policy_spec(self) -> dict[str, Any]:
        """Description of the NumPy policy."""
        config = self.recipe.config
        return squashed_gaussian_spec(
            self.recipe.interfaces, config.actor_hidden_dims, self.recipe.encoder, config.learned_action,
            config.noise_correlation,
        )

    @property
    def policy_params(self) -> dict[str, np.ndarray]:
        """Actor parameters and the current action range."""
        limit = np.asarray(self.state.limits.params["limit"])
        return {**flax_params(self.state.actor.params), **self.recipe.action_range.numpy_bounds(limit)}
