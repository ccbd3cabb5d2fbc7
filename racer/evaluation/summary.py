"""Aggregates over evaluation episodes: means, intervals and the lower tail.

Two conventions hold everywhere in the evaluation:

- *Per episode* quantities (return, length, whether something happened) are averaged over episodes.
- *Per step* quantities (speeds, shares of steps) are pooled over all steps, so that an episode that ends after
  one second weighs as much as the second it lasted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist

import numpy as np

from racer.core.errors import UsageError
from racer.envs.metric import Metric

__all__ = [
    "aggregate_episodes",
    "check_cvar_level",
    "lower_tail_cvar",
    "mean_interval",
    "proportion_interval",
    "tail_mean",
]


def check_cvar_level(level: float) -> float:
    """Return ``level`` where it is a CVaR level, in [0, 1].

    Raises:
        UsageError: the level is not a number in [0, 1].
    """
    if not 0.0 <= level <= 1.0:
        raise UsageError(f"cvar_level must lie in [0, 1] (0 is the mean, 1 the worst episode), got {level!r}")
    return float(level)


def lower_tail_cvar(values: Sequence[float] | np.ndarray, level: float) -> float:
    """Mean of the worst ``1 - level`` share of ``values``: conditional value at risk of the lower tail.

    ``level`` is counted as the agents count ``cvar_risk``: 0 is the plain mean, 0.8 the mean of the worst 20 %,
    1 the worst value. Where the share is no whole number of values, the last one counts in part, which is the
    exact CVaR of the empirical distribution (Rockafellar & Uryasev 2002, Conditional value-at-risk for general
    loss distributions, proposition 8).

    Args:
        values: ``[N]``, N >= 1.
        level: risk level in [0, 1].

    Raises:
        UsageError: no values, or a level outside [0, 1].
    """
    check_cvar_level(level)
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise UsageError("CVaR of no values is undefined: evaluate at least one episode")
    return float(tail_mean(data, level))


def tail_mean(values: np.ndarray, level: float) -> np.ndarray:
    """Return :func:`lower_tail_cvar` of each sample of ``[..., N]``."""
    ordered = np.sort(values, axis=-1)
    tail = (1.0 - level) * ordered.shape[-1]
    if tail <= 1.0:
        return ordered[..., 0]
    weights = np.clip(tail - np.arange(ordered.shape[-1]), 0.0, 1.0)
    return ordered @ weights / weights.sum()


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Student t confidence interval of the mean of ``values`` ``[N]``; NaN on both sides for N < 2."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # slow to import, needed only here

    data = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        return math.nan, math.nan
    half = float(stdtrit(data.size - 1, 0.5 + confidence / 2.0)) * data.std(ddof=1) / math.sqrt(data.size)
    return float(data.mean() - half), float(data.mean() + half)


def proportion_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share, which stays honest at 0 % and 100 % (Wilson 1927, JASA 22)."""
    if trials < 1:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2.0) / (1.0 + spread)
    half = z / (1.0 + spread) * math.sqrt(share * (1.0 - share) / trials + spread / (4.0 * trials))
    # At 0 and at all trials one end is exact, where rounding would leave 1e-17.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == trials else min(1.0, centre + half)


def aggregate_episodes(
    episodes: Sequence[Mapping[str, float]],
    metrics: Iterable[Metric],
    *,
    cvar_level: float,
    confidence: float = 0.95,
) -> dict[str, float]:
    """Summarize episodes, given as mappings from :attr:`Metric.key`, under the names :attr:`Metric.aggregate`.

    Rates, and means that ask for it, come with the ends of their confidence interval (``_low``, ``_high``), the return
    with its spread and lower tail. Lengths are in policy steps; what cannot be said of so few episodes is NaN.

    Raises:
        UsageError: no episodes, or a CVaR level outside [0, 1].
    """
    if not episodes:
        raise UsageError("an evaluation needs at least one episode")
    returns, lengths = _column(episodes, "return"), _column(episodes, "length")
    summary = {
        "num_episodes": float(len(episodes)),
        "total_steps": float(lengths.sum()),
        "confidence": confidence,
        "std_return": float(returns.std(ddof=1)) if len(episodes) > 1 else math.nan,
        "median_return": float(np.median(returns)),
        "min_return": float(returns.min()),
        "max_return": float(returns.max()),
        "cvar_level": cvar_level,
        "cvar_return": lower_tail_cvar(returns, cvar_level),
    }
    for metric in metrics:
        values, name = _column(episodes, metric.key), metric.aggregate
        summary[name] = metric.average(values, lengths)
        if metric.kind == "rate":
            low, high = _rate_interval(values, confidence)
        elif metric.kind == "mean" and metric.interval:
            low, high = (float(end) for end in np.clip(mean_interval(values, confidence), *metric.bounds))
        else:
            continue
        summary |= {f"{name}_low": low, f"{name}_high": high}
    return summary


def _rate_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the interval of a rate of episodes ``[N]``; those of several egos have shares, no counts."""
    if ((values > 0.0) & (values < 1.0)).any():
        low, high = mean_interval(np.clip(values, 0.0, 1.0), confidence)
        return max(low, 0.0), min(high, 1.0)
    return proportion_interval(int((values > 0).sum()), len(values), confidence)


def _column(episodes: Sequence[Mapping[str, float]], key: str) -> np.ndarray:
    return np.array([float(episode[key]) for episode in episodes])
