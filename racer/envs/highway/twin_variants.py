"""Other scenes made from a compiled one, as highway-env's preprocessors make them, and what no scene can follow."""

from __future__ import annotations

from typing import Any

import numpy as np
from highway_env.utils import class_from_path
from highway_env.vehicle.behavior import AggressiveVehicle, DefensiveVehicle, IDMVehicle, LinearVehicle
from highway_env.vehicle.controller import ControlledVehicle, MDPVehicle
from highway_env.vehicle.kinematics import Vehicle

from racer.core.errors import UsageError
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.twin_simulator import TwinSimulator
from racer.envs.highway.twin_views import SceneViews

__all__ = ["changed", "check_constants", "simplified"]


def simplified(simulator: TwinSimulator, views: SceneViews) -> TwinSimulator:
    """Return the scene without distant vehicles (AbstractEnv.simplify): the ego and the others by their distance."""
    ego = views.vehicles[0]
    near = views.road.close_vehicles_to(ego, at.PERCEPTION_DISTANCE)
    kept = np.array([0, *(vehicle._index for vehicle in near)])
    fewer = TwinSimulator({**simulator.config, "vehicles_count": len(near)}, 1, fast=simulator.fast)
    fewer.keep_vehicles(simulator, kept)
    return fewer


def changed(simulator: TwinSimulator, path: str) -> TwinSimulator:
    """Return the scene with every other vehicle of another class (AbstractEnv.change_vehicles).

    Raises:
        UsageError: for a class that is not compiled.
    """
    kind = class_from_path(path)
    # the new vehicles test their own collisions, highway-fast-v0's too
    other = TwinSimulator({**simulator.config, "other_vehicles_type": path}, 1, fast=False)
    other.keep_vehicles(simulator, np.arange(simulator.num_vehicles))
    real, whole = other.arrays()
    others = slice(1, None)
    real[at.STEERING, others] = real[at.ACCELERATION, others] = 0.0
    whole[at.CRASHED, others] = whole[at.HAS_IMPACT, others] = 0
    speed, target = real[at.SPEED, others], real[at.TARGET_SPEED, others]
    real[at.TARGET_SPEED, others] = np.where(target == 0, speed, target)
    timer = real[at.TIMER, others]
    drawn = (real[at.X, others] + real[at.Y, others]) * np.pi % kind.LANE_CHANGE_DELAY
    real[at.TIMER, others] = np.where(timer == 0, drawn, timer)
    real[at.EXPONENT, others] = kind.DELTA
    if issubclass(kind, LinearVehicle):
        gains = np.concatenate([kind.ACCELERATION_PARAMETERS, kind.STEERING_PARAMETERS])
        real[at.GAIN_SPEED : at.GAIN_LATERAL + 1, others] = gains[:, None]
    return other


def _constants(kind: type, names: str) -> dict[tuple[type, str], Any]:
    return {(kind, name): getattr(kind, name) for name in names.split()}


# What the kernels hold as numbers. Public code sets these on the classes to change the traffic.
IDM_NAMES = (
    "ACC_MAX COMFORT_ACC_MAX COMFORT_ACC_MIN DISTANCE_WANTED TIME_WANTED DELTA_RANGE POLITENESS "
    "LANE_CHANGE_MIN_ACC_GAIN LANE_CHANGE_MAX_BRAKING_IMPOSED LANE_CHANGE_DELAY"
)
LINEAR_NAMES = f"ACCELERATION_RANGE STEERING_RANGE {IDM_NAMES}"
CONSTANTS = {
    **_constants(Vehicle, "LENGTH WIDTH MAX_SPEED MIN_SPEED DEFAULT_INITIAL_SPEEDS"),
    **_constants(ControlledVehicle, "TAU_PURSUIT KP_A KP_HEADING KP_LATERAL MAX_STEERING_ANGLE LENGTH WIDTH MAX_SPEED"),
    **_constants(MDPVehicle, "DEFAULT_TARGET_SPEEDS"),
    **_constants(IDMVehicle, f"LENGTH WIDTH MAX_SPEED MIN_SPEED {IDM_NAMES}"),
    **{key: value for kind in (LinearVehicle, AggressiveVehicle, DefensiveVehicle)
       for key, value in _constants(kind, f"LENGTH WIDTH MAX_SPEED MIN_SPEED {LINEAR_NAMES}").items()},
}  # fmt: skip


def check_constants() -> None:
    """Refuse to go on with compiled numbers where highway-env's classes have been given others.

    Raises:
        UsageError: naming the constant.
    """
    for (kind, name), value in CONSTANTS.items():
        present = getattr(kind, name)
        if present is not value and not np.array_equal(present, value):
            raise UsageError(f"{kind.__name__}.{name} has been set to {present!r}; the compiled value is {value!r}")
