"""Configuration of the T-maze."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from racer.core.config import check_fields, from_mapping, option
from racer.core.errors import UsageError

__all__ = ["OBSERVATIONS", "TMazeConfig", "resolve_config", "tmaze_config"]

OBSERVATIONS = ("plain", "perfect_memory")


@dataclass(frozen=True)
class TMazeConfig:
    """Every key of the world. Hashable, so that it can select a compilation."""

    length: int = option(10, "cells of the corridor between the start and the junction", low=1)
    observation: str = option(
        "plain",
        'what is seen: "plain" shows the goal at the start only, "perfect_memory" everywhere',
        choices=OBSERVATIONS,
    )
    max_episode_steps: int = option(1000, "steps after which an episode is truncated", low=1)
    previous_action: bool = option(False, "whether the last action is seen too: four more numbers, 0 at the start")
    discount: float = option(0.99, "factor a step in the metric discounted_return", above=0.0, high=1.0)

    def __post_init__(self) -> None:
        check_fields(self, "environment config key")
        for name in ("length", "max_episode_steps"):
            if not isinstance(getattr(self, name), int):
                raise UsageError(f"environment config key {name!r} must be a whole number, not {getattr(self, name)!r}")


def tmaze_config(config: Mapping[str, Any] | None) -> TMazeConfig:
    """Complete and check a mapping.

    Raises:
        UsageError: an unknown key (with the nearest one) or a value out of range.
    """
    return from_mapping(TMazeConfig, config or {}, "environment config key")


def resolve_config(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the whole configuration as JSON knows it; errors as :func:`tmaze_config`."""
    return dataclasses.asdict(tmaze_config(overrides))
