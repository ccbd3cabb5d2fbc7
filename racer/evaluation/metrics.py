"""Aggregates over evaluation episodes: means, intervals and the lower tail.

Two conventions hold everywhere in the evaluation:

- *Per episode* quantities (return, length, collided or not, smallest distance) are averaged over episodes.
- *Per step* quantities (speeds, shares of steps) are pooled over all steps, so that an episode that ends after
  one second weighs as much as the second it lasted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from racer.core.errors import UsageError
from racer.envs.highway.episode import EPISODE_METRICS

__all__ = [
    "EPISODE_METRICS",
    "aggregate_episodes",
    "check_cvar_level",
    "lower_tail_cvar",
    "mean_interval",
    "proportion_interval",
]

PER_STEP = {
    "mean_ego_speed": "mean_speed",
    "mean_forward_speed": "mean_forward_speed",
    "safety_violation_rate": "violation_rate",
    "mean_safety_reward": "mean_safety_reward",
    "reverse_share": "reverse_share",
    "spin_share": "spin_share",
    "standstill_share": "standstill_share",
}
"""Aggregate name -> episode metric, for the quantities pooled over steps."""


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
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if ordered.size == 0:
        raise UsageError("CVaR of no values is undefined: evaluate at least one episode")
    tail = (1.0 - level) * ordered.size
    if tail <= 1.0:
        return float(ordered[0])
    weights = np.clip(tail - np.arange(ordered.size), 0.0, 1.0)
    return float(ordered @ weights / weights.sum())


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
    episodes: Sequence[Mapping[str, float]], *, cvar_level: float, confidence: float = 0.95
) -> dict[str, float]:
    """Summarize episodes given as mappings with the names of :data:`EPISODE_METRICS`.

    Units: returns in reward, lengths in policy steps, distances in m, speeds in m/s, rates and shares in [0, 1].
    ``mean_min_distance`` leaves out episodes in which no vehicle was ever observed (infinite distance); NaN where
    that is every episode. Spreads of a single episode are NaN.

    Raises:
        UsageError: no episodes, or a CVaR level outside [0, 1].
    """
    if not episodes:
        raise UsageError("an evaluation needs at least one episode")
    columns = {name: np.array([float(e[name]) for e in episodes]) for name in EPISODE_METRICS}
    returns, lengths, count = columns["return"], columns["length"], len(episodes)
    low, high = mean_interval(returns, confidence)
    distances = columns["min_distance"][np.isfinite(columns["min_distance"])]
    collisions = int((columns["crashed"] > 0).sum())
    collision_low, collision_high = proportion_interval(collisions, count, confidence)
    off_road = int((columns["off_road"] > 0).sum())
    off_road_low, off_road_high = proportion_interval(off_road, count, confidence)
    summary = {
        "num_episodes": float(count),
        "total_steps": float(lengths.sum()),
        "mean_return": float(returns.mean()),
        "std_return": float(returns.std(ddof=1)) if count > 1 else math.nan,
        "mean_return_low": low,
        "mean_return_high": high,
        "confidence": confidence,
        "median_return": float(np.median(returns)),
        "min_return": float(returns.min()),
        "max_return": float(returns.max()),
        "cvar_level": cvar_level,
        "cvar_return": lower_tail_cvar(returns, cvar_level),
        "mean_base_return": float(columns["base_return"].mean()),
        "mean_length": float(lengths.mean()),
        "success_rate": float((columns["success"] > 0).mean()),
        "collision_rate": collisions / count,
        "collision_rate_low": collision_low,
        "collision_rate_high": collision_high,
        "off_road_rate": off_road / count,
        "off_road_rate_low": off_road_low,
        "off_road_rate_high": off_road_high,
        "mean_min_distance": float(distances.mean()) if distances.size else math.nan,
    }
    steps = lengths.sum()
    for name, source in PER_STEP.items():
        summary[name] = float(columns[source] @ lengths / steps) if steps > 0 else math.nan
    return summary
