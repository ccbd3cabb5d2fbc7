"""The entry points: whole batches of environments, one call (AbstractEnv.step, Road.act, Road.step).

Every entry point works on environments ``first <= e < last`` of the batch, so that threads can share one; they
hold no lock and allocate nothing.
"""

from __future__ import annotations

import numpy as np

from racer.envs.highway.simulator.collision import collide_all
from racer.envs.highway.simulator.compiled import entry, merged
from racer.envs.highway.simulator.controller import meta_action, obey_targets
from racer.envs.highway.simulator.kinematics import integrate
from racer.envs.highway.simulator.lanes import closest_lane
from racer.envs.highway.simulator.layout import (
    ACCELERATION,
    COS,
    CRASHED,
    DT,
    EGO,
    EGO_KIND,
    EGO_MAX_SPEED,
    EGO_META,
    EGO_MIN_SPEED,
    GUARD,
    HAS_IMPACT,
    HEADING,
    LANE,
    LANES,
    MAX_SPEED,
    MIN_SPEED,
    OBSERVED_ROWS,
    ORDER,
    POLICY_DT,
    REPLAYED,
    SIN,
    SPEED,
    STEERING,
    STEPS,
    TARGET_LANE,
    TIME,
    TIMER,
    VEHICLES,
    X,
    Y,
)
from racer.envs.highway.simulator.neighbours import sort_vehicles
from racer.envs.highway.simulator.numeric import cosine, sine
from racer.envs.highway.simulator.observation import observe
from racer.envs.highway.simulator.reset import populate
from racer.envs.highway.simulator.reward import judge
from racer.envs.highway.simulator.traffic import drive_traffic


@merged
def advance_frame(
    real: np.ndarray,
    whole: np.ndarray,
    corners: np.ndarray,
    reals: np.ndarray,
    wholes: np.ndarray,
) -> None:
    """One simulation frame: every decision in list order, then every motion, then the collisions."""
    n = wholes[VEHICLES]
    dt = reals[DT]
    lanes = wholes[LANES]
    if wholes[EGO_KIND] == EGO_META:
        obey_targets(real, whole, EGO)
    drive_traffic(real, whole, reals, wholes)
    integrate(real, whole, EGO, dt, reals[EGO_MIN_SPEED], reals[EGO_MAX_SPEED], lanes)
    for vehicle in range(1, n):
        real[TIMER, vehicle] += dt
        integrate(real, whole, vehicle, dt, MIN_SPEED, MAX_SPEED, lanes)
    sort_vehicles(real, whole, n)
    collide_all(real, whole, corners, reals, wholes)


@entry
def step_batch(
    first: int,
    last: int,
    frames: int,
    begin: bool,
    finish: bool,
    real: np.ndarray,
    whole: np.ndarray,
    clock: np.ndarray,
    rng: np.ndarray,
    corners: np.ndarray,
    command: np.ndarray,
    reals: np.ndarray,
    wholes: np.ndarray,
    target_speeds: np.ndarray,
    spec: np.ndarray,
    ranges: np.ndarray,
    result: np.ndarray,
    observations: np.ndarray,
) -> None:
    """Advance environments by ``frames`` frames of a policy step.

    Args:
        begin: this is the step's first part: the clock advances and the action is applied.
        finish: this is its last part: the reward and the observation are written.
        corners: scratch ``[E, 2, 5, 2]``.
        command: ``[E, 2]``: acceleration (m/s2) and steering (rad), or the meta-action in column 0.
        observations: ``[E, K, F]`` float32, written where ``finish``.
    """
    n = wholes[VEHICLES]
    for e in range(first, last):
        if begin:
            clock[e, TIME] += reals[POLICY_DT]
            if frames > 0:
                if wholes[EGO_KIND] == EGO_META:
                    meta_action(real[e], whole[e], np.int64(command[e, 0]), target_speeds, wholes[LANES])
                else:
                    real[e, ACCELERATION, 0] = command[e, 0]
                    real[e, STEERING, 0] = command[e, 1]
        for _ in range(frames):
            advance_frame(real[e], whole[e], corners[e], reals, wholes)
        clock[e, STEPS] += frames
        if finish:
            judge(real[e], whole[e], clock[e, TIME], reals, wholes, result[e])
            result[e, OBSERVED_ROWS] = observe(real[e], whole[e], rng[e], n, spec, ranges, observations[e])


@entry
def reset_batch(
    indices: np.ndarray,
    real: np.ndarray,
    whole: np.ndarray,
    clock: np.ndarray,
    rng: np.ndarray,
    reals: np.ndarray,
    wholes: np.ndarray,
    target_speeds: np.ndarray,
    spec: np.ndarray,
    ranges: np.ndarray,
    result: np.ndarray,
    observations: np.ndarray,
) -> None:
    """Draw new scenes for the environments ``indices`` and write their first observations."""
    n = wholes[VEHICLES]
    for e in indices:
        populate(real[e], whole[e], rng[e], reals, wholes, target_speeds)
        sort_vehicles(real[e], whole[e], n)
        clock[e, TIME] = 0.0
        clock[e, STEPS] = 0.0
        judge(real[e], whole[e], 0.0, reals, wholes, result[e])
        result[e, OBSERVED_ROWS] = observe(real[e], whole[e], rng[e], n, spec, ranges, observations[e])


@entry
def observe_batch(
    indices: np.ndarray,
    real: np.ndarray,
    whole: np.ndarray,
    rng: np.ndarray,
    wholes: np.ndarray,
    spec: np.ndarray,
    ranges: np.ndarray,
    observations: np.ndarray,
) -> None:
    """Write the observations ``[E, K, F]`` that another specification gives of the present states ``indices``."""
    n = wholes[VEHICLES]
    for e in indices:
        observe(real[e], whole[e], rng[e], n, spec, ranges, observations[e])


@entry
def place_batch(real: np.ndarray, whole: np.ndarray, places: np.ndarray, wholes: np.ndarray) -> None:
    """Put every replayed car where it is to be.

    Args:
        places: ``[E, 4, V]``: x, y (m), heading (rad), speed (m/s); columns of other cars are not read.
    """
    for e in range(real.shape[0]):
        for vehicle in range(1, wholes[VEHICLES]):
            if real[e, GUARD, vehicle] != REPLAYED:
                continue
            heading = places[e, 2, vehicle]
            real[e, X, vehicle] = places[e, 0, vehicle]
            real[e, Y, vehicle] = places[e, 1, vehicle]
            real[e, HEADING, vehicle] = heading
            real[e, COS, vehicle] = cosine(heading)
            real[e, SIN, vehicle] = sine(heading)
            real[e, SPEED, vehicle] = places[e, 3, vehicle]
            lane = closest_lane(real[e, X, vehicle], real[e, Y, vehicle], heading, wholes[LANES])
            whole[e, LANE, vehicle] = lane
            whole[e, TARGET_LANE, vehicle] = lane
            whole[e, CRASHED, vehicle] = 0
            whole[e, HAS_IMPACT, vehicle] = 0
        sort_vehicles(real[e], whole[e], wholes[VEHICLES])


@entry
def settle_scene(
    e: int,
    real: np.ndarray,
    whole: np.ndarray,
    clock: np.ndarray,
    reals: np.ndarray,
    wholes: np.ndarray,
    result: np.ndarray,
) -> None:
    """Derive what a hand-made scene leaves out: the headings' cosines, the closest lanes, the reward."""
    for vehicle in range(wholes[VEHICLES]):
        heading = real[e, HEADING, vehicle]
        real[e, COS, vehicle] = cosine(heading)
        real[e, SIN, vehicle] = sine(heading)
        x, y = real[e, X, vehicle], real[e, Y, vehicle]
        whole[e, LANE, vehicle] = closest_lane(x, y, heading, wholes[LANES])
        whole[e, ORDER, vehicle] = vehicle
    sort_vehicles(real[e], whole[e], wholes[VEHICLES])
    judge(real[e], whole[e], clock[e, TIME], reals, wholes, result[e])
