"""Which car the time to collision is that of: for those who look at an episode, nothing learns from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from racer.envs.highway.config import safety_config
from racer.envs.highway.env import RiskHighwayEnv
from racer.envs.highway.geometry import LANE_WIDTH
from racer.envs.highway.reward import neighbours_of, time_to_collision

__all__ = ["ClosingCar", "FilmedHighwayEnv", "closing_car"]


class ClosingCar(NamedTuple):
    """The car in the forward cone whose gap closes soonest.

    Attributes:
        place: (x, y) from the ego's centre to its own (m), in road coordinates: y grows to the right.
        before: the same at the beginning of the step.
    """

    place: tuple[float, float]
    before: tuple[float, float]

    def words(self) -> str:
        """Say where it is, for a driver."""
        x, y = self.place
        side = "" if abs(y) < LANE_WIDTH / 2 else " left" if y < 0 else " right"
        return f"car ahead{side}, {np.hypot(x, y):.0f} m"


def closing_car(env: RiskHighwayEnv) -> int | None:
    """Return the number in ``engine.cars`` of the car that the time to collision is that of, None where none closes."""
    engine = env.world.engine
    rows, cars = engine.scenes(np.zeros(1, np.intp)).rows[0], engine.cars(0)
    times = time_to_collision(neighbours_of(rows), safety_config(env.config))
    if not np.isfinite(times).any():
        return None
    away = cars[1:, :2] - cars[0, :2] - rows[1 + int(np.argmin(times)), 1:3]
    return 1 + int(np.argmin(np.hypot(*away.T)))


class FilmedHighwayEnv(RiskHighwayEnv):
    """Says in ``info["closing_car"]``, None or a :class:`ClosingCar`, whose ``info["time_to_collision"]`` is."""

    def step(self, action: NDArray[Any]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        before = self.world.engine.cars(0)
        observation, reward, terminated, truncated, info = super().step(action)
        number, after = closing_car(self), self.world.engine.cars(0)
        info["closing_car"] = None
        if number is not None:
            info["closing_car"] = ClosingCar(_relative(after, number), _relative(before, number))
        return observation, reward, terminated, truncated, info


def _relative(cars: NDArray[np.float64], number: int) -> tuple[float, float]:
    x, y = cars[number, :2] - cars[0, :2]
    return float(x), float(y)
