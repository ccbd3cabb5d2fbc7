"""A twin and highway-env side by side, for the tests of what surrounds a step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import gymnasium
import highway_env
import numpy as np

import racer.envs  # noqa: F401  registers the twins
from racer.evaluation.diverge import PLAIN_ARITHMETIC

gymnasium.register_envs(highway_env)

# bits where the process has highway-env's arithmetic pinned, rounding errors elsewhere
TOLERANCE = 0.0 if all(os.environ.get(name) == value for name, value in PLAIN_ARITHMETIC.items()) else 1e-8

CONTINUOUS: dict[str, Any] = {"action": {"type": "ContinuousAction"}, "policy_frequency": 5, "vehicles_count": 6}
SMALL: dict[str, Any] = {"vehicles_count": 6, "lanes_count": 3, "simulation_frequency": 5}


def pair(env_id: str = "highway-v0", **options: Any) -> tuple[gymnasium.Env, gymnasium.Env]:
    """Make highway-env's environment and its twin."""
    return gymnasium.make(env_id, **options), gymnasium.make(f"racer/{env_id}", **options)


def same(theirs: Any, ours: Any, what: str = "") -> None:
    """Assert that two values, nested or not, agree: in their bits where the arithmetic is pinned."""
    if isinstance(theirs, dict):
        assert theirs.keys() == ours.keys(), what
        for key in theirs:
            same(theirs[key], ours[key], f"{what}.{key}")
    elif isinstance(theirs, tuple | list) and theirs and not isinstance(theirs[0], str):
        assert len(theirs) == len(ours), what
        for i, (a, b) in enumerate(zip(theirs, ours, strict=True)):
            same(a, b, f"{what}[{i}]")
    elif isinstance(theirs, np.ndarray | float | np.floating):
        assert np.shape(theirs) == np.shape(ours), what
        with np.errstate(invalid="ignore"):
            near = np.array_equal(theirs, ours) or np.max(np.abs(np.subtract(theirs, ours, dtype=float))) <= TOLERANCE
        assert near, f"{what}: {theirs!r} is not {ours!r}"
    else:
        assert np.array_equal(theirs, ours), f"{what}: {theirs!r} is not {ours!r}"


def same_reset(theirs: gymnasium.Env, ours: gymnasium.Env, **options: Any) -> None:
    """Reset both, compare, and compare the generators."""
    (observation, info), (twin_observation, twin_info) = theirs.reset(**options), ours.reset(**options)
    same(observation, twin_observation, "observation")
    for each in (info, twin_info):
        del each["action"]  # a sample of each environment's own action space
    same(info, twin_info, "info")
    generators = [env.unwrapped.np_random.bit_generator.state for env in (theirs, ours)]
    assert generators[0] == generators[1]


def same_step(theirs: gymnasium.Env, ours: gymnasium.Env, action: Any) -> bool:
    """Step both and compare everything; is the episode over?"""
    outcome = theirs.step(action)
    same(outcome, ours.step(action), "step")
    assert theirs.unwrapped.time == ours.unwrapped.time
    assert theirs.unwrapped.steps == ours.unwrapped.steps
    return bool(outcome[2] or outcome[3])


def same_episode(theirs: gymnasium.Env, ours: gymnasium.Env, actions: Sequence[Any], **options: Any) -> None:
    """Reset both and take the same actions, up to the episode's end."""
    same_reset(theirs, ours, **options)
    for action in actions:
        if same_step(theirs, ours, action):
            break


def same_vehicles(theirs: Any, ours: Any) -> None:
    """Compare what public code reads of every vehicle of two (unwrapped) environments."""
    assert len(theirs.road.vehicles) == len(ours.road.vehicles)
    for a, b in zip(theirs.road.vehicles, ours.road.vehicles, strict=True):
        same_vehicle(a, b)


ATTRIBUTES = (
    "position", "heading", "speed", "velocity", "direction", "lane_index", "lane_offset", "crashed", "on_road",
    "destination", "action", "LENGTH", "WIDTH", "MAX_SPEED", "check_collisions", "target_lane_index", "target_speed",
    "speed_index", "target_speeds", "timer", "DELTA", "route", "enable_lane_change",
)  # fmt: skip


def same_vehicle(a: Any, b: Any) -> None:
    """Compare the attributes of two vehicles."""
    assert isinstance(b, type(a))
    assert type(a).__name__ == type(b).__name__
    for name in ATTRIBUTES:
        assert hasattr(a, name) == hasattr(b, name), name
        if hasattr(a, name):
            same(getattr(a, name), getattr(b, name), name)
    same(a.to_dict(), b.to_dict(), "to_dict")
    same(a.polygon(), b.polygon(), "polygon")
