"""Configuration of the lateral control world."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from racer.core.config import check_fields, from_mapping, option
from racer.core.errors import UsageError
from racer.envs.lateral.plants import SYNTHETIC
from racer.envs.lateral.routes import SPLITS
from racer.envs.lateral.rules import STEPS

__all__ = ["ACTIONS", "GENERATED", "LateralConfig", "lateral_config", "resolve_config"]

ACTIONS = ("increment", "residual", "steer")
GENERATED = "generated"


@dataclass(frozen=True)
class LateralConfig:
    """Every key of the world."""

    plant: str = option(SYNTHETIC, '"synthetic", or the path of the learned plant\'s ONNX file')
    routes: str = option(GENERATED, '"generated", or a folder of route files')
    split: str = option("train", "which of the routes: splits have none in common", choices=SPLITS)
    route_seed: int = option(0, "seed of generated routes", low=0)
    action: str = option(
        "increment",
        'what an action in [-1, 1] means: "increment" of the last steer, "residual" on the feed-forward controller, or '
        'the "steer" itself',
        choices=ACTIONS,
    )
    action_size: float = option(0.25, "steer of an action of 1 as increment or residual", above=0.0, high=4.0)
    max_steps: int = option(STEPS, "controlled steps of an episode; costs are means over them", low=2, high=STEPS)

    def __post_init__(self) -> None:
        check_fields(self, "environment config key")
        if not self.plant or not self.routes:
            raise UsageError("environment config keys 'plant' and 'routes' must not be empty")
        if (self.split == "all") and self.routes == GENERATED:
            raise UsageError("split 'all' is for folders of routes; generated ones have train, validation and test")


def lateral_config(config: Mapping[str, Any] | None) -> LateralConfig:
    """Complete and check a mapping; files are looked for when an environment is built.

    Raises:
        UsageError: an unknown key (with the nearest one) or a value out of range.
    """
    return from_mapping(LateralConfig, config or {}, "environment config key")


def resolve_config(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the whole configuration as JSON knows it; errors as :func:`lateral_config`."""
    return dataclasses.asdict(lateral_config(overrides))
