"""Collisions of rectangles by the separating axis theorem.

Sources: RoadObject.handle_collisions and polygon in highway_env/vehicle/objects.py, and
are_polygons_intersecting in highway_env/utils.py. A pair is (first, second) in list order: the pre-check knows
only the *first* one's signed speed, and where a car is pushed by several others the last pair in list order
wins, whatever the order in which this module finds them.
"""

from __future__ import annotations

import math

import numpy as np

from racer.envs.highway.simulator.compiled import kernel, merged
from racer.envs.highway.simulator.layout import (
    BRUTE_FORCE,
    COS,
    CRASHED,
    DIAGONAL,
    DT,
    EGO,
    EGO_COLLISIONS_ONLY,
    HAS_IMPACT,
    IMPACT_X,
    IMPACT_Y,
    LENGTH,
    ORDER,
    PAIR,
    SIN,
    SORTED_X,
    SORTED_Y,
    SPEED,
    VEHICLES,
    WIDTH,
    X,
    Y,
)

# far above the rounding error of projections (1e-11 m at 10 km), far below any size that matters
MARGIN = 1e-6
HALF_LENGTH = LENGTH / 2
HALF_WIDTH = WIDTH / 2


@kernel
def separated_on(
    nx: float, ny: float, half: float, other_half: float, px: float, py: float, vx: float, vy: float
) -> bool:
    """Do the shadows of two rectangles on the axis (nx, ny) stay apart by MARGIN, now and when swept?

    Args:
        half, other_half: the half lengths of the shadows (m).
        px, py: the second centre relative to the first (m).
        vx, vy: the first one's displacement relative to the second (m).
    """
    distance = px * nx + py * ny
    sweep = vx * nx + vy * ny
    reach = half + other_half + MARGIN
    return distance > reach + max(sweep, 0.0) or distance < min(sweep, 0.0) - reach


@kernel
def surely_apart(real: np.ndarray, first: int, second: int, dt: float) -> bool:
    """A cheap sufficient condition for the exact test to find neither a contact nor one to come."""
    ca, sa, va = real[COS, first], real[SIN, first], real[SPEED, first]
    cb, sb, vb = real[COS, second], real[SIN, second], real[SPEED, second]
    px = real[X, second] - real[X, first]
    py = real[Y, second] - real[Y, first]
    vx = (va * ca - vb * cb) * dt
    vy = (va * sa - vb * sb) * dt
    cos = abs(ca * cb + sa * sb)
    sin = abs(sa * cb - ca * sb)
    across = HALF_LENGTH * sin + HALF_WIDTH * cos
    along = HALF_LENGTH * cos + HALF_WIDTH * sin
    return (
        separated_on(-sa, ca, HALF_WIDTH, across, px, py, vx, vy)
        or separated_on(ca, sa, HALF_LENGTH, along, px, py, vx, vy)
        or separated_on(-sb, cb, across, HALF_WIDTH, px, py, vx, vy)
        or separated_on(cb, sb, along, HALF_LENGTH, px, py, vx, vy)
    )


@kernel
def fill_polygon(real: np.ndarray, vehicle: int, corners: np.ndarray) -> None:
    """Write the closed outline ``[5, 2]`` (m)."""
    c, s = real[COS, vehicle], real[SIN, vehicle]
    for k in range(4):
        along = HALF_LENGTH if k >= 2 else -HALF_LENGTH
        across = HALF_WIDTH if k == 1 or k == 2 else -HALF_WIDTH
        corners[k, 0] = c * along + -s * across + real[X, vehicle]
        corners[k, 1] = s * along + c * across + real[Y, vehicle]
    corners[4, 0] = corners[0, 0]
    corners[4, 1] = corners[0, 1]


@kernel
def project(corners: np.ndarray, nx: float, ny: float) -> tuple[float, float]:
    """Least and greatest projection of an outline on an axis."""
    low = high = corners[0, 0] * nx + corners[0, 1] * ny
    for k in range(1, 5):
        p = corners[k, 0] * nx + corners[k, 1] * ny
        if p < low:
            low = p
        if p > high:
            high = p
    return low, high


@kernel
def interval_distance(low_a: float, high_a: float, low_b: float, high_b: float) -> float:
    """Distance between two intervals, negative where they overlap."""
    if low_a < low_b:
        return low_b - high_a
    return low_a - high_b


@kernel
def mean_of_corners(corners: np.ndarray, axis: int) -> float:
    """Mean of the four corners, summed in list order."""
    return (corners[0, axis] + corners[1, axis] + corners[2, axis] + corners[3, axis]) / 4.0


@kernel
def intersect(a: np.ndarray, b: np.ndarray, vx: float, vy: float) -> tuple[bool, bool, float, float]:
    """Separating axis test of outlines ``a``, ``b`` ``[5, 2]``.

    Args:
        vx, vy: the displacement of ``a`` relative to ``b`` (m).

    Returns:
        whether they intersect, whether they will, and the translation (m) that takes ``a`` out.
    """
    touching = will_touch = True
    least = np.inf
    axis_x = axis_y = 0.0
    for side in range(2):
        polygon = a if side == 0 else b
        for k in range(4):
            nx = -polygon[k + 1, 1] + polygon[k, 1]
            ny = polygon[k + 1, 0] - polygon[k, 0]
            norm = math.sqrt(nx * nx + ny * ny)
            nx /= norm
            ny /= norm
            low_a, high_a = project(a, nx, ny)
            low_b, high_b = project(b, nx, ny)
            if interval_distance(low_a, high_a, low_b, high_b) > 0:
                touching = False
            sweep = nx * vx + ny * vy
            if sweep < 0:
                low_a += sweep
            else:
                high_a += sweep
            distance = interval_distance(low_a, high_a, low_b, high_b)
            if distance > 0:
                will_touch = False
            if not touching and not will_touch:
                return False, False, 0.0, 0.0
            if abs(distance) < least:
                least = abs(distance)
                dx = mean_of_corners(a, 0) - mean_of_corners(b, 0)
                dy = mean_of_corners(a, 1) - mean_of_corners(b, 1)
                if dx * nx + dy * ny > 0:
                    axis_x, axis_y = nx, ny
                else:
                    axis_x, axis_y = -nx, -ny
    return touching, will_touch, least * axis_x, least * axis_y


@kernel
def push(real: np.ndarray, whole: np.ndarray, vehicle: int, dx: float, dy: float, pair: int) -> None:
    """Store an impact (m) unless a later pair of the list order has stored one already."""
    if not whole[HAS_IMPACT, vehicle] or pair > whole[PAIR, vehicle]:
        real[IMPACT_X, vehicle] = dx
        real[IMPACT_Y, vehicle] = dy
        whole[HAS_IMPACT, vehicle] = 1
        whole[PAIR, vehicle] = pair


@kernel
def collide(
    real: np.ndarray,
    whole: np.ndarray,
    first: int,
    second: int,
    dt: float,
    corners: np.ndarray,
    exhaustive: int,
) -> None:
    """Test one pair, ``first < second``: contact crashes both, a contact to come pushes both apart.

    Args:
        corners: scratch ``[2, 5, 2]``.
        exhaustive: do without the cheap sufficient condition for no contact.
    """
    dx = real[X, second] - real[X, first]
    dy = real[Y, second] - real[Y, first]
    if math.sqrt(dx * dx + dy * dy) > DIAGONAL + real[SPEED, first] * dt:
        return
    if not exhaustive and surely_apart(real, first, second, dt):
        return
    fill_polygon(real, first, corners[0])
    fill_polygon(real, second, corners[1])
    ca, sa, va = real[COS, first], real[SIN, first], real[SPEED, first]
    cb, sb, vb = real[COS, second], real[SIN, second], real[SPEED, second]
    vx = va * ca * dt - vb * cb * dt
    vy = va * sa * dt - vb * sb * dt
    touching, will_touch, tx, ty = intersect(corners[0], corners[1], vx, vy)
    if will_touch:
        pair = first * whole.shape[1] + second
        push(real, whole, first, tx / 2, ty / 2, pair)
        push(real, whole, second, -tx / 2, -ty / 2, pair)
    if touching:
        whole[CRASHED, first] = 1
        whole[CRASHED, second] = 1


@merged
def collide_all(
    real: np.ndarray,
    whole: np.ndarray,
    corners: np.ndarray,
    reals: np.ndarray,
    wholes: np.ndarray,
) -> None:
    """Test every pair that counts: by a sweep over the sorted order, or all pairs in list order."""
    n = wholes[VEHICLES]
    dt = reals[DT]
    if wholes[EGO_COLLISIONS_ONLY]:
        for second in range(1, n):
            collide(real, whole, EGO, second, dt, corners, wholes[BRUTE_FORCE])
        return
    if wholes[BRUTE_FORCE]:
        for first in range(n - 1):
            for second in range(first + 1, n):
                collide(real, whole, first, second, dt, corners, wholes[BRUTE_FORCE])
        return
    fastest = 0.0
    for k in range(n):
        fastest = max(fastest, real[SPEED, k])
    reach = DIAGONAL + fastest * dt
    for k in range(n - 1):
        for m in range(k + 1, n):
            if real[SORTED_X, m] - real[SORTED_X, k] > reach:
                break
            if abs(real[SORTED_Y, m] - real[SORTED_Y, k]) <= reach:
                u, v = whole[ORDER, k], whole[ORDER, m]
                collide(real, whole, min(u, v), max(u, v), dt, corners, wholes[BRUTE_FORCE])
