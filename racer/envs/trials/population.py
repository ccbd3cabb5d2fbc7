"""Who the other cars are, beside what the simulator itself knows of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.highway.simulator import HighwaySimulator

__all__ = ["Population"]


class Population:
    """Cars that decide by themselves: highway-env's, and the base of those that do not.

    Attributes:
        moves: whether :meth:`move` is to be called after every frame.
    """

    moves = False

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what decides how the cars go on beside the simulator's state, by name: the arrays themselves."""
        return {}

    def limits(self) -> dict[str, tuple[float, float]]:
        """Return between which numbers the whole ones among :meth:`arrays` stay, the upper end left out."""
        return {}

    def begin(self, simulator: HighwaySimulator, index: int, seed: int, trial: int) -> None:
        """Take over cars of environment ``index``, whose trial was just begun from ``seed``."""

    def choose(self, simulator: HighwaySimulator, clock: NDArray[np.int64]) -> None:
        """Decide for the coming step; ``clock`` ``[N]`` counts the steps of each environment's trial."""

    def move(self, simulator: HighwaySimulator, frames: NDArray[np.int64]) -> None:
        """Move the cars to where they are ``frames`` ``[N]`` after their trial's start."""
