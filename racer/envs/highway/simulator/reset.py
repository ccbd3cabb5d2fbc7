"""A new scene (HighwayEnv._create_vehicles, Vehicle.create_random), with highway-env's own draws in its order."""

from __future__ import annotations

import math

import numpy as np

from racer.envs.highway.simulator.compiled import kernel, merged
from racer.envs.highway.simulator.controller import speed_to_index
from racer.envs.highway.simulator.generator import integers, next_double, uniform
from racer.envs.highway.simulator.lanes import closest_lane
from racer.envs.highway.simulator.layout import (
    COS,
    EGO,
    EGO_KIND,
    EGO_META,
    EGO_SPACING,
    EXPONENT,
    GAIN_FRONT_GAP,
    GAIN_FRONT_SPEED,
    GAIN_HEADING,
    GAIN_LATERAL,
    GAIN_SPEED,
    INITIAL_LANE,
    KP_HEADING,
    KP_LATERAL,
    LANE,
    LANE_CHANGE_DELAY,
    LANE_FACTOR,
    LANE_WIDTH,
    LANES,
    ORDER,
    OTHER_SPACING,
    REALS,
    SPEED,
    SPEED_INDEX,
    SPEED_LIMIT,
    TARGET_LANE,
    TARGET_SPEED,
    TIMER,
    TRAFFIC_KIND,
    TRAFFIC_LINEAR,
    VEHICLES,
    WHOLES,
    X,
    Y,
)

EGO_INITIAL_SPEED = 25.0
SLOWEST = 0.7 * SPEED_LIMIT
FASTEST = 0.8 * SPEED_LIMIT
# LinearVehicle: each gain is low + u (high - low)
SPEED_GAIN_LOW, SPEED_GAIN_HIGH = 0.5 * 0.3, 1.5 * 0.3
GAP_GAIN_LOW, GAP_GAIN_HIGH = 0.5 * 2.0, 1.5 * 2.0
HEADING_GAIN_LOW, HEADING_GAIN_HIGH = KP_HEADING - 0.07, KP_HEADING + 0.07
LATERAL_GAIN_LOW, LATERAL_GAIN_HIGH = KP_HEADING * KP_LATERAL - 1.5, KP_HEADING * KP_LATERAL + 1.5


@kernel
def place(
    real: np.ndarray,
    whole: np.ndarray,
    rng: np.ndarray,
    vehicle: int,
    speed: float,
    lane: int,
    spacing: float,
    foremost: float,
    reals: np.ndarray,
    lanes: int,
) -> float:
    """Put a car in ``lane`` at ``speed`` m/s ahead of ``foremost`` (m); returns the new foremost x."""
    offset = spacing * (12 + 1.0 * speed) * reals[LANE_FACTOR]
    x = foremost if vehicle > 0 else 3 * offset
    x += offset * uniform(rng, 0.9, 1.1)
    real[X, vehicle] = x
    real[Y, vehicle] = LANE_WIDTH * lane
    real[COS, vehicle] = 1.0
    real[SPEED, vehicle] = speed
    whole[LANE, vehicle] = closest_lane(x, real[Y, vehicle], 0.0, lanes)
    whole[TARGET_LANE, vehicle] = whole[LANE, vehicle]
    whole[ORDER, vehicle] = vehicle
    return x if vehicle == 0 else max(foremost, x)


@kernel
def draw_gains(real: np.ndarray, rng: np.ndarray, vehicle: int) -> None:
    """LinearVehicle.randomize_behavior, Aggressive and Defensive alike: their ranges are the base class's."""
    real[GAIN_SPEED, vehicle] = SPEED_GAIN_LOW + next_double(rng) * (SPEED_GAIN_HIGH - SPEED_GAIN_LOW)
    real[GAIN_FRONT_SPEED, vehicle] = SPEED_GAIN_LOW + next_double(rng) * (SPEED_GAIN_HIGH - SPEED_GAIN_LOW)
    real[GAIN_FRONT_GAP, vehicle] = GAP_GAIN_LOW + next_double(rng) * (GAP_GAIN_HIGH - GAP_GAIN_LOW)
    real[GAIN_HEADING, vehicle] = HEADING_GAIN_LOW + next_double(rng) * (HEADING_GAIN_HIGH - HEADING_GAIN_LOW)
    real[GAIN_LATERAL, vehicle] = LATERAL_GAIN_LOW + next_double(rng) * (LATERAL_GAIN_HIGH - LATERAL_GAIN_LOW)


@merged
def populate(
    real: np.ndarray,
    whole: np.ndarray,
    rng: np.ndarray,
    reals: np.ndarray,
    wholes: np.ndarray,
    target_speeds: np.ndarray,
) -> None:
    """Draw a whole new scene into ``real [REALS, V]`` and ``whole [WHOLES, V]``; advances ``rng [6]``."""
    n = wholes[VEHICLES]
    lanes = wholes[LANES]
    for row in range(REALS):
        for vehicle in range(n):
            real[row, vehicle] = 0.0
    for row in range(WHOLES):
        for vehicle in range(n):
            whole[row, vehicle] = 0

    lane = wholes[INITIAL_LANE]
    if lane < 0:
        lane = integers(rng, lanes)
    foremost = place(real, whole, rng, EGO, EGO_INITIAL_SPEED, lane, reals[EGO_SPACING], 0.0, reals, lanes)
    real[TARGET_SPEED, 0] = -np.inf
    if wholes[EGO_KIND] == EGO_META:
        index = speed_to_index(EGO_INITIAL_SPEED, target_speeds)
        whole[SPEED_INDEX, 0] = index
        real[TARGET_SPEED, 0] = target_speeds[index]

    for vehicle in range(1, n):
        lane = integers(rng, lanes)
        speed = uniform(rng, SLOWEST, FASTEST)
        foremost = place(real, whole, rng, vehicle, speed, lane, reals[OTHER_SPACING], foremost, reals, lanes)
        real[TARGET_SPEED, vehicle] = speed
        real[TIMER, vehicle] = (real[X, vehicle] + real[Y, vehicle]) * math.pi % LANE_CHANGE_DELAY
        if wholes[TRAFFIC_KIND] == TRAFFIC_LINEAR:
            draw_gains(real, rng, vehicle)
        real[EXPONENT, vehicle] = uniform(rng, 3.5, 4.5)
