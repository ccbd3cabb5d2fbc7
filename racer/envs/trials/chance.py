"""Random numbers that follow from what they are for, and from nothing that happened before.

A row's numbers are a hash of its keys (say scene, trial clock and car), so that they are the same in whatever batch,
order or trial they are drawn. The hash is SplitMix64's (Steele, Lea and Flood 2014, "Fast splittable pseudorandom
number generators", figure 14).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FoldedRows"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


class FoldedRows:
    """Stands in for a :class:`numpy.random.Generator` where N rows are drawn at once, as often as need be.

    Args:
        keys: whole numbers ``[N]`` each; a row's numbers follow from its own of all of them.
    """

    def __init__(self, *keys: NDArray[Any]) -> None:
        state = np.zeros(len(keys[0]), np.uint64)
        for key in keys:
            state = _mixed(state + _GAMMA ^ np.asarray(key).astype(np.uint64))
        self._state, self._draws = state, 0

    def random(self, size: Sequence[int], dtype: Any = np.float64) -> NDArray[Any]:
        """Draw ``[N, ...]`` numbers in [0, 1)."""
        return (self._words(size) >> np.uint64(40)).astype(dtype) * dtype(2.0**-24)

    def gumbel(self, *, size: Sequence[int]) -> NDArray[np.float64]:
        """Draw ``[N, ...]`` numbers of the standard Gumbel distribution."""
        uniform = ((self._words(size) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        return -np.log(-np.log(uniform))

    def standard_normal(self, size: Sequence[int], dtype: Any = np.float64) -> NDArray[Any]:
        """Draw ``[N, ...]`` standard normal numbers (Box and Muller 1958)."""
        radius = np.sqrt(2.0 * -np.log(((self._words(size) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53))
        turn = (self._words(size) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return (radius * np.cos(2.0 * np.pi * turn)).astype(dtype)

    def _words(self, size: Sequence[int]) -> NDArray[np.uint64]:
        rows, *tail = size
        if rows != len(self._state):
            raise ValueError(f"{len(self._state)} rows have keys, {rows} rows are to be drawn")
        count = int(np.prod(tail))
        places = np.arange(self._draws + 1, self._draws + count + 1, dtype=np.uint64)
        self._draws += count
        return _mixed(self._state[:, None] + places * _GAMMA).reshape(tuple(size))


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
