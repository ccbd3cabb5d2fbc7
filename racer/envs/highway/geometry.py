"""Dimensions of highway-env's straight road and its vehicles (highway_env/vehicle, highway_env/road/lane.py)."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["LANE_WIDTH", "PERCEPTION_DISTANCE", "VEHICLE_LENGTH", "VEHICLE_WIDTH", "wrap_to_pi"]

VEHICLE_LENGTH = 5.0
"""Bumper to bumper (m)."""

VEHICLE_WIDTH = 2.0
"""Of every car (m)."""

LANE_WIDTH = 4.0
"""Width of every lane (m)."""

PERCEPTION_DISTANCE = 200.0
"""Vehicles farther away than this are never observed (m)."""

T = TypeVar("T", float, NDArray[np.float64])


def wrap_to_pi(angle: T) -> T:
    """Wrap an angle (rad) to [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
