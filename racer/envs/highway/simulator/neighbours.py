"""Who drives in front and behind in a lane (Road.neighbour_vehicles in highway_env/road/road.py).

A vehicle counts in every lane whose centre is within 3 m, so it may stand in two; the front one has the least
x >= own x, the *last* index winning ties; the rear one the greatest x < own x, the *first* index winning.

Two searches give the same answer. ``brute`` walks all vehicles in list order as highway-env does. ``sorted``
walks outwards in one order of (x, index) a frame, kept from frame to frame so that sorting costs O(V).
"""

from __future__ import annotations

import numpy as np

from racer.envs.highway.simulator.compiled import kernel
from racer.envs.highway.simulator.lanes import on_lane
from racer.envs.highway.simulator.layout import ORDER, X, Y


@kernel
def sort_vehicles(
    real: np.ndarray, whole: np.ndarray, rank: np.ndarray, xs: np.ndarray, ys: np.ndarray, n: int
) -> None:
    """Restore the (x, index) order after a frame; fill ``rank``, ``xs`` and ``ys`` ``[V]`` from it."""
    for k in range(n):
        vehicle = whole[ORDER, k]
        x = real[X, vehicle]
        j = k - 1
        while j >= 0 and (xs[j] > x or (xs[j] == x and whole[ORDER, j] > vehicle)):
            xs[j + 1] = xs[j]
            whole[ORDER, j + 1] = whole[ORDER, j]
            j -= 1
        xs[j + 1] = x
        whole[ORDER, j + 1] = vehicle
    for k in range(n):
        vehicle = whole[ORDER, k]
        ys[k] = real[Y, vehicle]
        rank[vehicle] = k


@kernel
def sorted_front(whole: np.ndarray, xs: np.ndarray, ys: np.ndarray, place: int, lane: int, n: int) -> int:
    """Vehicle in front of the one at ``place`` of the order, in ``lane``; -1 if none."""
    x = xs[place]
    k = place + 1
    while k < n and not on_lane(xs[k], ys[k], lane, 1.0):
        k += 1
    if k == n or xs[k] > x:
        j = place - 1
        while j >= 0 and xs[j] == x:
            if on_lane(x, ys[j], lane, 1.0):
                return whole[ORDER, j]
            j -= 1
    if k == n:
        return -1
    j = k + 1
    while j < n and xs[j] == xs[k]:
        if on_lane(xs[j], ys[j], lane, 1.0):
            k = j
        j += 1
    return whole[ORDER, k]


@kernel
def sorted_rear(whole: np.ndarray, xs: np.ndarray, ys: np.ndarray, place: int, lane: int) -> int:
    """Vehicle behind the one at ``place`` of the order, in ``lane``; -1 if none."""
    k = place - 1
    while k >= 0 and (xs[k] == xs[place] or not on_lane(xs[k], ys[k], lane, 1.0)):
        k -= 1
    if k < 0:
        return -1
    j = k - 1
    while j >= 0 and xs[j] == xs[k]:
        if on_lane(xs[j], ys[j], lane, 1.0):
            k = j
        j -= 1
    return whole[ORDER, k]


@kernel
def brute_front(real: np.ndarray, vehicle: int, lane: int, n: int) -> int:
    """Vehicle in front of ``vehicle`` in ``lane`` by a walk in list order; -1 if none."""
    x = real[X, vehicle]
    found = -1
    for j in range(n):
        if j != vehicle and x <= real[X, j] and (found < 0 or real[X, j] <= real[X, found]):
            if on_lane(real[X, j], real[Y, j], lane, 1.0):
                found = j
    return found


@kernel
def brute_rear(real: np.ndarray, vehicle: int, lane: int, n: int) -> int:
    """Vehicle behind ``vehicle`` in ``lane`` by a walk in list order; -1 if none."""
    x = real[X, vehicle]
    found = -1
    for j in range(n):
        if j != vehicle and real[X, j] < x and (found < 0 or real[X, j] > real[X, found]):
            if on_lane(real[X, j], real[Y, j], lane, 1.0):
                found = j
    return found


@kernel
def front(
    real: np.ndarray,
    whole: np.ndarray,
    rank: np.ndarray,
    xs: np.ndarray,
    ys: np.ndarray,
    vehicle: int,
    lane: int,
    n: int,
    brute: int,
) -> int:
    """Vehicle in front of ``vehicle`` in ``lane``, by either search; -1 if none."""
    if brute:
        return brute_front(real, vehicle, lane, n)
    return sorted_front(whole, xs, ys, rank[vehicle], lane, n)


@kernel
def rear(
    real: np.ndarray,
    whole: np.ndarray,
    rank: np.ndarray,
    xs: np.ndarray,
    ys: np.ndarray,
    vehicle: int,
    lane: int,
    n: int,
    brute: int,
) -> int:
    """Vehicle behind ``vehicle`` in ``lane``, by either search; -1 if none."""
    if brute:
        return brute_rear(real, vehicle, lane, n)
    return sorted_rear(whole, xs, ys, rank[vehicle], lane)
