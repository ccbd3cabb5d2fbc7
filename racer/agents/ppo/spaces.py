"""What PPO needs to know of its spaces: sizes, the action range, and which distribution fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym

from racer.agents.ppo.config import PPOConfig
from racer.agents.validation import Interfaces, flat_observation_dim
from racer.core.errors import UsageError, unknown_name

__all__ = ["ActionHead", "make_action_head"]


@dataclass(frozen=True)
class ActionHead:
    """The action distribution and its range.

    Attributes:
        distribution: one of :data:`racer.networks.actor_critic.DISTRIBUTIONS`.
        size: number of actions A, or of choices.
        low: lower end of each action as the policy uses it; empty for choices.
        high: upper end.
        names: name of each action, or empty.
        start: number of the first choice.
    """

    distribution: str
    size: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    start: int = 0

    @property
    def discrete(self) -> bool:
        """Whether an action is a choice, ``[N]``, rather than ``[N, A]`` numbers."""
        return self.distribution == "categorical"

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return () if self.discrete else (self.size,)


def make_action_head(
    agent: str,
    observation_space: gym.Space,
    action_space: gym.Space,
    action_names: Sequence[str] | None,
    config: PPOConfig,
) -> tuple[Interfaces, ActionHead]:
    """Read the spaces of a single environment.

    Raises:
        UsageError: a space that the agent cannot serve, a distribution that does not fit the actions, or a name in
            ``action_scale`` that the environment does not know.
    """
    if isinstance(action_space, gym.spaces.Discrete):
        interfaces = Interfaces(flat_observation_dim(agent, observation_space), (), ())
        head = _choices(action_space, config)
    else:
        interfaces = Interfaces.from_spaces(agent, observation_space, action_space, action_names)
        head = _continuous(interfaces, config)
    interfaces.check_rows(config.vehicle_features, config.pointnet_dims, config.observation_scale)
    return interfaces, head


def _choices(space: gym.spaces.Discrete, config: PPOConfig) -> ActionHead:
    if config.distribution not in ("auto", "categorical"):
        raise UsageError(f"distribution {config.distribution!r} is for continuous actions; use 'categorical' here")
    if config.action_scale:
        raise UsageError("action_scale has no meaning for a Discrete action space")
    return ActionHead("categorical", int(space.n), start=int(space.start))


def _continuous(interfaces: Interfaces, config: PPOConfig) -> ActionHead:
    if config.distribution == "categorical":
        raise UsageError("distribution 'categorical' needs a Discrete action space; use 'tanh_gaussian' or 'beta'")
    distribution = "tanh_gaussian" if config.distribution == "auto" else config.distribution
    scales = dict(config.action_scale)
    if scales and not interfaces.action_names:
        raise UsageError("action_scale addresses actions by name, but this environment names none")
    for name in scales:
        if name not in interfaces.action_names:
            raise unknown_name("action (action_scale)", name, interfaces.action_names)
    low, high = [], []
    for index, (least, greatest) in enumerate(zip(interfaces.action_low, interfaces.action_high, strict=True)):
        scale = scales.get(interfaces.action_names[index], 1.0) if interfaces.action_names else 1.0
        centre, half = 0.5 * (least + greatest), 0.5 * scale * (greatest - least)
        low.append(centre - half)
        high.append(centre + half)
    return ActionHead(distribution, interfaces.action_dim, tuple(low), tuple(high), interfaces.action_names)
