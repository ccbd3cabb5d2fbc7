"""The other cars: IDM or linear car following, MOBIL lane changes (highway_env/vehicle/behavior.py).

A car may be made a guard (:func:`guarding`), driven by the choices of somebody else, or replayed, none of which
highway-env knows. None is any of these by itself.

MOBIL's politeness is 0, so the terms of the followers' gains are multiplied by zero and need no evaluation;
the accelerations of both models ignore the rear vehicle.
"""

from __future__ import annotations

import math

import numpy as np

from racer.envs.highway.simulator.compiled import inlined, kernel, merged
from racer.envs.highway.simulator.controller import lane_keeping_steering, obey_targets
from racer.envs.highway.simulator.lanes import is_reachable
from racer.envs.highway.simulator.layout import (
    ACC_MAX,
    ACCELERATION,
    BRUTE_FORCE,
    CHANGING,
    CLOSING_TIME,
    COMFORT_ACC_MAX,
    COS,
    CRASHED,
    DISTANCE_WANTED,
    DRIVEN,
    EGO,
    EGO_KIND,
    EGO_META,
    EXPONENT,
    GAIN_FRONT_GAP,
    GAIN_FRONT_SPEED,
    GAIN_HEADING,
    GAIN_LATERAL,
    GAIN_SPEED,
    GAP_DIVISOR,
    GUARD,
    GUARD_AHEAD,
    GUARD_BRAKING,
    GUARD_GAP,
    GUARD_SIDE,
    GUARDING,
    HEADING,
    LANE,
    LANE_CHANGE_DELAY,
    LANE_WIDTH,
    LANES,
    LENGTH,
    MAX_BRAKING_IMPOSED,
    MAX_STEERING,
    MIN_GAIN,
    SIN,
    SPEED,
    SPEED_LIMIT,
    STEERING,
    TARGET_LANE,
    TARGET_SPEED,
    TIME_WANTED,
    TIMER,
    TRAFFIC_KIND,
    TRAFFIC_LINEAR,
    TWO,
    VEHICLES,
    X,
    Y,
)
from racer.envs.highway.simulator.neighbours import front, rear
from racer.envs.highway.simulator.numeric import clip, not_zero, wrap_to_pi


@inlined
def desired_gap(real: np.ndarray, follower: int, leader: int, time_wanted: float) -> float:
    """IDM's desired gap (m); the speed difference is projected on the follower's direction."""
    speed = real[SPEED, follower]
    cos, sin = real[COS, follower], real[SIN, follower]
    leader_speed = real[SPEED, leader]
    dvx = speed * cos - leader_speed * real[COS, leader]
    dvy = speed * sin - leader_speed * real[SIN, leader]
    dv = dvx * cos + dvy * sin
    return DISTANCE_WANTED + speed * time_wanted + speed * dv / GAP_DIVISOR


@inlined
def free_acceleration(real: np.ndarray, vehicle: int, exponent: float) -> float:
    """IDM's acceleration (m/s2) of ``vehicle`` on an empty road, with the evaluating car's exponent."""
    target = abs(not_zero(clip(real[TARGET_SPEED, vehicle], 0.0, SPEED_LIMIT)))
    return COMFORT_ACC_MAX * (1 - (max(real[SPEED, vehicle], 0.0) / target) ** exponent)


@inlined
def interaction(real: np.ndarray, follower: int, leader: int, time_wanted: float) -> float:
    """IDM's braking term (m/s2) behind ``leader``."""
    ratio = desired_gap(real, follower, leader, time_wanted) / not_zero(real[X, leader] - real[X, follower])
    return COMFORT_ACC_MAX * (ratio * ratio)


@kernel
def linear_acceleration(real: np.ndarray, judge: int, vehicle: int, leader: int, time_wanted: float) -> float:
    """LinearVehicle's acceleration (m/s2) of ``vehicle`` with the gains of ``judge``; 0 for no vehicle."""
    if vehicle < 0:
        return 0.0
    speed = real[SPEED, vehicle]
    target = real[TARGET_SPEED, vehicle]
    speed_error = 0.0 if target == -np.inf else target - speed
    dv = 0.0
    gap = 0.0
    if leader >= 0:
        safe = DISTANCE_WANTED + max(speed, 0.0) * time_wanted
        dv = min(real[SPEED, leader] - speed, 0.0)
        gap = min(real[X, leader] - real[X, vehicle] - safe, 0.0)
    return (
        real[GAIN_SPEED, judge] * speed_error
        + real[GAIN_FRONT_SPEED, judge] * dv
        + real[GAIN_FRONT_GAP, judge] * gap
    )


@kernel
def acceleration(
    real: np.ndarray, linear: bool, judge: int, vehicle: int, leader: int, time_wanted: float
) -> float:
    """Acceleration (m/s2) that ``judge`` predicts for ``vehicle`` behind ``leader`` (-1: nobody)."""
    if linear:
        return linear_acceleration(real, judge, vehicle, leader, time_wanted)
    if vehicle < 0:
        return 0.0
    value = free_acceleration(real, vehicle, real[EXPONENT, judge])
    if leader >= 0:
        value -= interaction(real, vehicle, leader, time_wanted)
    return value


@inlined
def own_acceleration(
    real: np.ndarray, linear: bool, vehicle: int, leader: int, time_wanted: float, free: float
) -> float:
    """Like :func:`acceleration` of a car by itself, with its free-road term already known."""
    if linear:
        return linear_acceleration(real, vehicle, vehicle, leader, time_wanted)
    if leader >= 0:
        return free - interaction(real, vehicle, leader, time_wanted)
    return free


@inlined
def ego_is_beside(real: np.ndarray, vehicle: int) -> bool:
    """Is the ego beside the lane of ``vehicle`` and ahead of it?"""
    ahead = real[X, EGO] - real[X, vehicle]
    return 0.0 <= ahead <= GUARD_AHEAD and abs(real[Y, EGO] - real[Y, vehicle]) < GUARD_SIDE


@kernel
def guarding(
    real: np.ndarray, whole: np.ndarray, vehicle: int, lane: int, own_front: int, n: int, brute: int, value: float
) -> float:
    """Acceleration (m/s2) of a guard: ``value``, unless the ego noses in between it and the car that it follows.

    Then it shuts the gap, as if the ego were not there. The whole gap counts, however wide others have made it.
    """
    if not ego_is_beside(real, vehicle):
        return value
    leader = front(real, whole, EGO, lane, n, brute) if own_front == EGO else own_front
    if leader < 0:
        return ACC_MAX
    if real[X, EGO] > real[X, leader]:
        return value
    room = real[X, leader] - real[X, vehicle] - GUARD_GAP
    gained = math.sqrt(2.0 * GUARD_BRAKING * room) if room > 0.0 else room
    return (real[SPEED, leader] + gained - real[SPEED, vehicle]) / CLOSING_TIME


@kernel
def linear_steering(real: np.ndarray, vehicle: int, lane: int, two: float) -> float:
    """LinearVehicle's steering angle (rad) towards ``lane``."""
    speed = not_zero(real[SPEED, vehicle])
    heading_term = wrap_to_pi(0.0 - real[HEADING, vehicle]) * LENGTH / speed
    lateral_term = -(real[Y, vehicle] - LANE_WIDTH * lane) * LENGTH / speed**two
    return real[GAIN_HEADING, vehicle] * heading_term + real[GAIN_LATERAL, vehicle] * lateral_term


@merged
def must_abort(real: np.ndarray, whole: np.ndarray, vehicle: int, time_wanted: float, count: int) -> bool:
    """Is another car that is already changing into the same lane ahead and too close?

    The first ``count`` of the row CHANGING are the cars that may be changing lanes. Live targets are read: cars
    with a lower index have already decided in this frame and the others have not.
    """
    target = whole[TARGET_LANE, vehicle]
    for k in range(count):
        other = whole[CHANGING, k]
        if other != vehicle and whole[TARGET_LANE, other] == target and whole[LANE, other] != target:
            d = real[X, other] - real[X, vehicle]
            if 0 < d < desired_gap(real, vehicle, other, time_wanted):
                return True
    return False


@merged
def choose_lane(
    real: np.ndarray,
    whole: np.ndarray,
    vehicle: int,
    own_front: int,
    free: float,
    reals: np.ndarray,
    wholes: np.ndarray,
) -> int:
    """MOBIL over the left, then the right lane; the right one overrides. Returns the target lane.

    Args:
        own_front: the car in front in the own lane, -1 if none.
        free: the car's free-road acceleration (m/s2).
    """
    lane = whole[LANE, vehicle]
    target = whole[TARGET_LANE, vehicle]
    if abs(real[SPEED, vehicle]) < 1:
        return target
    linear = wholes[TRAFFIC_KIND] == TRAFFIC_LINEAR
    tau = reals[TIME_WANTED]
    n = wholes[VEHICLES]
    brute = wholes[BRUTE_FORCE]
    own = own_acceleration(real, linear, vehicle, own_front, tau, free)
    for candidate in (lane - 1, lane + 1):
        if candidate < 0 or candidate >= wholes[LANES]:
            continue
        if not is_reachable(real[X, vehicle], real[Y, vehicle], candidate):
            continue
        preceding = front(real, whole, vehicle, candidate, n, brute)
        gain = own_acceleration(real, linear, vehicle, preceding, tau, free) - own
        if gain < reals[MIN_GAIN]:
            continue
        following = rear(real, whole, vehicle, candidate, n, brute)
        if acceleration(real, linear, vehicle, following, vehicle, tau) < -MAX_BRAKING_IMPOSED:
            continue
        target = candidate
    return target


@merged
def drive(
    real: np.ndarray,
    whole: np.ndarray,
    vehicle: int,
    count: int,
    reals: np.ndarray,
    wholes: np.ndarray,
) -> int:
    """Decide one car's target lane, steering and acceleration; returns the new ``count`` of CHANGING."""
    linear = wholes[TRAFFIC_KIND] == TRAFFIC_LINEAR
    if not linear and real[GUARD, vehicle] >= DRIVEN:
        if real[GUARD, vehicle] == DRIVEN:
            obey_targets(real, whole, vehicle)
        else:
            # Straight on until it is put into its next place.
            real[STEERING, vehicle] = 0.0
            real[ACCELERATION, vehicle] = 0.0
        return count
    tau = reals[TIME_WANTED]
    n = wholes[VEHICLES]
    brute = wholes[BRUTE_FORCE]
    lane = whole[LANE, vehicle]
    own_front = front(real, whole, vehicle, lane, n, brute)
    free = 0.0 if linear else free_acceleration(real, vehicle, real[EXPONENT, vehicle])

    if whole[TARGET_LANE, vehicle] != lane:
        if must_abort(real, whole, vehicle, tau, count):
            whole[TARGET_LANE, vehicle] = lane
    elif real[TIMER, vehicle] > LANE_CHANGE_DELAY:
        real[TIMER, vehicle] = 0.0
        chosen = choose_lane(real, whole, vehicle, own_front, free, reals, wholes)
        if chosen != lane:
            whole[TARGET_LANE, vehicle] = chosen
            whole[CHANGING, count] = vehicle
            count += 1

    target = whole[TARGET_LANE, vehicle]
    if linear:
        steering = linear_steering(real, vehicle, target, reals[TWO])
    else:
        steering = lane_keeping_steering(
            real[Y, vehicle], real[HEADING, vehicle], real[SPEED, vehicle], target
        )
    real[STEERING, vehicle] = clip(steering, -MAX_STEERING, MAX_STEERING)

    value = own_acceleration(real, linear, vehicle, own_front, tau, free)
    if target != lane:
        leader = front(real, whole, vehicle, target, n, brute)
        value = min(value, own_acceleration(real, linear, vehicle, leader, tau, free))
    if not linear and real[GUARD, vehicle] == GUARDING:
        value = guarding(real, whole, vehicle, lane, own_front, n, brute, value)
    real[ACCELERATION, vehicle] = clip(value, -ACC_MAX, ACC_MAX)
    return count


@merged
def drive_traffic(
    real: np.ndarray,
    whole: np.ndarray,
    reals: np.ndarray,
    wholes: np.ndarray,
) -> None:
    """Let every car decide, in list order; a crashed car decides nothing."""
    n = wholes[VEHICLES]
    count = np.int64(0)
    for vehicle in range(0 if wholes[EGO_KIND] == EGO_META else 1, n):
        if whole[LANE, vehicle] != whole[TARGET_LANE, vehicle]:
            whole[CHANGING, count] = vehicle
            count += 1
    for vehicle in range(1, n):
        if not whole[CRASHED, vehicle]:
            count = drive(real, whole, vehicle, count, reals, wholes)
