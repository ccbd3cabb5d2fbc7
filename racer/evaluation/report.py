"""What an evaluation leaves behind: a table to read and a strict JSON file to compute with."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from racer.core.errors import UsageError
from racer.core.run_dir import read_json, write_json
from racer.envs.metric import Metric
from racer.evaluation.episodes import EvaluationResult

__all__ = [
    "METRICS_FILE",
    "evaluation_document",
    "format_table",
    "read_evaluation",
    "render_table",
    "table_rows",
    "tail_label",
    "write_evaluation",
]

METRICS_FILE = "evaluation_metrics.json"
SCHEMA_VERSION = 1


def evaluation_document(
    result: EvaluationResult,
    comparisons: Mapping[str, EvaluationResult] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of ``evaluation_metrics.json``: aggregate, per episode values and configuration, and ``more``."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "aggregate": dict(result.aggregate),
        "configuration": dict(result.configuration),
        "episodes": _episodes(result),
        **(more or {}),
    }
    log = result.world.success_log
    if log is not None:
        document["per_agent_success_log"] = [
            {"episode": i, "seed": episode.seed, "agent": agent, **log(metrics)}
            for i, episode in enumerate(result.episodes)
            for agent, metrics in enumerate(episode.egos)
        ]
    if comparisons:
        document["comparisons"] = {
            name: {"aggregate": dict(other.aggregate), "episodes": _episodes(other)}
            for name, other in comparisons.items()
        }
    return document


def write_evaluation(
    folder: str | os.PathLike[str],
    result: EvaluationResult,
    comparisons: Mapping[str, EvaluationResult] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``evaluation_metrics.json`` into ``folder``; a reader sees the old file or the new, never a part."""
    path = Path(folder) / METRICS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, evaluation_document(result, comparisons, more))
    return path


def read_evaluation(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read an ``evaluation_metrics.json``.

    Raises:
        UsageError: the file is missing, is not JSON or is not an evaluation.
    """
    document = read_json(Path(path))
    if not isinstance(document, dict) or not {"aggregate", "episodes"} <= document.keys():
        raise UsageError(f"{path} is not an evaluation file: it has no 'aggregate' and 'episodes'")
    return document


def _episodes(result: EvaluationResult) -> list[dict[str, Any]]:
    """Flat, JSON-able form of each episode: what happened or did not as booleans, its length as an integer.

    Of several egos both are means.
    """
    kinds: dict[str, Callable[[float], Any]] = {}
    if result.world.egos == 1:
        kinds = {m.key: bool for m in result.world.metrics if m.kind == "rate"} | {"length": int}
    return [
        {
            "episode": i,
            "seed": episode.seed,
            "end_reason": episode.end_reason,
            **{key: kinds.get(key, float)(value) for key, value in episode.metrics.items()},
        }
        for i, episode in enumerate(result.episodes)
    ]


def format_table(results: Mapping[str, EvaluationResult]) -> str:
    """Lay out evaluations of one world side by side, one column per name, under a heading."""
    world = next(iter(results.values())).world
    header = ["", *results] if len(results) > 1 else None
    title = (world.title or f"{world.name} policy evaluation results").upper()
    return render_table(title, table_rows(list(results.values())), header)


def table_rows(results: Sequence[EvaluationResult]) -> list[list[str]]:
    """Return the rows of a table of evaluations of one world: a label, indented where it belongs to the row above, and
    a cell an evaluation."""
    aggregates = [result.aggregate for result in results]
    world, first = results[0].world, aggregates[0]
    rows = [["Episodes", *(f"{aggregate['num_episodes']:.0f}" for aggregate in aggregates)]]
    for metric in world.metrics:
        if not metric.label:
            continue
        name = metric.aggregate
        rows.append([metric.label, *(_cell(metric, aggregate[name]) for aggregate in aggregates)])
        if metric.key == "return":
            rows.append(["  standard deviation", *(_cell(metric, aggregate["std_return"]) for aggregate in aggregates)])
        if metric.interval:
            of_what = " of the mean" if metric.kind == "mean" else ""
            intervals = [_interval(metric, aggregate) for aggregate in aggregates]
            rows.append([f"  {first['confidence']:.0%} interval{of_what}", *intervals])
        if metric.key == "return":
            tail = tail_label(first["cvar_level"])
            rows.append([tail, *(_cell(metric, aggregate["cvar_return"]) for aggregate in aggregates)])
    return rows


def _cell(metric: Metric, value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else metric.write(value)


def _interval(metric: Metric, aggregate: Mapping[str, float]) -> str:
    low, high = (_cell(metric, aggregate[f"{metric.aggregate}_{end}"]) for end in ("low", "high"))
    return f"[{low}, {high}]"


def tail_label(level: float) -> str:
    """Return the label of the return's lower tail."""
    worst = f"worst {1 - level:.0%}" if level < 1 else "worst episode"
    return f"CVaR {level:g} of return ({worst})"


def render_table(title: str, rows: Sequence[Sequence[str]], header: Sequence[str] | None) -> str:
    """Lay out rows of as many cells under a title and, where there is one, a header."""
    lines = [*([header] if header else []), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(rows[0]))]
    total = max(len(title), sum(widths) + 3 * (len(widths) - 1))
    text = ["=" * total, title.center(total).rstrip(), "=" * total]
    for number, line in enumerate(lines):
        numbers = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        text.append("   ".join([line[0].ljust(widths[0]), *numbers]).rstrip())
        if header and number == 0:
            text.append("-" * total)
    text.append("=" * total)
    return "\n".join(text)
