"""Drivers that nobody trained: baselines and a ceiling for what policies learn.

A driver is made for the environments that it acts in: ``DRIVERS[name](env)`` for the vector environment or a single
one, wrapped or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from racer.envs.highway.drivers.base import Driver

__all__ = ["DRIVERS"]


def _rules(env: Any) -> Driver:
    """Make the rule-based driver."""
    from racer.envs.highway.drivers.rules import RuleDriver

    return RuleDriver(env.unwrapped.world)


def _observation_planner(env: Any) -> Driver:
    """Make the planner that sees what a policy sees."""
    from racer.envs.highway.drivers.planners import ObservationPlanner

    return ObservationPlanner(env.unwrapped.world)


def _state_planner(env: Any) -> Driver:
    """Make the planner that drives copies of the environment."""
    from racer.envs.highway.drivers.planners import StatePlanner

    return StatePlanner(env.unwrapped.world)


DRIVERS: Mapping[str, Callable[[Any], Driver]] = {
    "planner": _state_planner,
    "observation-planner": _observation_planner,
    "rules": _rules,
}
"""Name to what makes the driver for an environment; imported on demand."""
