"""A random stream as an array, so that it is saved beside everything else."""

from __future__ import annotations

import numpy as np

from racer.core.errors import UsageError

__all__ = ["generator_from_array", "generator_to_array"]

_WORD = (1 << 64) - 1


def generator_to_array(generator: np.random.Generator) -> np.ndarray:
    """Return a PCG64 generator's whole state as ``[6]`` uint64 (128-bit state and increment, half-used word)."""
    state = generator.bit_generator.state
    if state["bit_generator"] != "PCG64":
        raise UsageError(f"random generator must be PCG64, got {state['bit_generator']}")
    inner = state["state"]
    words = [inner["state"] >> 64, inner["state"] & _WORD, inner["inc"] >> 64, inner["inc"] & _WORD]
    return np.array([*words, state["has_uint32"], state["uinteger"]], dtype=np.uint64)


def generator_from_array(words: np.ndarray) -> np.random.Generator:
    """Rebuild the generator that :func:`generator_to_array` wrote.

    Raises:
        UsageError: the array has another shape or type.
    """
    if words.shape != (6,) or words.dtype != np.uint64:
        raise UsageError(f"random state must be uint64 [6], got {words.dtype} {list(words.shape)}")
    high, low, inc_high, inc_low, has_uint32, uinteger = (int(word) for word in words)
    generator = np.random.Generator(np.random.PCG64(0))
    generator.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": (high << 64) | low, "inc": (inc_high << 64) | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return generator
