"""The rule-based driver: IDM car following, and changes to the neighbouring lane that has more room."""

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
COMFORTABLE = 3.0  # m/s2, IDM's acceleration
BRAKING = 5.0  # m/s2, IDM's comfortable deceleration
TIME_GAP = 1.5  # s
STANDING_GAP = 5.0  # m
GAIN = 0.3  # m/s2 that a lane change must bring
ROOM_BEHIND, ROOM_AHEAD = -10.0, 12.0  # m, between which nobody may be in the lane that is entered
WAIT = 1.0  # s between two changes
ARRIVED = 0.5  # m from a lane's centre
RESPONSE = 2.5  # 1/s, the acceleration that Targets gives for each m/s of difference


class RuleDriver:
    """Follows the car ahead by IDM (Treiber et al. 2000) and enters the lane beside that lets it accelerate more.

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
        wanted = accelerations(rows, inside)
        free = ((rows[:, 1:, 1] < ROOM_BEHIND) | (rows[:, 1:, 1] > ROOM_AHEAD))[:, None] | ~inside
        goal, wait = self._change(rows, goal, memory["wait"], wanted, free.all(axis=-1))
        row = np.arange(len(rows))
        acceleration = np.minimum(wanted[row, here], wanted[row, goal])
        speed = np.hypot(rows[:, 0, 3], rows[:, 0, 4]) + acceleration / RESPONSE
        actions = aim(rows, goal.astype(np.float64), np.clip(speed, 0.0, DESIRED_SPEED), self._road.lanes)
        return actions, {"lane": goal + 1, "wait": wait}, {}

    def _change(
        self,
        rows: NDArray[np.float32],
        goal: NDArray[np.int64],
        wait: NDArray[np.int64],
        wanted: NDArray[np.float64],
        free: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the lanes to head for and the steps to wait ``[N]``, from accelerations and room ``[N, lanes]``."""
        row = np.arange(len(rows))
        settled = (np.abs(rows[:, 0, 2] - LANE_WIDTH * goal) < ARRIVED) & (wait == 0)
        chosen, best = goal.copy(), wanted[row, goal] + GAIN
        for beside in (goal - 1, goal + 1):
            lane = np.clip(beside, 0, self._road.lanes - 1)
            better = settled & (lane == beside) & free[row, lane] & (wanted[row, lane] > best)
            chosen, best = np.where(better, lane, chosen), np.where(better, wanted[row, lane], best)
        return chosen, np.where(chosen != goal, self._wait, np.maximum(wait - 1, 0))


def occupancy(rows: NDArray[np.float32], lanes: int) -> NDArray[np.bool_]:
    """Return who is in which lane ``[N, lanes, V - 1]``; a car that moves sideways is in both."""
    others, ego = rows[:, 1:], rows[:, :1]
    place = (others[..., 2] + ego[..., 2]) / LANE_WIDTH
    changing = np.abs(others[..., 4] + ego[..., 4]) > CHANGING_SPEED
    low = np.where(changing, np.floor(place), np.round(place))[:, None]
    high = np.where(changing, np.ceil(place), np.round(place))[:, None]
    lane = np.arange(lanes)[None, :, None]
    return (others[..., 0] > 0.5)[:, None] & ((low == lane) | (high == lane))


def accelerations(rows: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return IDM's acceleration (m/s2) in each lane ``[N, lanes]``, the nearest car ahead in it being followed."""
    others = rows[:, 1:].astype(np.float64)
    speed = np.hypot(rows[:, 0, 3], rows[:, 0, 4]).astype(np.float64)
    ahead = np.where(inside & (others[..., 1] > 0)[:, None], others[..., 1][:, None], np.inf)
    nearest = ahead.argmin(axis=-1)
    gap = np.maximum(ahead.min(axis=-1) - VEHICLE_LENGTH, 0.1)
    closing = -np.take_along_axis(others[..., 3], nearest, axis=1)
    dynamic = TIME_GAP * speed[:, None] + speed[:, None] * closing / (2 * np.sqrt(COMFORTABLE * BRAKING))
    desired = STANDING_GAP + np.maximum(dynamic, 0.0)
    return COMFORTABLE * (1 - (speed[:, None] / DESIRED_SPEED) ** 4 - (desired / gap) ** 2)
