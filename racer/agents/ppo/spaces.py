"""What PPO needs to know of its spaces: sizes, the action range, and which distribution fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym

from racer.agents.named_actions import initial_shares, numbers_by_name
from racer.agents.ppo.config import PPOConfig
from racer.agents.validation import Interfaces, flat_observation_dim
from racer.core.errors import UsageError

__all__ = ["ActionHead", "make_action_head"]


@dataclass(frozen=True)
class ActionHead:
    """The action distribution and its range.

    Attributes:
        distribution: one of :data:`racer.networks.actor_critic.DISTRIBUTIONS`.
        size: number of actions A, or of choices.
        low: lower end of each action as the policy uses it; empty for choices.
        high: upper end.
        initial: first mean of each action in [-1, 1], the whole of its range.
        names: name of each action, or empty.
        start: number of the first choice.
    """

    distribution: str
    size: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    initial: tuple[float, ...] = ()
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
            ``action_scale`` or ``initial_action`` that the environment does not know.
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
    if config.action_scale or config.initial_action:
        raise UsageError("action_scale and initial_action have no meaning for a Discrete action space; set both to {}")
    return ActionHead("categorical", int(space.n), start=int(space.start))


def _continuous(interfaces: Interfaces, config: PPOConfig) -> ActionHead:
    if config.distribution == "categorical":
        raise UsageError("distribution 'categorical' needs a Discrete action space; use 'tanh_gaussian' or 'beta'")
    distribution = "tanh_gaussian" if config.distribution == "auto" else config.distribution
    scales = numbers_by_name("action_scale", config.action_scale, interfaces.action_names)
    names = interfaces.action_names or ("",) * interfaces.action_dim
    low, high = [], []
    for name, least, greatest in zip(names, interfaces.action_low, interfaces.action_high, strict=True):
        centre, half = 0.5 * (least + greatest), 0.5 * scales.get(name, 1.0) * (greatest - least)
        low.append(centre - half)
        high.append(centre + half)
    initial = initial_shares(config.initial_action, interfaces.action_names, low, high)
    return ActionHead(
        distribution, interfaces.action_dim, tuple(low), tuple(high), initial, interfaces.action_names
    )
