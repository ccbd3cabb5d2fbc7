"""Random actions before there is a policy worth acting with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.envs.registry import get_world
from racer.networks.uniform import UniformPolicy, uniform_policy

__all__ = ["ControlledPolicy", "warmup_policy"]


@dataclass(frozen=True)
class ControlledPolicy:
    """Acts at random through a world's controller, as the policy that learns will.

    Attributes:
        policy: chooses what the controller takes.
        world: that has the controller.
        controller: its name.
        observation_shape: of one observation of the world.
    """

    policy: UniformPolicy
    world: str
    controller: str
    observation_shape: tuple[int, ...]

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        """Return nothing."""
        return {}

    def act(
        self, params: Any, observations: Any, memory: Any, key: Any, deterministic: bool = False
    ) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """See :meth:`racer.networks.policy.Policy.act`."""
        chosen, after, _ = self.policy.act(params, observations, memory, key, deterministic)
        shaped = observations.reshape(len(observations), *self.observation_shape)
        actions = get_world(self.world).controller(self.controller)(shaped, chosen)
        return actions, after, {"policy_actions": chosen}


def warmup_policy(policy: Any, params: Any, action_space: Any) -> UniformPolicy | ControlledPolicy:
    """Return the policy of the warm-up: uniform over the actions that ``policy`` may take.

    A learned limit that confines the policy confines the warm-up too: actions from the whole range may end every
    episode before it has shown anything.

    Args:
        policy: that learns.
        params: its first parameters, with ``action_low`` and ``action_high`` where they confine it.
        action_space: of one environment.
    """
    bounds = [params.get(name) if hasattr(params, "get") else None for name in ("action_low", "action_high")]
    if any(end is None for end in bounds):
        return uniform_policy(action_space)
    low, high = (tuple(np.asarray(end, np.float64).reshape(-1).tolist()) for end in bounds)
    uniform = UniformPolicy(low, high)
    controller = getattr(policy, "controller", None)
    if controller is None:
        return uniform
    return ControlledPolicy(uniform, policy.world, controller, policy.observation_shape)
