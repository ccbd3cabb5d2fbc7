"""The modified bicycle model, one frame at a time (highway_env/vehicle/kinematics.py)."""

from __future__ import annotations

import numpy as np

from racer.envs.highway.simulator.compiled import inlined
from racer.envs.highway.simulator.lanes import update_lane
from racer.envs.highway.simulator.layout import (
    ACCELERATION,
    COS,
    CRASHED,
    HAS_IMPACT,
    HEADING,
    IMPACT_X,
    IMPACT_Y,
    LANE,
    LENGTH,
    SIN,
    SPEED,
    STEERING,
    X,
    Y,
)
from racer.envs.highway.simulator.numeric import arctangent, cosine, sine, tangent


@inlined
def clip_stored_action(real: np.ndarray, whole: np.ndarray, vehicle: int, low: float, high: float) -> None:
    """Override a crashed car's action and keep the speed in [low, high] m/s; the stored action changes."""
    speed = real[SPEED, vehicle]
    if whole[CRASHED, vehicle]:
        real[STEERING, vehicle] = 0.0
        real[ACCELERATION, vehicle] = -1.0 * speed
    if speed > high:
        real[ACCELERATION, vehicle] = min(real[ACCELERATION, vehicle], high - speed)
    elif speed < low:
        real[ACCELERATION, vehicle] = max(real[ACCELERATION, vehicle], low - speed)


@inlined
def integrate(
    real: np.ndarray, whole: np.ndarray, vehicle: int, dt: float, low: float, high: float, lanes: int
) -> None:
    """Move one car by ``dt`` s: position, impact (which sets *crashed*), heading, speed, closest lane."""
    clip_stored_action(real, whole, vehicle, low, high)
    speed = real[SPEED, vehicle]
    heading = real[HEADING, vehicle]
    beta = arctangent(0.5 * tangent(real[STEERING, vehicle]))
    course = heading + beta
    if course == heading and course != 0.0:
        cos, sin = real[COS, vehicle], real[SIN, vehicle]
    else:
        cos, sin = cosine(course), sine(course)
    x = real[X, vehicle] + speed * cos * dt
    y = real[Y, vehicle] + speed * sin * dt
    if whole[HAS_IMPACT, vehicle]:
        x += real[IMPACT_X, vehicle]
        y += real[IMPACT_Y, vehicle]
        whole[CRASHED, vehicle] = 1
        whole[HAS_IMPACT, vehicle] = 0
    real[X, vehicle] = x
    real[Y, vehicle] = y
    turned = heading + speed * sine(beta) / (LENGTH / 2) * dt
    if turned != heading or turned == 0.0:
        real[HEADING, vehicle] = turned
        real[COS, vehicle] = cosine(turned)
        real[SIN, vehicle] = sine(turned)
    real[SPEED, vehicle] = speed + real[ACCELERATION, vehicle] * dt
    whole[LANE, vehicle] = update_lane(x, y, turned, whole[LANE, vehicle], lanes)
