"""Checks at an agent's door: configuration keys and ranges, spaces, batches.

Everything here raises :class:`racer.core.errors.UsageError` with the name of the key and what would be right.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np

from racer.agents.protocol import BATCH_FIELDS
from racer.core.errors import UsageError, unknown_name

__all__ = [
    "Interfaces",
    "checked_batch",
    "checked_seed",
    "config_from_mapping",
    "flat_observation_dim",
    "require_dims",
    "require_range",
    "require_scale",
    "require_type",
]

C = TypeVar("C")


@dataclass(frozen=True)
class Interfaces:
    """The agent's view of its spaces.

    Attributes:
        observation_dim: D.
        action_low: lower end of each action.
        action_high: upper end of each action.
        action_names: name of each action, or empty.
    """

    observation_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    action_names: tuple[str, ...] = ()

    @property
    def action_dim(self) -> int:
        """A."""
        return len(self.action_low)

    @classmethod
    def from_spaces(
        cls,
        agent: str,
        observation_space: gym.Space,
        action_space: gym.Space,
        action_names: Sequence[str] | None,
    ) -> Interfaces:
        """Read the spaces of a single environment.

        Raises:
            UsageError: a space is not a one-dimensional Box, the action range is unbounded or empty, or the
                names do not match the actions.
        """
        if not isinstance(action_space, gym.spaces.Box):
            raise UsageError(
                f"{agent} acts in continuous spaces, got {type(action_space).__name__}; use a Box action space"
            )
        observation_dim = flat_observation_dim(agent, observation_space)
        if len(action_space.shape) != 1:
            raise UsageError(f"{agent} takes actions [A], got shape {action_space.shape}")
        low, high = np.asarray(action_space.low, float), np.asarray(action_space.high, float)
        if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
            raise UsageError(f"{agent} needs a bounded action space, got low {low} and high {high}")
        if not np.all(low < high):
            raise UsageError(f"every action's low must lie below its high, got low {low} and high {high}")
        names = tuple(action_names or ())
        if names and (len(names) != low.size or len(set(names)) != len(names)):
            raise UsageError(f"{low.size} actions need as many different action_names, got {list(names)}")
        return cls(observation_dim, tuple(low.tolist()), tuple(high.tolist()), names)

    def check_rows(
        self,
        vehicle_features: int,
        pointnet_dims: tuple[int, ...],
        observation_scale: float | tuple[float, ...] | None,
    ) -> None:
        """Raise UsageError where rows of vehicles are asked for but the observation does not divide into them."""
        needed = bool(pointnet_dims) or isinstance(observation_scale, tuple)
        if needed and self.observation_dim % vehicle_features:
            raise UsageError(
                f"observations of {self.observation_dim} numbers do not divide into rows of "
                f"vehicle_features={vehicle_features}"
            )


def flat_observation_dim(agent: str, observation_space: gym.Space) -> int:
    """Return the number of values in an observation.

    Raises:
        UsageError: the space is not a one-dimensional Box.
    """
    if not isinstance(observation_space, gym.spaces.Box) or len(observation_space.shape) != 1:
        raise UsageError(f"{agent} observes flat arrays [D], got {observation_space}; flatten the observation")
    return observation_space.shape[0]


def config_from_mapping(config_class: type[C], values: Mapping[str, Any], agent: str) -> C:
    """Build a configuration dataclass from keyword values; lists become tuples.

    Raises:
        UsageError: an unknown key (with the nearest one), or what the class's own checks refuse.
    """
    names = {field.name for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise unknown_name(f"{agent} config key", key, names)
    return config_class(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


def require_type(name: str, value: Any, kind: type) -> None:
    """Raise UsageError unless ``value`` is a ``kind`` (bool is not an int)."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{name} must be {kind.__name__}, got {value!r}")


def require_range(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
) -> None:
    """Raise UsageError unless ``value`` is a finite number in ``[low, high]`` (``(low, high]`` if open)."""
    bracket = "(" if open_low else "["
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise UsageError(f"{name} must be a number in {bracket}{low:g}, {high:g}], got {value!r}")
    if not (low <= value <= high) or (open_low and value <= low) or math.isinf(value):
        raise UsageError(f"{name} must lie in {bracket}{low:g}, {high:g}], got {value!r}")


def require_dims(name: str, dims: Any, *, allow_empty: bool = False) -> None:
    """Raise UsageError unless ``dims`` is a tuple of positive layer widths."""
    good = isinstance(dims, tuple) and all(isinstance(d, int) and not isinstance(d, bool) and d > 0 for d in dims)
    if not good or (not dims and not allow_empty):
        raise UsageError(f"{name} must be a tuple of positive layer widths such as (256, 256), got {dims!r}")


def require_scale(scale: Any, vehicle_features: int) -> None:
    """Raise UsageError unless ``scale`` is None, a positive number, or one for each vehicle feature."""
    if scale is None:
        return
    if isinstance(scale, tuple):
        if len(scale) != vehicle_features:
            raise UsageError(f"observation_scale has {len(scale)} values but vehicle_features is {vehicle_features}")
        for value in scale:
            require_range("observation_scale", value, 0.0, open_low=True)
        return
    require_range("observation_scale", scale, 0.0, open_low=True)


def checked_seed(seed: Any) -> int:
    """Return ``seed``, or raise UsageError unless it is an integer in [0, 2**32)."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise UsageError(f"seed must be an integer in [0, 2**32), got {seed!r}")
    return int(seed)


def checked_batch(batch: Mapping[str, np.ndarray], utd_ratio: int, interfaces: Interfaces) -> dict[str, np.ndarray]:
    """Return the batch's float32 fields after checking names, shapes and divisibility.

    Raises:
        UsageError: a field is missing or misshapen, or the rows do not divide into ``utd_ratio`` minibatches.
    """
    if isinstance(utd_ratio, bool) or not isinstance(utd_ratio, int) or utd_ratio < 1:
        raise UsageError(f"utd_ratio must be a positive integer, got {utd_ratio!r}")
    missing = [name for name in BATCH_FIELDS if name not in batch]
    if missing:
        raise UsageError(f"batch lacks: {', '.join(missing)}")
    arrays = {name: np.asarray(batch[name], dtype=np.float32) for name in BATCH_FIELDS}
    rows = len(arrays["rewards"])
    tails: dict[str, tuple[int, ...]] = {
        "observations": (interfaces.observation_dim,),
        "next_observations": (interfaces.observation_dim,),
        "actions": (interfaces.action_dim,),
    }
    for name, array in arrays.items():
        expected = (rows, *tails.get(name, ()))
        if array.shape != expected:
            raise UsageError(f"batch field {name!r} must have shape {list(expected)}, got {list(array.shape)}")
    if rows == 0 or rows % utd_ratio:
        raise UsageError(f"a batch of {rows} rows does not divide into utd_ratio={utd_ratio} minibatches")
    return arrays
