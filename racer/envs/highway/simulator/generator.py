"""NumPy's PCG64 generator over packed states, so that many environments draw inside compiled code.

The draws and the state that they leave behind equal those of ``numpy.random.Generator`` (PCG XSL-RR 128/64,
O'Neill 2014; bounded integers by Lemire 2019; shuffles by masked rejection).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from racer.envs.highway.simulator.compiled import kernel
from racer.envs.highway.simulator.layout import (
    RNG_32,
    RNG_HAS_32,
    RNG_HIGH,
    RNG_INC_HIGH,
    RNG_INC_LOW,
    RNG_LOW,
    RNGS,
)

MULTIPLIER_HIGH = np.uint64(2549297995355413924)
MULTIPLIER_LOW = np.uint64(4865540595714422341)
LOW_32 = np.uint64(0xFFFFFFFF)
MASK_64 = (1 << 64) - 1


def seeded_state(seed: int | None) -> np.ndarray:
    """Return the packed state ``[6]`` of ``Generator(PCG64(SeedSequence(seed)))``."""
    return pack(np.random.PCG64(np.random.SeedSequence(seed)).state)


def pack(state: Mapping[str, Any]) -> np.ndarray:
    """Pack a PCG64 ``bit_generator.state`` into ``[6]`` uint64."""
    packed = np.empty(RNGS, dtype=np.uint64)
    inner = state["state"]
    packed[RNG_HIGH] = inner["state"] >> 64
    packed[RNG_LOW] = inner["state"] & MASK_64
    packed[RNG_INC_HIGH] = inner["inc"] >> 64
    packed[RNG_INC_LOW] = inner["inc"] & MASK_64
    packed[RNG_HAS_32] = state["has_uint32"]
    packed[RNG_32] = state["uinteger"]
    return packed


def unpack(packed: np.ndarray) -> dict[str, Any]:
    """Return the ``bit_generator.state`` of a packed state ``[6]``."""
    high, low, inc_high, inc_low, has_32, value = (int(v) for v in packed)
    return {
        "bit_generator": "PCG64",
        "state": {"state": (high << 64) | low, "inc": (inc_high << 64) | inc_low},
        "has_uint32": has_32,
        "uinteger": value,
    }


@kernel
def product_high(a: np.uint64, b: np.uint64) -> np.uint64:
    """Upper 64 bits of the 128-bit product."""
    shift = np.uint64(32)
    a_low, a_high = a & LOW_32, a >> shift
    b_low, b_high = b & LOW_32, b >> shift
    low = a_low * b_low
    middle = a_high * b_low + (low >> shift)
    carry = a_low * b_high + (middle & LOW_32)
    return a_high * b_high + (middle >> shift) + (carry >> shift)


@kernel
def next_64(rng: np.ndarray) -> np.uint64:
    """Advance the state and return 64 random bits."""
    low = rng[RNG_LOW]
    high = product_high(low, MULTIPLIER_LOW) + rng[RNG_HIGH] * MULTIPLIER_LOW + low * MULTIPLIER_HIGH
    low = low * MULTIPLIER_LOW
    low_sum = low + rng[RNG_INC_LOW]
    high = high + rng[RNG_INC_HIGH]
    if low_sum < low:
        high = high + np.uint64(1)
    rng[RNG_LOW] = low_sum
    rng[RNG_HIGH] = high
    rotation = high >> np.uint64(58)
    value = high ^ low_sum
    return (value >> rotation) | (value << ((np.uint64(64) - rotation) & np.uint64(63)))


@kernel
def next_32(rng: np.ndarray) -> np.uint64:
    """Return 32 random bits; the other half of a 64-bit draw is kept for the next call."""
    if rng[RNG_HAS_32] != np.uint64(0):
        rng[RNG_HAS_32] = np.uint64(0)
        return rng[RNG_32]
    value = next_64(rng)
    rng[RNG_HAS_32] = np.uint64(1)
    rng[RNG_32] = value >> np.uint64(32)
    return value & LOW_32


@kernel
def next_double(rng: np.ndarray) -> float:
    """Return a float64 in [0, 1)."""
    return np.int64(next_64(rng) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@kernel
def uniform(rng: np.ndarray, low: float, high: float) -> float:
    """``Generator.uniform(low, high)``."""
    return low + (high - low) * next_double(rng)


@kernel
def integers(rng: np.ndarray, n: int) -> int:
    """``Generator.integers(0, n)`` for 1 <= n < 2^32; a single choice consumes no draw."""
    if n <= 1:
        return 0
    bound = np.uint64(n)
    product = next_32(rng) * bound
    left = product & LOW_32
    if left < bound:
        threshold = (LOW_32 - (bound - np.uint64(1))) % bound
        while left < threshold:
            product = next_32(rng) * bound
            left = product & LOW_32
    return int(product >> np.uint64(32))


@kernel
def interval_draw(rng: np.ndarray, greatest: int) -> int:
    """Draw from [0, greatest] by masked rejection, as ``Generator.shuffle`` does."""
    bound = np.uint64(greatest)
    mask = bound
    for shift in (1, 2, 4, 8, 16):
        mask |= mask >> np.uint64(shift)
    value = next_32(rng) & mask
    while value > bound:
        value = next_32(rng) & mask
    return int(value)


@kernel
def shuffle_rows(rng: np.ndarray, rows: np.ndarray, first: int, last: int) -> None:
    """``Generator.shuffle(rows[first:last])``, over the first axis of ``rows [K, F]``."""
    for i in range(last - first - 1, 0, -1):
        j = interval_draw(rng, i)
        if j != i:
            for f in range(rows.shape[1]):
                kept = rows[first + i, f]
                rows[first + i, f] = rows[first + j, f]
                rows[first + j, f] = kept
