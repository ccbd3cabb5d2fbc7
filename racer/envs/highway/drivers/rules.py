"""The rule-based driver: IDM car following, and changes towards the lane that lets it get farthest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.highway.drivers.base import Road, aim, read_rows
from racer.envs.highway.geometry import LANE_WIDTH, VEHICLE_LENGTH
from racer.envs.highway.views import CHANGING_SPEED
from racer.envs.highway.world import RiskWorld

__all__ = ["RuleDriver"]

DESIRED_SPEED = 40.0  # m/s
EAGER = 12.0  # m/s2, IDM's acceleration: above what the car can, so that it reaches its speed soon
BRAKING = 5.0  # m/s2, IDM's comfortable deceleration
TIME_GAP = 0.3  # s
STANDING_GAP = 2.0  # m
OUTLOOK = 4.0  # s, over which the lanes' progress is compared
GAIN = 4.0  # m of progress that a lane change must bring
PER_LANE = 3.0  # m that each further lane change costs
KEEP_RIGHT = 6.0  # m that each lane farther right is worth
ROOM_BEHIND, ROOM_AHEAD = -7.0, 8.0  # m, between which nobody may be in the lane that is entered
CLEARANCE = 1.0  # s of closing that must fit beyond that room
WAIT = 0.6  # s between two changes
ARRIVED = 1.0  # m from a lane's centre
RESPONSE = 2.5  # 1/s, the acceleration that Targets gives for each m/s of difference


class RuleDriver:
    """Follows the car ahead by IDM (Treiber et al. 2000) and enters the lanes that let it get farther.

    Args:
        world: that it drives in; only its configuration is read.

    Raises:
        UsageError: the world's observation or action is not what drivers know.
    """

    observation_shape = None
    discrete = False
    size = 2

    def __init__(self, world: RiskWorld) -> None:
        self._road = Road.of(world)
        self._wait = round(WAIT / self._road.step)

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        """Return no lanes (0; lane k is k + 1), and no waiting."""
        return {"lane": np.zeros(count, np.int64), "wait": np.zeros(count, np.int64)}

    def act(
        self,
        params: Mapping[str, Any],
        observations: Any,
        memory: Mapping[str, Any],
        key: Any,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.float32], dict[str, np.ndarray], dict[str, np.ndarray]]:
        """See :class:`racer.envs.highway.drivers.base.Driver`; the memory is the lane that each ego is heading for."""
        rows = read_rows(observations)
        here = np.clip(np.round(rows[:, 0, 2] / LANE_WIDTH), 0, self._road.lanes - 1).astype(np.int64)
        goal = np.where(memory["lane"] > 0, memory["lane"] - 1, here)
        inside = occupancy(rows, self._road.lanes)
        gap, closing = leaders(rows, inside)
        speed = np.hypot(rows[:, 0, 3], rows[:, 0, 4]).astype(np.float64)
        progress = np.minimum(DESIRED_SPEED, gap / OUTLOOK + speed[:, None] - closing) * OUTLOOK
        goal, wait = self._change(rows, goal, memory["wait"], progress, has_room(rows, inside))
        row = np.arange(len(rows))
        wanted = idm(speed[:, None], gap, closing)
        acceleration = np.minimum(wanted[row, here], wanted[row, goal])
        aimed = np.clip(speed + acceleration / RESPONSE, 0.0, DESIRED_SPEED)
        actions = aim(rows, goal.astype(np.float64), aimed, self._road.lanes)
        return actions, {"lane": goal + 1, "wait": wait}, {}

    def _change(
        self,
        rows: NDArray[np.float32],
        goal: NDArray[np.int64],
        wait: NDArray[np.int64],
        progress: NDArray[np.float64],
        room: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the lanes to head for and the steps to wait ``[N]``, from progress and room ``[N, lanes]``."""
        row, lanes = np.arange(len(rows)), np.arange(self._road.lanes)
        away = lanes - goal[:, None]
        progress = progress + KEEP_RIGHT * lanes
        value = progress - PER_LANE * np.abs(away)
        best = value.argmax(axis=1)
        beside = goal + np.sign(best - goal)
        settled = (np.abs(rows[:, 0, 2] - LANE_WIDTH * goal) < ARRIVED) & (wait == 0)
        changes = settled & (value[row, best] > progress[row, goal] + GAIN) & room[row, beside]
        return np.where(changes, beside, goal), np.where(changes, self._wait, np.maximum(wait - 1, 0))


def occupancy(rows: NDArray[np.float32], lanes: int) -> NDArray[np.bool_]:
    """Return who is in which lane ``[N, lanes, V - 1]``; a car that moves sideways is in both."""
    others, ego = rows[:, 1:], rows[:, :1]
    place = (others[..., 2] + ego[..., 2]) / LANE_WIDTH
    changing = np.abs(others[..., 4] + ego[..., 4]) > CHANGING_SPEED
    low = np.where(changing, np.floor(place), np.round(place))[:, None]
    high = np.where(changing, np.ceil(place), np.round(place))[:, None]
    lane = np.arange(lanes)[None, :, None]
    return (others[..., 0] > 0.5)[:, None] & ((low == lane) | (high == lane))


def has_room(rows: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which lanes ``[N, lanes]`` have nobody alongside, nor anybody who will soon be."""
    dx, dvx = rows[:, 1:, 1], rows[:, 1:, 3]
    ahead = dx > ROOM_AHEAD - np.minimum(CLEARANCE * dvx, 0.0)
    behind = dx < ROOM_BEHIND - np.maximum(CLEARANCE * dvx, 0.0)
    return ((ahead | behind)[:, None] | ~inside).all(axis=-1)


def leaders(rows: NDArray[np.float32], inside: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the gap to the nearest car ahead in each lane (m), and how fast it closes (m/s): ``[N, lanes]``."""
    others = rows[:, 1:].astype(np.float64)
    ahead = np.where(inside & (others[..., 1] > 0)[:, None], others[..., 1][:, None], np.inf)
    nearest, distance = ahead.argmin(axis=-1), ahead.min(axis=-1)
    closing = -np.take_along_axis(others[..., 3], nearest, axis=1)
    return np.maximum(distance - VEHICLE_LENGTH, 0.1), np.where(np.isfinite(distance), closing, 0.0)


def idm(speed: NDArray[np.float64], gap: NDArray[np.float64], closing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return IDM's acceleration (m/s2) at a speed (m/s) behind gaps (m) that close (m/s)."""
    dynamic = TIME_GAP * speed + speed * closing / (2 * np.sqrt(EAGER * BRAKING))
    desired = STANDING_GAP + np.maximum(dynamic, 0.0)
    return EAGER * (1 - (speed / DESIRED_SPEED) ** 4 - (desired / gap) ** 2)
