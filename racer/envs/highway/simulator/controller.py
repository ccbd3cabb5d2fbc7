"""Low-level controllers of a lane-keeping vehicle and the meta-actions of the discrete ego.

Source: highway_env/vehicle/controller.py (ControlledVehicle, MDPVehicle).
"""

from __future__ import annotations

import math

import numpy as np

from racer.envs.highway.simulator.compiled import inlined, kernel
from racer.envs.highway.simulator.lanes import is_reachable
from racer.envs.highway.simulator.layout import (
    ACCELERATION,
    FASTER,
    HEADING,
    KP_A,
    KP_HEADING,
    KP_LATERAL,
    LANE_LEFT,
    LANE_RIGHT,
    LANE_WIDTH,
    LENGTH,
    MAX_STEERING,
    SLOWER,
    SPEED,
    SPEED_INDEX,
    STEERING,
    TARGET_LANE,
    TARGET_SPEED,
    X,
    Y,
)
from racer.envs.highway.simulator.numeric import arcsine, arctangent, clip, not_zero, tangent, wrap_to_pi


@inlined
def lane_keeping_steering(y: float, heading: float, speed: float, lane: int) -> float:
    """Steering angle (rad) towards the centre of ``lane``: lateral speed, heading, heading rate, slip.

    A car that has never left its lane's centre has no error at all: every term is then 0, of the sign of the speed.
    """
    if heading == 0.0 and speed > 0.0 and y == LANE_WIDTH * lane:
        return 0.0
    safe_speed = not_zero(speed)
    lateral_speed = -KP_LATERAL * (y - LANE_WIDTH * lane)
    heading_command = arcsine(clip(lateral_speed / safe_speed, -1.0, 1.0))
    heading_reference = 0.0 + clip(heading_command, -math.pi / 4, math.pi / 4)
    heading_rate = KP_HEADING * wrap_to_pi(heading_reference - heading)
    slip = arcsine(clip(LENGTH / 2 / safe_speed * heading_rate, -1.0, 1.0))
    return clip(arctangent(2 * tangent(slip)), -MAX_STEERING, MAX_STEERING)


@kernel
def speed_to_index(speed: float, target_speeds: np.ndarray) -> int:
    """Index of the target speed closest to ``speed``, rounding halves to even."""
    size = target_speeds.shape[0]
    x = (speed - target_speeds[0]) / (target_speeds[size - 1] - target_speeds[0])
    return int(clip(np.rint(x * (size - 1)), 0.0, size - 1.0))


@kernel
def meta_action(
    real: np.ndarray, whole: np.ndarray, action: int, target_speeds: np.ndarray, lanes: int
) -> None:
    """Change the ego's target lane or target speed; FASTER and SLOWER start from the *current* speed."""
    if action in (FASTER, SLOWER):
        index = speed_to_index(real[SPEED, 0], target_speeds) + (1 if action == FASTER else -1)
        index = min(max(index, 0), target_speeds.shape[0] - 1)
        whole[SPEED_INDEX, 0] = index
        real[TARGET_SPEED, 0] = target_speeds[index]
    elif action in (LANE_LEFT, LANE_RIGHT):
        lane = whole[TARGET_LANE, 0] + (1 if action == LANE_RIGHT else -1)
        lane = min(max(lane, 0), lanes - 1)
        if is_reachable(real[X, 0], real[Y, 0], lane):
            whole[TARGET_LANE, 0] = lane


@kernel
def obey_targets(real: np.ndarray, whole: np.ndarray, vehicle: int) -> None:
    """Store the steering and the (unclipped) acceleration of a car that choices drive: the discrete ego is one."""
    speed = real[SPEED, vehicle]
    real[STEERING, vehicle] = lane_keeping_steering(
        real[Y, vehicle], real[HEADING, vehicle], speed, whole[TARGET_LANE, vehicle]
    )
    real[ACCELERATION, vehicle] = KP_A * (real[TARGET_SPEED, vehicle] - speed)
