"""Scalar arithmetic, bit for bit what Python, NumPy and libm give highway-env.

Below 2^-27 the correctly rounded sine, tangent and their inverses of x are x itself and the cosine is 1 (the
next term of the series is under half a unit in the last place), and libm returns just that; saying so here
spares the call for every car that has settled in its lane.
"""

from __future__ import annotations

import math

from racer.envs.highway.simulator.compiled import inlined

TINY = 2.0**-27
TWO_PI = 2 * math.pi


@inlined
def sine(x: float) -> float:
    """Sine of ``x`` rad."""
    if abs(x) < TINY:
        return x
    return math.sin(x)


@inlined
def cosine(x: float) -> float:
    """Cosine of ``x`` rad."""
    if abs(x) < TINY:
        return 1.0
    return math.cos(x)


@inlined
def tangent(x: float) -> float:
    """Tangent of ``x`` rad."""
    if abs(x) < TINY:
        return x
    return math.tan(x)


@inlined
def arctangent(x: float) -> float:
    """Arctangent in rad."""
    if abs(x) < TINY:
        return x
    return math.atan(x)


@inlined
def arcsine(x: float) -> float:
    """Arcsine in rad."""
    if abs(x) < TINY:
        return x
    return math.asin(x)


@inlined
def clip(x: float, low: float, high: float) -> float:
    """Clip as ``numpy.clip`` does (nan stays nan)."""
    if x < low:
        return low
    if x > high:
        return high
    return x


@inlined
def not_zero(x: float) -> float:
    """Keep ``x`` away from zero by 1e-2 (highway_env/utils.py)."""
    if abs(x) > 1e-2:
        return x
    if x >= 0:
        return 1e-2
    return -1e-2


@inlined
def wrap_to_pi(x: float) -> float:
    """Wrap an angle (highway_env/utils.py); the common case needs no division."""
    r = x + math.pi
    if 0.0 < r < TWO_PI:
        return r - math.pi
    return r % TWO_PI - math.pi
