"""What an agent sees of its world: the shape of observations, the range of actions, their names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from racer.core.errors import UsageError

__all__ = ["Interfaces", "checked_seed", "read_fields"]


@dataclass(frozen=True)
class Interfaces:
    """The agent's view of its spaces. Under a controller the actions are the controller's, not the world's.

    Attributes:
        observation_shape: of one observation of the world, ``(D,)`` or rows ``(V, F)``.
        low: lower end of each action, ``[A]``; empty for choices.
        high: upper end.
        names: name of each action, or empty.
        choices: how many choices there are; 0 where actions are numbers.
        start: number of the first choice.
        world: name of the world whose view and controller these are, or None.
        view: name of the observation transform, or None.
        controller: name of the action transform, or None.
    """

    observation_shape: tuple[int, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    choices: int = 0
    start: int = 0
    world: str | None = None
    view: str | None = None
    controller: str | None = None

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of what the policy chooses."""
        return () if self.choices else (len(self.low),)

    @property
    def policy_fields(self) -> dict[str, Any]:
        """What a policy's description takes from here."""
        return {
            "observation_shape": list(self.observation_shape),
            "size": self.choices or len(self.low),
            "start": self.start,
            "action_names": list(self.names),
            "world": self.world if self.view or self.controller else None,
            "view": self.view,
            "controller": self.controller,
        }

    @classmethod
    def from_spaces(
        cls,
        agent: str,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        action_names: Sequence[str] | None = None,
        world: str | None = None,
        view: str | None = None,
        controller: str | None = None,
    ) -> Interfaces:
        """Read the spaces of a single environment.

        Raises:
            UsageError: observations that are no Box of numbers or rows, actions that are neither a bounded Box ``[A]``
                nor Discrete, names that do not match the actions, or a controller that the world does not have.
        """
        transforms: dict[str, Any] = {"world": world, "view": view, "controller": controller}
        shape = _observation_shape(agent, observation_space)
        if controller is not None:
            if not isinstance(action_space, gym.spaces.Box):
                raise UsageError(
                    f"controller {controller!r} gives numbers and needs a Box action space, got {action_space}; set "
                    "controller to None for choices"
                )
            names = _controlled(world, controller)
            return cls(shape, (-1.0,) * len(names), (1.0,) * len(names), names, **transforms)
        if isinstance(action_space, gym.spaces.Discrete):
            return cls(shape, choices=int(action_space.n), start=int(action_space.start), **transforms)
        low, high = _bounded_box(agent, action_space)
        return cls(shape, low, high, _matching(tuple(action_names or ()), len(low)), **transforms)

    def need_numbers(self, agent: str) -> None:
        """Raise UsageError where actions are choices."""
        if self.choices:
            raise UsageError(f"{agent} acts in continuous spaces, got Discrete({self.choices}); use a Box action space")

    def check_fields(self, kind: str, arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise UsageError unless every array has the shape that ``shapes`` says; observations may be flattened.

        Args:
            kind: what the fields belong to, for the error.
            arrays: by name.
            shapes: leading axes followed by a row's own; names with "observations" stand for the leading axes alone.
        """
        size = math.prod(self.observation_shape)
        for name, shape in shapes.items():
            rows = [(*shape, *self.observation_shape), (*shape, size)] if "observations" in name else [shape]
            if arrays[name].shape not in rows:
                raise UsageError(
                    f"{kind} field {name!r} must have shape {list(rows[0])}, got {list(arrays[name].shape)}"
                )


def read_fields(kind: str, data: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the named fields as arrays.

    Raises:
        UsageError: some are missing.
    """
    missing = [name for name in names if name not in data]
    if missing:
        raise UsageError(f"{kind} lacks: {', '.join(missing)}")
    return {name: np.asarray(data[name]) for name in names}


def checked_seed(seed: Any) -> int:
    """Return ``seed``, or raise UsageError unless it is an integer in [0, 2**32)."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise UsageError(f"seed must be an integer in [0, 2**32), got {seed!r}")
    return int(seed)


def _observation_shape(agent: str, space: gym.Space) -> tuple[int, ...]:
    if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (1, 2):
        raise UsageError(f"{agent} observes numbers [D] or rows of them [V, F], got {space}")
    return space.shape


def _bounded_box(agent: str, space: gym.Space) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not isinstance(space, gym.spaces.Box):
        raise UsageError(f"{agent} takes a Box or Discrete action space, got {type(space).__name__}")
    if len(space.shape) != 1:
        raise UsageError(f"{agent} takes actions [A], got shape {space.shape}")
    low, high = np.asarray(space.low, float), np.asarray(space.high, float)
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
        raise UsageError(f"{agent} needs a bounded action space, got low {low} and high {high}")
    if not np.all(low < high):
        raise UsageError(f"every action's low must lie below its high, got low {low} and high {high}")
    return tuple(low.tolist()), tuple(high.tolist())


def _matching(names: tuple[str, ...], size: int) -> tuple[str, ...]:
    if names and (len(names) != size or len(set(names)) != size):
        raise UsageError(f"{size} actions need as many different action_names, got {list(names)}")
    return names


def _controlled(world: str | None, controller: str) -> tuple[str, ...]:
    """Return what the policy chooses under a controller."""
    from racer.networks.policy import world_transform

    names: tuple[str, ...] = world_transform(world, "controller", controller).names
    return names
