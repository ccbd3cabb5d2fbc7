"""The highway as numbers: cars as boxes, and what the last seconds of an episode were like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.core.drawing import AMBER, BLUE, RED
from racer.envs.highway.geometry import LANE_WIDTH, VEHICLE_LENGTH
from racer.envs.replay import Kind, Line, Replay, Scene, Shapes, Trace
from racer.envs.world import Step

__all__ = ["EXTENT", "KINDS", "LAST_SECONDS", "REPLAY", "car_boxes", "eye_of", "last_moments", "road_lines"]

LAST_SECONDS = 2.0
"""How far back :func:`last_moments` looks from an episode's end."""

_ROAD_LENGTH = 10_000.0
_DASH = 3.0
_CUT_IN_DISTANCE = 40.0
EGO, OTHER, CRASHED = range(3)


def _make(config: Mapping[str, Any]) -> Any:
    from racer.envs.highway.env import RiskHighwayEnv

    return RiskHighwayEnv(config)


def car_boxes(cars: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return boxes ``[V, 6]`` of cars ``[V, 6]`` (x, y, heading, length, width, crashed; the ego first), the ego last.

    It is drawn over the others.
    """
    kinds = np.where(cars[:, 5] > 0, CRASHED, OTHER)
    kinds[0] = CRASHED if cars[0, 5] > 0 else EGO
    return np.roll(np.column_stack([cars[:, :5], kinds]), -1, axis=0)


def eye_of(cars: NDArray[np.float64], lanes: int) -> NDArray[np.float64]:
    """Return what a picture is centred on: a third of it lies behind the ego."""
    return np.array([cars[0, 0] + 22.0, (lanes - 1) * LANE_WIDTH / 2])


def _shapes(env: Any) -> Shapes:
    from racer.envs.highway.closing import closing_car

    cars, number = env.world.engine.cars(0), closing_car(env)
    boxes = car_boxes(cars)
    if number is not None and boxes[number - 1, 5] == OTHER:
        boxes[number - 1, 5] = CLOSING
    return Shapes(boxes, eye_of(cars, env.config["lanes_count"]))


def road_lines(count: int) -> list[Line]:
    """Return the lines of a straight road of ``count`` lanes."""
    heights = [(i - 0.5) * LANE_WIDTH for i in range(count + 1)]
    return [Line(0.0, y, _ROAD_LENGTH, y, _DASH if 0 < i < count else 0.0) for i, y in enumerate(heights)]


def last_moments(steps: Sequence[Step], moments: Sequence[Shapes], config: Mapping[str, Any]) -> dict[str, float]:
    """Say what the last :data:`LAST_SECONDS` of an episode were like.

    Gaps are bumper to bumper to the nearest car whose centre is ahead within half a lane's width of the ego's; speeds
    come from the positions at consecutive steps.
    """
    frequency = float(config["policy_frequency"])
    window = moments[-(max(1, round(LAST_SECONDS * frequency)) + 1) :]
    boxes = np.stack([moment.boxes for moment in window])
    x, y = boxes[..., 0], boxes[..., 1]
    speed = np.diff(x, axis=0) * frequency
    gaps, closing = _ahead(x[1:], y[1:], speed)
    lanes = np.rint(y / LANE_WIDTH)
    near = np.abs(x - x[:, -1:]) < _CUT_IN_DISTANCE
    entered = (np.diff(lanes, axis=0) != 0) & (lanes == lanes[:, -1:])[1:] & near[1:] & (x > x[:, -1:])[1:]
    return {
        "least gap to the car ahead [m]": float(np.nanmin(gaps)) if np.isfinite(gaps).any() else np.nan,
        "greatest closing speed on it [m/s]": float(np.nanmax(closing)) if np.isfinite(closing).any() else np.nan,
        "lane changes of the ego": float((np.diff(lanes[:, -1]) != 0).sum()),
        f"cars that changed into its lane within {_CUT_IN_DISTANCE:g} m ahead": float(entered[:, :-1].sum()),
        "speed [m/s]": float(np.mean([step.info["speed"] for step in steps[-len(window) + 1 :]])),
    }


def _ahead(
    x: NDArray[np.float64], y: NDArray[np.float64], speed: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gap to the car ahead and closing speed on it ``[T]``, from ``[T, V]`` with the ego last; NaN where none is."""
    gap = np.where((np.abs(y - y[:, -1:]) < LANE_WIDTH / 2) & (x > x[:, -1:]), x - x[:, -1:], np.inf)[:, :-1]
    if not gap.size:
        return np.full(len(x), np.nan), np.full(len(x), np.nan)
    nearest = gap.argmin(axis=1)
    rows = np.arange(len(x))
    found = np.isfinite(gap[rows, nearest])
    gaps = np.where(found, np.maximum(gap[rows, nearest] - VEHICLE_LENGTH, 0.0), np.nan)
    return gaps, np.where(found, speed[:, -1] - speed[rows, nearest], np.nan)


KINDS = (Kind("this policy", BLUE), Kind("traffic", (150, 160, 172)), Kind("crashed", RED))
CLOSING = len(KINDS)
EXTENT = (130.0, 26.0)

REPLAY = Replay(
    make=_make,
    scene=Scene(
        shapes=_shapes,
        lines=lambda config: road_lines(int(config["lanes_count"])),
        kinds=(*KINDS, Kind("closing soonest in the cone ahead", AMBER)),
        extent=EXTENT,
    ),
    traces=(
        Trace("forward speed [m/s]", lambda step: float(step.info["forward_speed"])),
        Trace("distance to the nearest car [m]", lambda step: float(step.info["min_distance"]), 60.0),
        Trace("time to collision, cone ahead [s]", lambda step: float(step.info["time_to_collision"]), 10.0),
    ),
    facts=last_moments,
)
