"""The agent object: checks at the door, the compiled functions behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import gymnasium as gym
import jax
import numpy as np

from racer.agents.ppo import update as compiled
from racer.agents.ppo.config import PPOConfig
from racer.agents.ppo.rollout import checked_rollout
from racer.agents.ppo.spaces import make_action_head
from racer.agents.shared import observation_rows, trunk_spec
from racer.agents.state import flax_params
from racer.agents.stateful import StatefulLearner
from racer.agents.validation import checked_seed, config_from_mapping
from racer.networks.actor_critic import LOG_STD_MAX, LOG_STD_MIN

__all__ = ["PPOLearner"]


@dataclass(frozen=True)
class PPOLearner(StatefulLearner):
    """Clipped PPO; see :class:`racer.agents.protocol.OnPolicyAgent` for the verbs and docs/ppo.md for the maths.

    Attributes:
        recipe: what does not change during training.
        state: what does.
    """

    recipe: compiled.Recipe
    state: compiled.LearnerState

    config_class: ClassVar[type[PPOConfig]] = PPOConfig
    components = compiled.COMPONENTS
    initial_state = staticmethod(compiled.initial_state)
    on_policy: ClassVar[bool] = True

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        action_names: Sequence[str] | None = None,
        **config: Any,
    ) -> PPOLearner:
        """See :meth:`racer.agents.protocol.OnPolicyAgent.create`."""
        name = cls.__name__
        checked = config_from_mapping(PPOConfig, config, name)
        interfaces, head = make_action_head(name, observation_space, action_space, action_names, checked)
        recipe = compiled.Recipe(checked, interfaces, head)
        return cls(recipe, compiled.initial_state(recipe, jax.random.PRNGKey(checked_seed(seed))))

    @property
    def rollout_length(self) -> int:
        """Steps of every environment between two updates."""
        return self.recipe.config.rollout_length

    def check_num_envs(self, num_envs: int) -> None:
        """Raise UsageError unless rollouts of ``num_envs`` environments divide into minibatches."""
        self.recipe.config.check_rows(self.rollout_length, num_envs)

    def update(self, rollouts: Mapping[str, np.ndarray]) -> tuple[PPOLearner, dict[str, jax.Array]]:
        """Learn from time-major rollouts; this object's arrays are donated.

        Args:
            rollouts: ``observations, next_observations [T, N, D]``, ``actions [T, N, A]`` (choices ``[T, N]``),
                ``rewards, masks, dones, valid [T, N]``, and what the policy wrote down as it acted:
                ``log_probs [T, N]`` and, of continuous actions, ``draws [T, N, A]``. Other fields are ignored.

        Raises:
            UsageError: a field is missing or misshapen, or ``T * N`` rows do not divide into minibatches.
        """
        arrays = checked_rollout(rollouts, self.recipe.interfaces, self.recipe.head, self.recipe.config)
        state, info = compiled.update(self.recipe, self.state, arrays)
        return replace(self, state=state), info

    def sample_actions(self, observations: np.ndarray) -> tuple[np.ndarray, PPOLearner]:
        """Draw actions; the returned agent carries the next random key."""
        rows = observation_rows(observations, self.recipe.interfaces)[0]
        actions, rng = compiled.sample(self.recipe, self.state.actor.params, self.state.rng, rows)
        return self._shaped(actions, observations), replace(self, state=self.state._replace(rng=rng))

    def eval_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the deterministic actions."""
        rows = observation_rows(observations, self.recipe.interfaces)[0]
        actions = compiled.deterministic_actions(self.recipe, self.state.actor.params, rows)
        return self._shaped(actions, observations)

    def _shaped(self, actions: jax.Array, observations: np.ndarray) -> np.ndarray:
        head, lead = self.recipe.head, np.shape(observations)[:-1]
        if head.discrete:
            return (np.array(actions, np.int64) + head.start).reshape(lead)
        return np.array(actions).reshape(*lead, head.size)

    @property
    def policy_spec(self) -> dict[str, Any]:
        """Description of the NumPy policy."""
        head, config = self.recipe.head, self.recipe.config
        trunk = trunk_spec(
            self.recipe.interfaces.observation_dim, config.hidden_dims, self.recipe.encoder, config.activation
        )
        if head.discrete:
            return {"kind": "categorical", "trunk": trunk, "num_choices": head.size, "start": head.start}
        names = list(head.names)
        spec = {"kind": head.distribution, "trunk": trunk, "action_dim": head.size, "action_names": names}
        if head.distribution == "tanh_gaussian":
            spec |= {"log_std_min": LOG_STD_MIN, "log_std_max": LOG_STD_MAX}
        return spec

    @property
    def policy_params(self) -> dict[str, np.ndarray]:
        """Parameters of the policy network, and of continuous actions the range."""
        params = flax_params(self.state.actor.params)
        head = self.recipe.head
        if head.discrete:
            return params
        bounds = {"action_low": np.array(head.low, np.float32), "action_high": np.array(head.high, np.float32)}
        return {**params, **bounds}
