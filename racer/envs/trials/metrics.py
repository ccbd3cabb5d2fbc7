"""What an episode of several trials is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.metric import BASE_METRICS, Metric

__all__ = ["delta_key", "end_reason", "score_key", "success_log", "trial_metrics"]


def score_key(k: int) -> str:
    """Name the score of trial ``k``, counted from 0."""
    return f"trial_{k}_score"


def delta_key(k: int) -> str:
    """Name what trial ``k`` scores above trial 0."""
    return f"ada_delta_trial_{k}_minus_0"


def trial_metrics(trials: int) -> tuple[Metric, ...]:
    """Return the metrics of episodes of ``trials`` trials, in the order of tables."""
    counts = (
        ("n_trials_completed", "Trials completed", ""),
        ("n_trials_goal_reached", "  reached", "high"),
        ("n_trials_crashed", "  crashed", "low"),
        ("n_trials_timed_out", "  timed out", "low"),
        ("n_trials_missed", "  missed the lane", "low"),
    )
    return (
        *BASE_METRICS,
        Metric("trial_goal_reach_rate", "trial_goal_reach_rate", label="Goal reached (trials)", better="high",
               unit="share of trials", form="{:.1%}", interval=True, bounds=(0.0, 1.0), curve=True),
        *(Metric(score_key(k), score_key(k), "rate", f"Trial {k + 1} score", better="high", interval=True,
                 curve=True) for k in range(trials)),
        *(Metric(delta_key(k), delta_key(k), label=f"Trial {k + 1} minus trial 1", better="high", form="{:+.3f}",
                 interval=True, bounds=(-1.0, 1.0)) for k in range(1, trials)),
        *(Metric(key, key, label=label, better=better) for key, label, better in counts),
        Metric("trial_mean_length", "trial_mean_length", label="Mean trial length [steps]", unit="steps",
               form="{:.1f}"),
    )  # fmt: skip


def episode_metrics(
    scores: NDArray[np.int64], ends: Mapping[str, NDArray[np.int64]], lengths: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return the numbers of N episodes.

    Args:
        scores: ``[N, K]``, 1 where a trial's goal was reached.
        ends: trials that ended in each way, ``[N]`` each.
        lengths: steps of all trials so far, ``[N]``.
    """
    completed = np.maximum(sum(ends.values()), 1)
    values: dict[str, Any] = {"n_trials_completed": sum(ends.values())}
    values |= {f"n_trials_{name}": count for name, count in ends.items()}
    values["trial_goal_reach_rate"] = ends["goal_reached"] / completed
    values["trial_mean_length"] = lengths / completed
    for k in range(scores.shape[1]):
        values[score_key(k)] = scores[:, k]
        if k:
            values[delta_key(k)] = scores[:, k] - scores[:, 0]
    return {name: np.asarray(value, np.float64).copy() for name, value in values.items()}


def end_reason(metrics: Mapping[str, float], terminated: bool) -> str:
    """Return how the last trial went: "goal_reached" or "failed"."""
    last = int(metrics["n_trials_completed"]) - 1
    return "goal_reached" if metrics[score_key(last)] > 0 else "failed"


def success_log(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return which trials an ego succeeded in: ``t0``, ``t1``, ..."""
    return {f"t{k}": bool(metrics[score_key(k)]) for k in range(int(metrics["n_trials_completed"]))}
