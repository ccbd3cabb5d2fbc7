"""Random numbers for the rows of a batch, each row from a generator of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["RowGenerators"]


class RowGenerators:
    """Stands in for a :class:`numpy.random.Generator` where N rows are drawn at once.

    A row's numbers are those that a generator of its seed alone would give, whatever the other rows draw. Rows without
    a seed get zeros.

    Args:
        seeds: one for each row, a number or several, or None.
    """

    def __init__(self, seeds: Sequence[int | Sequence[int] | None]) -> None:
        self._generators = [None if seed is None else np.random.default_rng(seed) for seed in seeds]

    def restart(self, row: int, seed: int | Sequence[int] | None) -> None:
        """Begin a row anew, from another seed."""
        self._generators[row] = None if seed is None else np.random.default_rng(seed)

    def standard_normal(self, size: Sequence[int], dtype: Any = np.float64) -> np.ndarray:
        """Draw ``[N, ...]`` standard normal numbers."""
        return self._draw(size, dtype, lambda rng, row: rng.standard_normal(tuple(size[1:]), dtype=dtype))

    def random(self, size: Sequence[int], dtype: Any = np.float64) -> np.ndarray:
        """Draw ``[N, ...]`` numbers in [0, 1)."""
        return self._draw(size, dtype, lambda rng, row: rng.random(tuple(size[1:]), dtype=dtype))

    def gumbel(self, *, size: Sequence[int]) -> np.ndarray:
        """Draw ``[N, ...]`` numbers of the standard Gumbel distribution."""
        return self._draw(size, np.float64, lambda rng, row: rng.gumbel(size=tuple(size[1:])))

    def beta(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Draw from Beta(a, b), element by element of ``[N, ...]``."""
        return self._draw(np.shape(a), np.float64, lambda rng, row: rng.beta(a[row], b[row]))

    def _draw(
        self, size: Sequence[int], dtype: Any, draw: Callable[[np.random.Generator, int], Any]
    ) -> np.ndarray:
        drawn = np.zeros(tuple(size), dtype)
        if len(drawn) != len(self._generators):
            raise ValueError(f"{len(self._generators)} rows have generators, {len(drawn)} rows are to be drawn")
        for row, rng in enumerate(self._generators):
            if rng is not None:
                drawn[row] = draw(rng, row)
        return drawn
