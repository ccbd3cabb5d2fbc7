"""Means, interquartile means and comparisons of few runs or episodes, with bootstrap intervals.

Intervals are percentile bootstrap intervals over runs (an episode is a run too), as Agarwal et al. 2021 ("Deep
reinforcement learning at the edge of the statistical precipice", NeurIPS, section 4) recommend for few runs.
Differences of arms whose runs share seeds are resampled by seed, so that what a seed makes easy or hard cancels out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError

__all__ = [
    "RESAMPLES",
    "Estimate",
    "bootstrap",
    "improvement",
    "interquartile_mean",
    "paired_difference",
    "weighted_mean",
]

RESAMPLES = 10_000

_DRAWN_AT_ONCE = 2**21
"""Numbers, so that the samples of a million episodes do not fill the memory."""

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From samples ``[..., N]`` to one number each, ``[...]``."""


class Estimate(NamedTuple):
    """A number with the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def separates(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0.0 or self.high < 0.0


def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of ``[..., N]``."""
    return values.mean(axis=-1)


def weighted_mean(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of values with their weights, ``[..., N, 2]``; NaN where no weight is above 0."""
    weights = samples[..., 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = (samples[..., 0] * weights).sum(axis=-1) / weights.sum(axis=-1)
    return found


def interquartile_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of the middle half of ``[..., N]``; values at its edges count in part.

    With weights instead of rounding the quarter that is left out is exactly a quarter for every N.
    """
    ordered = np.sort(values, axis=-1)
    count = ordered.shape[-1]
    edges = np.arange(count + 1)
    low, high = count / 4.0, 3.0 * count / 4.0
    weights = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, 1.0)
    found: NDArray[np.float64] = ordered @ weights / weights.sum()
    return found


def bootstrap(
    values: NDArray[np.float64], statistic: Statistic = mean, *, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Estimate a statistic of runs ``[N]``; the interval is NaN for N < 2.

    Raises:
        UsageError: no runs.
    """
    data = np.asarray(values, np.float64)
    if data.size == 0:
        raise UsageError("a statistic needs a run at least")
    value = float(statistic(data))
    if data.size < 2:
        return Estimate(value, np.nan, np.nan)
    return Estimate(value, *_ends(_resampled(len(data), lambda places: statistic(data[places]), seed), confidence))


def paired_difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    statistic: Statistic = mean,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Estimate the statistic of ``first`` less that of ``second``, ``[N]`` each, paired by their place.

    A statistic of several numbers a run takes ``[N, K]``. The interval is NaN for N < 2.

    Raises:
        UsageError: no pairs, or arms of different sizes.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim not in (1, 2) or a.size == 0:
        raise UsageError(f"paired arms need as many runs each, not {a.size} and {b.size}")
    with np.errstate(invalid="ignore"):
        value = float(statistic(a) - statistic(b))
        if len(a) < 2:
            return Estimate(value, np.nan, np.nan)
        drawn = _resampled(len(a), lambda places: statistic(a[places]) - statistic(b[places]), seed)
        return Estimate(value, *_ends(drawn, confidence))


def improvement(
    first: NDArray[np.float64], second: NDArray[np.float64], *, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Estimate the probability that a run of ``first`` is better than one of ``second``; ties count half.

    Raises:
        UsageError: an arm without runs.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.size == 0 or b.size == 0:
        raise UsageError("a comparison needs a run of either arm at least")
    wins = (a[:, None] > b[None, :]) + 0.5 * (a[:, None] == b[None, :])
    rng = np.random.default_rng(seed)
    rows = np.stack([np.bincount(rng.integers(0, a.size, a.size), minlength=a.size) for _ in range(RESAMPLES // 5)])
    columns = np.stack([np.bincount(rng.integers(0, b.size, b.size), minlength=b.size) for _ in range(RESAMPLES // 5)])
    drawn = np.einsum("ri,ij,rj->r", rows, wins, columns, optimize=True) / (a.size * b.size)
    return Estimate(float(wins.mean()), *_ends(drawn, confidence))


def _resampled(
    count: int, statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], seed: int
) -> NDArray[np.float64]:
    """Return the statistic of :data:`RESAMPLES` draws of as many places, ``[rows, count]``, with replacement."""
    rng, rows = np.random.default_rng(seed), max(1, _DRAWN_AT_ONCE // count)
    sizes = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    return np.concatenate([statistic(rng.integers(0, count, (size, count))) for size in sizes])


def _ends(drawn: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return float(low), float(high)
