"""Who drives in front and behind in a lane (Road.neighbour_vehicles in highway_env/road/road.py).

A vehicle counts in every lane whose centre is within 3 m, so it may stand in two; the front one has the least
x >= own x, the *last* index winning ties; the rear one the greatest x < own x, the *first* index winning.

Two searches give the same answer. ``brute`` walks all vehicles in list order as highway-env does. ``sorted``
walks outwards in one order of (x, index) a frame, kept from frame to frame so that sorting costs O(V).
"""

from __future__ import annotations

import numpy as np

from racer.envs.highway.simulator.compiled import inlined, kernel
from racer.envs.highway.simulator.lanes import on_lane
from racer.envs.highway.simulator.layout import ORDER, RANK, SORTED_X, SORTED_Y, X, Y


@kernel
def sort_vehicles(real: np.ndarray, whole: np.ndarray, n: int) -> None:
    """Restore the (x, index) order after a frame, in the rows ORDER, RANK, SORTED_X and SORTED_Y."""
    for k in range(n):
        vehicle = whole[ORDER, k]
        x = real[X, vehicle]
        j = k - 1
        while j >= 0 and (real[SORTED_X, j] > x or (real[SORTED_X, j] == x and whole[ORDER, j] > vehicle)):
            real[SORTED_X, j + 1] = real[SORTED_X, j]
            whole[ORDER, j + 1] = whole[ORDER, j]
            j -= 1
        real[SORTED_X, j + 1] = x
        whole[ORDER, j + 1] = vehicle
    for k in range(n):
        vehicle = whole[ORDER, k]
        real[SORTED_Y, k] = real[Y, vehicle]
        whole[RANK, vehicle] = k


@inlined
def sorted_front(real: np.ndarray, whole: np.ndarray, vehicle: int, lane: int, n: int) -> int:
    """Vehicle in front of ``vehicle`` in ``lane`` by a walk up the order; -1 if none."""
    place = whole[RANK, vehicle]
    x = real[SORTED_X, place]
    k = place + 1
    while k < n and not on_lane(real[SORTED_X, k], real[SORTED_Y, k], lane, 1.0):
        k += 1
    if k == n or real[SORTED_X, k] > x:
        j = place - 1
        while j >= 0 and real[SORTED_X, j] == x:
            if on_lane(x, real[SORTED_Y, j], lane, 1.0):
                return whole[ORDER, j]
            j -= 1
    if k == n:
        return -1
    j = k + 1
    while j < n and real[SORTED_X, j] == real[SORTED_X, k]:
        if on_lane(real[SORTED_X, j], real[SORTED_Y, j], lane, 1.0):
            k = j
        j += 1
    return whole[ORDER, k]


@kernel
def sorted_rear(real: np.ndarray, whole: np.ndarray, vehicle: int, lane: int) -> int:
    """Vehicle behind ``vehicle`` in ``lane`` by a walk down the order; -1 if none."""
    place = whole[RANK, vehicle]
    k = place - 1
    while k >= 0 and real[SORTED_X, k] == real[SORTED_X, place]:
        k -= 1
    while k >= 0 and not on_lane(real[SORTED_X, k], real[SORTED_Y, k], lane, 1.0):
        k -= 1
    if k < 0:
        return -1
    j = k - 1
    while j >= 0 and real[SORTED_X, j] == real[SORTED_X, k]:
        if on_lane(real[SORTED_X, j], real[SORTED_Y, j], lane, 1.0):
            k = j
        j -= 1
    return whole[ORDER, k]


@kernel
def brute_front(real: np.ndarray, vehicle: int, lane: int, n: int) -> int:
    """Vehicle in front of ``vehicle`` in ``lane`` by a walk in list order; -1 if none."""
    x = real[X, vehicle]
    found = -1
    for j in range(n):
        if j == vehicle or not on_lane(real[X, j], real[Y, j], lane, 1.0):
            continue
        if x <= real[X, j] and (found < 0 or real[X, j] <= real[X, found]):
            found = j
    return found


@kernel
def brute_rear(real: np.ndarray, vehicle: int, lane: int, n: int) -> int:
    """Vehicle behind ``vehicle`` in ``lane`` by a walk in list order; -1 if none."""
    x = real[X, vehicle]
    found = -1
    for j in range(n):
        if j == vehicle or not on_lane(real[X, j], real[Y, j], lane, 1.0):
            continue
        if real[X, j] < x and (found < 0 or real[X, j] > real[X, found]):
            found = j
    return found


@inlined
def front(real: np.ndarray, whole: np.ndarray, vehicle: int, lane: int, n: int, brute: int) -> int:
    """Vehicle in front of ``vehicle`` in ``lane``, by either search; -1 if none."""
    if brute:
        return brute_front(real, vehicle, lane, n)
    return sorted_front(real, whole, vehicle, lane, n)


@kernel
def rear(real: np.ndarray, whole: np.ndarray, vehicle: int, lane: int, n: int, brute: int) -> int:
    """Vehicle behind ``vehicle`` in ``lane``, by either search; -1 if none."""
    if brute:
        return brute_rear(real, vehicle, lane, n)
    return sorted_rear(real, whole, vehicle, lane)
