"""The Kinematics observation (KinematicObservation in highway_env/envs/common/observation.py).

The ego's row comes first and is always absolute; then the cars less than 200 m away, those more than 10 m
behind only with ``see_behind``, in a stable order of |dx|. Rows that nobody fills are zero.
"""

from __future__ import annotations

import math

import numpy as np

from racer.envs.highway.simulator.compiled import kernel
from racer.envs.highway.simulator.generator import shuffle_rows
from racer.envs.highway.simulator.layout import (
    COS,
    DISTANCE,
    EGO,
    HEADING,
    LANE,
    LANE_WIDTH,
    LENGTH,
    PERCEPTION_DISTANCE,
    SEEN,
    SIN,
    SPEC_ABSOLUTE,
    SPEC_CLIP,
    SPEC_CODES,
    SPEC_FEATURES,
    SPEC_NORMALIZE,
    SPEC_ROWS,
    SPEC_SEE_BEHIND,
    SPEC_SHUFFLED,
    SPEC_SORTED,
    SPEED,
    X,
    Y,
)
from racer.envs.highway.simulator.numeric import clip, wrap_to_pi


@kernel
def is_seen(real: np.ndarray, vehicle: int, see_behind: int) -> bool:
    """Does the ego perceive ``vehicle``?"""
    dx = real[X, vehicle] - real[X, 0]
    if not see_behind and not dx > -2 * LENGTH:
        return False
    if abs(dx) >= PERCEPTION_DISTANCE:
        return False
    dy = real[Y, vehicle] - real[Y, 0]
    return math.sqrt(dx * dx + dy * dy) < PERCEPTION_DISTANCE


@kernel
def select(real: np.ndarray, whole: np.ndarray, n: int, room: int, spec: np.ndarray) -> int:
    """Fill the row SEEN with at most ``room`` perceived cars in order; returns how many."""
    count = 0
    for vehicle in range(1, n):
        if not is_seen(real, vehicle, spec[SPEC_SEE_BEHIND]):
            continue
        if not spec[SPEC_SORTED]:
            if count < room:
                whole[SEEN, count] = vehicle
                count += 1
            continue
        distance = abs(real[X, vehicle] - real[X, 0])
        if count == room:
            if distance >= real[DISTANCE, count - 1]:
                continue
        else:
            count += 1
        k = count - 1
        while k > 0 and real[DISTANCE, k - 1] > distance:
            real[DISTANCE, k] = real[DISTANCE, k - 1]
            whole[SEEN, k] = whole[SEEN, k - 1]
            k -= 1
        real[DISTANCE, k] = distance
        whole[SEEN, k] = vehicle
    return count


@kernel
def feature(real: np.ndarray, whole: np.ndarray, vehicle: int, code: int) -> float:
    """One absolute feature; ``code`` indexes ``layout.FEATURES``. Nobody has a destination: its cosines are 0."""
    if code == 0:
        return 1.0
    if code == 1 or code == 10:
        return real[X, vehicle]
    if code == 2:
        return real[Y, vehicle]
    if code == 3:
        return real[SPEED, vehicle] * real[COS, vehicle]
    if code == 4:
        return real[SPEED, vehicle] * real[SIN, vehicle]
    if code == 5:
        return real[HEADING, vehicle]
    if code == 6:
        return real[COS, vehicle]
    if code == 7:
        return real[SIN, vehicle]
    if code == 11:
        return real[Y, vehicle] - LANE_WIDTH * whole[LANE, vehicle]
    if code == 12:
        return wrap_to_pi(real[HEADING, vehicle])
    return 0.0


@kernel
def observe(
    real: np.ndarray,
    whole: np.ndarray,
    rng: np.ndarray,
    n: int,
    spec: np.ndarray,
    ranges: np.ndarray,
    out: np.ndarray,
) -> int:
    """Write one observation ``out [K, F]`` (float32); returns the number of rows that highway-env would return.

    Args:
        rng: generator state ``[6]``, advanced where the order is shuffled.
        spec: the specification's integers.
        ranges: ``[F, 3]``: low, high, and whether the feature is normalized.
    """
    wanted = spec[SPEC_ROWS]
    features = spec[SPEC_FEATURES]
    room = wanted - 1 if wanted > 1 else n
    count = 1 + select(real, whole, n, room, spec)
    for row in range(count):
        vehicle = EGO if row == 0 else whole[SEEN, row - 1]
        for f in range(features):
            code = spec[SPEC_CODES + f]
            value = feature(real, whole, vehicle, code)
            if row > 0 and 1 <= code <= 4 and not spec[SPEC_ABSOLUTE]:
                value -= feature(real, whole, EGO, code)
            if spec[SPEC_NORMALIZE] and ranges[f, 2] != 0.0:
                value = -1 + (value - ranges[f, 0]) * 2 / (ranges[f, 1] - ranges[f, 0])
                if spec[SPEC_CLIP]:
                    value = clip(value, -1.0, 1.0)
            out[row, f] = value
    for row in range(count, wanted):
        for f in range(features):
            out[row, f] = 0.0
    count = max(count, wanted)
    if spec[SPEC_SHUFFLED]:
        shuffle_rows(rng, out, 1, count)
    return count
