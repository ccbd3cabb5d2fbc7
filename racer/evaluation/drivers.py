"""Drivers that a world brings along, as an evaluation sees them: policies that no checkpoint holds.

``driver:<name>`` means one of the default world's, ``driver:<world>/<name>`` that of another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from racer.core.trust import name_code
from racer.envs.registry import DEFAULT_WORLD, get_world
from racer.envs.world import World

__all__ = ["PREFIX", "DriverPolicy", "bound", "find_driver"]

PREFIX = "driver:"


@dataclass(frozen=True)
class DriverPolicy:
    """A driver without an environment yet; :func:`bound` gives the one that acts.

    Attributes:
        make: makes the driver for a single or a vector environment.
    """

    make: Callable[[Any], Any]


def bound(policy: Any, env: Any) -> Any:
    """Return what acts in ``env``: a policy itself, a driver made for this environment.

    Raises:
        UsageError: the environment is not one that the driver can drive in.
    """
    return policy.make(env) if isinstance(policy, DriverPolicy) else policy


def find_driver(name: str) -> tuple[World, DriverPolicy]:
    """Return the world and the driver that ``driver:...`` means, as a person typed it.

    Raises:
        UsageError: there is no such driver or world; the message names the nearest one.
    """
    world_name, _, driver = name.removeprefix(PREFIX).rpartition("/")
    name_code(world_name)
    world = get_world(world_name or DEFAULT_WORLD)
    return world, DriverPolicy(world.driver(driver))
