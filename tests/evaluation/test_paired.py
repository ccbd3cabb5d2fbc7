"""Differences of two evaluations, paired by seed, against sums by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.core.statistics import paired_difference
from racer.envs.registry import get_world
from racer.evaluation.episodes import EpisodeResult, EvaluationResult
from racer.evaluation.paired import difference_rows, format_differences, paired_differences
from racer.evaluation.summary import aggregate_episodes, lower_tail_cvar

HIGHWAY = get_world("highway")


def evaluation(columns: dict[str, np.ndarray], seeds: range | None = None) -> EvaluationResult:
    count = len(next(iter(columns.values())))
    usual = {metric.key: 0.0 for metric in HIGHWAY.metrics} | {"length": 10.0}
    rows = [usual | {key: float(values[i]) for key, values in columns.items()} for i in range(count)]
    assert rows[0].keys() == usual.keys()
    episodes = tuple(EpisodeResult(s, "time_limit", row) for s, row in zip(seeds or range(count), rows, strict=True))
    return EvaluationResult(HIGHWAY, episodes, aggregate_episodes(rows, HIGHWAY.metrics, cvar_level=0.8))


def pair() -> tuple[EvaluationResult, EvaluationResult]:
    rng = np.random.default_rng(0)
    hard = rng.normal(0.0, 20.0, 30)
    lengths = rng.integers(5, 200, (2, 30))
    speeds, crashes = rng.normal(25.0, 1.0, (2, 30)), rng.random((2, 30)) < 0.2
    near = np.where(rng.random((2, 30)) < 0.3, np.inf, rng.normal(8.0, 1.0, (2, 30)))
    returns = hard + np.array([[1.0], [0.0]]) + rng.normal(0.0, 0.5, (2, 30))
    first, second = (
        evaluation({
            "return": returns[i], "length": lengths[i], "mean_forward_speed": speeds[i], "crashed": crashes[i],
            "min_distance": near[i],
        })
        for i in (0, 1)
    )  # fmt: skip
    return first, second


def test_every_difference_is_that_of_the_aggregates():
    first, second = pair()
    found = paired_differences(first, second)
    assert {metric.aggregate for metric in HIGHWAY.metrics} | {"cvar_return"} == set(found)
    for name, estimate in found.items():
        assert estimate.value == pytest.approx(first.aggregate[name] - second.aggregate[name], abs=1e-12), name
        assert estimate.low <= estimate.value <= estimate.high, name
    assert found["mean_forward_speed"].value != pytest.approx(
        np.mean([a.metrics["mean_forward_speed"] - b.metrics["mean_forward_speed"]
                 for a, b in zip(first.episodes, second.episodes, strict=True)])
    )  # fmt: skip


def test_the_intervals_are_those_of_seeds_drawn_again():
    first, second = pair()
    found, rng = paired_differences(first, second), np.random.default_rng(7)
    drawn = rng.integers(0, 30, (4000, 30))
    tails = [lower_tail_cvar(first.returns[p], 0.8) - lower_tail_cvar(second.returns[p], 0.8) for p in drawn]
    assert found["cvar_return"][1:] == pytest.approx(np.quantile(tails, (0.025, 0.975)), abs=0.1)
    speeds = []
    for places in drawn:
        pooled = []
        for result in (first, second):
            chosen = [result.episodes[place].metrics for place in places]
            steps = sum(row["length"] for row in chosen)
            pooled.append(sum(row["mean_forward_speed"] * row["length"] for row in chosen) / steps)
        speeds.append(pooled[0] - pooled[1])
    assert found["mean_forward_speed"][1:] == pytest.approx(np.quantile(speeds, (0.025, 0.975)), abs=0.05)


def test_a_word_stands_where_the_interval_leaves_out_zero():
    first, second = pair()
    found = paired_differences(first, second)
    rows = {row[0]: row[1:] for row in difference_rows(first, found)}
    # What seeds make hard for both is 20 times what differs: side by side the intervals overlap widely.
    assert first.aggregate["mean_return_low"] < second.aggregate["mean_return_high"]
    assert rows["Mean return"][2] == "better"
    assert rows["Mean return"][0] == f"{found['mean_return'].value:+.2f}"
    turned = paired_differences(second, first)
    assert {row[0]: row[1:] for row in difference_rows(second, turned)}["Mean return"][2] == "worse"
    assert rows["Off-road rate"] == ["0.0%", "[0.0%, 0.0%]", ""]
    text = format_differences("a less b", first, found)
    assert "a less b" in text.splitlines()[1]
    assert next(line for line in text.splitlines() if line.startswith("Mean return")).endswith("better")


def test_what_is_neither_better_nor_worse_is_higher_or_lower():
    first, second = evaluation({"length": np.full(5, 20)}), evaluation({"length": np.full(5, 10)})
    rows = {row[0]: row[1:] for row in difference_rows(first, paired_differences(first, second))}
    assert rows["Mean episode length [steps]"] == ["+10.0", "[+10.0, +10.0]", "higher"]


def test_a_difference_of_differences_has_one_sign():
    world = replace(HIGHWAY, metrics=tuple(replace(metric, form="{:+.3f}") for metric in HIGHWAY.metrics))
    first, second = (replace(result, world=world) for result in pair())
    found = paired_differences(first, second)
    for a, b in ((first, second), (second, first)):
        (row,) = (r for r in difference_rows(a, paired_differences(a, b)) if r[0] == "Mean return")
        assert row[1] == f"{found['mean_return'].value * (1 if a is first else -1):+.3f}"
        assert row[2].count("+") + row[2].count("-") == 2


def test_other_seeds_are_no_pairs():
    first, _ = pair()
    other = replace(first, episodes=tuple(replace(e, seed=e.seed + 1) for e in first.episodes))
    with pytest.raises(UsageError, match="no paired differences"):
        paired_differences(first, other)


def test_many_episodes_are_drawn_in_parts_to_the_same_interval(monkeypatch):
    a, b = np.random.default_rng(1).normal(size=(2, 50))
    whole = paired_difference(a, b)
    monkeypatch.setattr("racer.core.statistics._DRAWN_AT_ONCE", 50 * 7)
    assert paired_difference(a, b) == whole
