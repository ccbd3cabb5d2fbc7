"""Two evaluations on the same seeds: the differences of their metrics, paired by seed, with bootstrap intervals.

What a seed makes easy or hard for both cancels out of a difference, so that its interval is narrower than what the two
intervals side by side would suggest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from racer.core.errors import UsageError
from racer.core.statistics import Estimate, paired_difference, weighted_mean
from racer.envs.metric import Metric
from racer.evaluation.episodes import EvaluationResult
from racer.evaluation.report import render_table, tail_label
from racer.evaluation.summary import tail_mean

__all__ = [
    "HEADER",
    "Differences",
    "difference_document",
    "difference_rows",
    "difference_title",
    "format_differences",
    "paired_differences",
    "verdict",
]

HEADER = ("", "difference", "95% interval", "")

Differences = Mapping[str, Estimate]


def paired_differences(first: EvaluationResult, second: EvaluationResult) -> dict[str, Estimate]:
    """Return ``first`` less ``second`` of every metric and of the return's lower tail, by their names in an aggregate.

    Each is averaged as in the aggregate: a difference is that of the two numbers side by side. Its 95 % interval is NaN
    for one episode.

    Raises:
        UsageError: the two ran other seeds.
    """
    if [episode.seed for episode in first.episodes] != [episode.seed for episode in second.episodes]:
        raise UsageError("evaluations on other seeds have no paired differences")
    found, level = {}, float(first.aggregate["cvar_level"])
    for metric in first.world.metrics:
        ours, theirs = (_weighted(result, metric) for result in (first, second))
        found[metric.aggregate] = paired_difference(ours, theirs, weighted_mean)
        if metric.key == "return":
            returns = first.returns, second.returns
            found["cvar_return"] = paired_difference(*returns, lambda values: tail_mean(values, level))
    return found


def _weighted(result: EvaluationResult, metric: Metric) -> np.ndarray:
    values, lengths = (
        np.array([float(episode.metrics[key]) for episode in result.episodes]) for key in (metric.key, "length")
    )
    return metric.weighted(values, lengths)


def difference_document(differences: Differences) -> dict[str, Any]:
    """Return differences, JSON-able."""
    return {name: estimate._asdict() for name, estimate in differences.items()}


def difference_title(first: str, second: str) -> str:
    """Return the heading of two policies' differences."""
    return f"{first} less {second}, paired by seed"


def difference_rows(result: EvaluationResult, differences: Differences) -> list[list[str]]:
    """Return a row a metric of the table: label, difference, interval, and a word where the interval leaves out 0."""
    rows = []
    for metric in result.world.metrics:
        if not metric.label:
            continue
        rows.append([metric.label, *_cells(metric, differences[metric.aggregate])])
        if metric.key == "return":
            rows.append([tail_label(result.aggregate["cvar_level"]), *_cells(metric, differences["cvar_return"])])
    return rows


def format_differences(title: str, result: EvaluationResult, differences: Differences) -> str:
    """Lay out two policies' differences under a title."""
    return render_table(title, difference_rows(result, differences), HEADER)


def verdict(result: EvaluationResult, random: EvaluationResult, differences: Differences) -> str:
    """Say in a sentence whether a policy's mean return is above that of random actions on the same seeds."""
    estimate = differences["mean_return"]
    words = "Not to be told from random actions"
    if estimate.separates:
        words = f"{'Better' if estimate.value > 0 else 'Worse'} than random actions"
    metric = next(metric for metric in result.world.metrics if metric.key == "return")
    ours, theirs = (metric.write(one.aggregate["mean_return"]) for one in (result, random))
    value, interval, _ = _cells(metric, estimate)
    return f"{words}: mean return {ours} against {theirs}, paired difference {value}, 95% interval {interval}."


def _cells(metric: Metric, estimate: Estimate) -> tuple[str, str, str]:
    low, high = _signed(metric, estimate.low), _signed(metric, estimate.high)
    return _signed(metric, estimate.value), f"[{low}, {high}]", _word(metric, estimate)


def _signed(metric: Metric, value: float) -> str:
    if not math.isfinite(value):
        return "-"
    text = metric.write(value)
    return f"+{text}" if value > 0 and not text.startswith("+") else text


def _word(metric: Metric, estimate: Estimate) -> str:
    """Say which way the first policy differs, where the interval leaves out 0."""
    if not estimate.separates:
        return ""
    side = "high" if estimate.value > 0 else "low"
    if not metric.better:
        return f"{side}er"
    return "better" if side == metric.better else "worse"
