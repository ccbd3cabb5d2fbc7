"""The scenes: who drives where when a trial begins, what the hidden type changes, and where the goal is.

A trial's start follows from two numbers, the scene's seed and the type. The same routine begins the first trial of an
episode and every later one, so they are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.highway.config import highway_config
from racer.envs.highway.config import resolve_config as resolve_highway
from racer.envs.highway.simulator import HighwaySimulator
from racer.envs.trials.config import CARS, TrialsConfig

__all__ = [
    "CARS", "HOLD", "LANES", "LANE_HALF", "LANE_WIDTH", "PARKED", "SPEEDS", "START_SPEED", "Scene", "make_scene",
    "make_simulator",
]  # fmt: skip

LANES, LANE_WIDTH = 4, 4.0
LANE_HALF = 1.5
"""m from the centre of the goal's lane within which the ego is in it."""

PARKED = -3000.0
"""m along the road, where cars stand that are not to be met."""

HOLD = 60.0
"""m before the goal over which the ego must be in its lane."""

SPEEDS = tuple(float(speed) for speed in range(19, 41, 3))
"""m/s, what the ego's choices "faster" and "slower" step through."""

START_SPEED = 25.0
"""m/s of the ego when a trial begins."""

FEATURES = ("presence", "x", "y", "vx", "vy")

PLATOON_LANE = 2
PLATOON_SPEED = 22.0
PLATOON_TARGET = 30.0
PLATOON_SPACING = 19.0
PLATOON_JITTER = 0.8
PLATOON_OFFSET = (2.0, 14.0)
PLATOON_BEHIND = 3
PLATOON_HEADWAY = 0.25
FIRST_GUARD = PLATOON_BEHIND - 1
"""The car just behind the start guards the first gap; cars are counted from the platoon's end."""


@dataclass(frozen=True)
class Scene:
    """One kind of scene.

    Attributes:
        distance: m from the start to the goal, D.
        begin: puts the cars of a trial of a type into an environment that was just reset from the scene's seed.
        goal_lane: the lane that counts, from the type.
        headway: s that the cars keep; IDM's own where None.
        lane_changes: whether the cars change lanes.
        lane: of the start; drawn where None.
    """

    distance: float
    begin: Callable[[HighwaySimulator, int, int, int], None]
    goal_lane: Callable[[NDArray[np.int64]], NDArray[np.int64]]
    headway: float | None = None
    lane_changes: bool = True
    lane: int | None = None


def _keep(simulator: HighwaySimulator, index: int, seed: int, arm: int) -> None:
    """Leave highway-env's own scene as it was drawn."""


def _platoon(simulator: HighwaySimulator, index: int, seed: int, arm: int) -> None:
    """Line the cars up in one lane; all but the one of the type, and the first of the platoon, are guards."""
    # A stream of its own: the simulator's generator was seeded with the same number.
    rng = np.random.default_rng([seed, 1])
    scene = simulator.scene(index)
    start = scene["x"][0]
    places = (np.arange(CARS) - FIRST_GUARD) * PLATOON_SPACING - rng.uniform(*PLATOON_OFFSET)
    places += rng.uniform(-PLATOON_JITTER, PLATOON_JITTER, CARS)
    guard = np.ones(CARS)
    guard[[FIRST_GUARD + arm, CARS - 1]] = 0.0
    target = np.full(CARS, PLATOON_TARGET)
    target[-1] = PLATOON_SPEED
    cars = {
        "x": start + places,
        "y": np.full(CARS, PLATOON_LANE * LANE_WIDTH),
        "speed": np.full(CARS, PLATOON_SPEED),
        "target_speed": target,
        "exponent": np.full(CARS, 4.0),
        "timer": np.zeros(CARS),
        "target_lane": np.full(CARS, PLATOON_LANE),
        "guard": guard,
    }
    own = {**scene, "y": scene["y"], "guard": np.zeros(CARS + 1)}
    simulator.set_scene(index, **{name: np.concatenate([own[name][:1], values]) for name, values in cars.items()})


SCENES: Mapping[str, Scene] = {
    "hidden_lane": Scene(500.0, _keep, lambda arms: arms),
    "courteous": Scene(
        572.0, _platoon, lambda arms: np.full_like(arms, PLATOON_LANE), PLATOON_HEADWAY, False, PLATOON_LANE - 1
    ),
}


def make_scene(config: TrialsConfig) -> Scene:
    """Return the scene that a configuration names."""
    return SCENES[config.scene]


def highway_overrides(config: TrialsConfig) -> dict[str, Any]:
    """Return what the highway's configuration differs in from its defaults."""
    choices = config.actions == "choices"
    return {
        "vehicles_count": CARS,
        "lanes_count": LANES,
        "initial_lane_id": SCENES[config.scene].lane,
        "policy_frequency": config.policy_frequency,
        "simulation_frequency": 15,
        "duration": 2 * config.window,
        "offroad_terminal": True,
        "action": {"type": "DiscreteMetaAction", "target_speeds": list(SPEEDS)}
        if choices
        else {"type": "ContinuousAction"},
        "observation": {
            "type": "Kinematics",
            "vehicles_count": config.vehicles_seen + 1,
            "features": list(FEATURES),
            "normalize": False,
            "absolute": False,
            "order": "sorted",
            "see_behind": True,
        },
    }


def make_simulator(config: TrialsConfig, num_envs: int, drawing: Mapping[str, Any] | None = None) -> HighwaySimulator:
    """Build the simulator of ``num_envs`` scenes; ``drawing`` overrides keys that only concern pictures."""
    scene = SCENES[config.scene]
    whole = highway_config(resolve_highway({**highway_overrides(config), **(drawing or {})}))
    return HighwaySimulator(whole, num_envs, headway=scene.headway, lane_changes=scene.lane_changes)
