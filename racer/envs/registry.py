"""The worlds by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from racer.core.errors import UsageError, shown, unknown_name
from racer.core.trust import require_named
from racer.envs.world import World

__all__ = ["DEFAULT_WORLD", "get_world", "stored_world", "world_by_short_name", "world_names", "worlds_described"]

DEFAULT_WORLD = "highway"
"""The world of a run that names none."""

_WORLDS: dict[str, str] = {
    "highway": "racer.envs.highway.entry",
    "lateral": "racer.envs.lateral.entry",
    "tmaze": "racer.envs.tmaze.entry",
    "trials": "racer.envs.trials.entry",
}
"""Name to the module that holds ``WORLD``; imported on demand."""

_ABOUT: dict[str, str] = {
    "highway": "a highway among other cars, with a reward for speed and safety: highway-env's, compiled",
    "lateral": "a car that follows a lateral acceleration by steering",
    "tmaze": "a corridor whose end asks what its beginning showed: a test of memory",
    "trials": "several attempts at one traffic scene, in which a memory learns what works",
}


def world_names() -> tuple[str, ...]:
    """Return the names of the worlds that come along, sorted."""
    return tuple(sorted(_WORLDS))


def worlds_described() -> dict[str, str]:
    """Return what each world is, in a line, by what a person types for it; none of them is imported."""
    return {**_ABOUT, "gym:<id>": "any installed gymnasium environment with Box or Discrete actions"}


def get_world(name: str) -> World:
    """Return the world called ``name``: one of :func:`world_names`, or ``gym:<id>`` for any gymnasium id.

    Raises:
        UsageError: there is no such world; the message names the nearest one. Or nobody named its code
            (:func:`racer.core.trust.name_code`).
    """
    if not isinstance(name, str):
        raise UsageError(f"a world is given by its name, not {shown(name)}")
    if name.startswith("gym:"):
        from racer.envs.gym import gym_world

        return gym_world(name)
    if name not in _WORLDS:
        raise unknown_name("world", name, [*_WORLDS, "gym:<id>"])
    world: World = importlib.import_module(_WORLDS[name]).WORLD
    return world


def world_by_short_name(name: str) -> tuple[str, dict[str, Any]]:
    """Return a world's name and overrides of its configuration: ``tmaze_10`` is a T-maze of length 10.

    Raises:
        UsageError: there is no such world; the message names the nearest one.
    """
    base, _, number = name.rpartition("_") if isinstance(name, str) else ("", "", "")
    if base in _WORLDS and number.isdecimal() and len(number) < 10:
        key = get_world(base).number_key
        if key is not None:
            return base, {key: int(number)}
    get_world(name)
    return name, {}


def stored_world(name: Any, config: Mapping[str, Any]) -> tuple[World, dict[str, Any]]:
    """Return the world and the whole configuration that a file gives; ``name`` may be None for the default world.

    Raises:
        UsageError: there is no such world, its configuration is none, or it would run code that nobody named.
    """
    world = get_world(DEFAULT_WORLD if name is None else name)
    code = world.names_code(config)
    if code is not None:
        require_named("world", world.name, f"is given {shown(code)} by a file, which could name code")
    return world, world.resolve(config)
