"""What an evaluation leaves behind: a table to read and a strict JSON file to compute with."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from racer.core.errors import UsageError
from racer.core.run_dir import read_json, write_json
from racer.evaluation.episodes import EvaluationResult

__all__ = [
    "METRICS_FILE",
    "TITLE",
    "evaluation_document",
    "format_table",
    "read_evaluation",
    "verdict",
    "write_evaluation",
]

TITLE = "HIGHWAY POLICY EVALUATION RESULTS"
METRICS_FILE = "evaluation_metrics.json"
SCHEMA_VERSION = 1


def evaluation_document(
    result: EvaluationResult, comparisons: Mapping[str, EvaluationResult] | None = None
) -> dict[str, Any]:
    """The content of ``evaluation_metrics.json``: aggregate, per episode values and configuration."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "aggregate": dict(result.aggregate),
        "configuration": dict(result.configuration),
        "episodes": [{"episode": i, **e.as_dict()} for i, e in enumerate(result.episodes)],
    }
    if comparisons:
        document["comparisons"] = {
            name: {
                "aggregate": dict(other.aggregate),
                "episodes": [{"episode": i, **e.as_dict()} for i, e in enumerate(other.episodes)],
            }
            for name, other in comparisons.items()
        }
    return document


def write_evaluation(
    folder: str | os.PathLike[str],
    result: EvaluationResult,
    comparisons: Mapping[str, EvaluationResult] | None = None,
) -> Path:
    """Write ``evaluation_metrics.json`` into ``folder``; a reader sees the old file or the new, never a part."""
    path = Path(folder) / METRICS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, evaluation_document(result, comparisons))
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


_ROWS: Sequence[tuple[str, str, str]] = (
    ("Episodes", "num_episodes", "{:.0f}"),
    ("Mean return", "mean_return", "{:.2f}"),
    ("  standard deviation", "std_return", "{:.2f}"),
    ("Mean episode length [steps]", "mean_length", "{:.1f}"),
    ("Success rate", "success_rate", "{:.1%}"),
    ("Collision rate", "collision_rate", "{:.1%}"),
    ("Off-road rate", "off_road_rate", "{:.1%}"),
    ("Safety violation rate (steps)", "safety_violation_rate", "{:.2%}"),
    ("Mean minimum distance [m]", "mean_min_distance", "{:.2f}"),
    ("Mean ego speed [m/s]", "mean_ego_speed", "{:.2f}"),
    ("Mean forward speed [m/s]", "mean_forward_speed", "{:.2f}"),
    ("Driving backwards (steps)", "reverse_share", "{:.2%}"),
    ("Spinning (steps)", "spin_share", "{:.2%}"),
    ("Standing still (steps)", "standstill_share", "{:.2%}"),
)


def format_table(results: Mapping[str, EvaluationResult]) -> str:
    """Lay out evaluations side by side, one column per name, under the heading :data:`TITLE`."""
    rows: list[list[str]] = []
    aggregates = [result.aggregate for result in results.values()]
    for label, key, form in _ROWS:
        rows.append([label, *(_cell(aggregate[key], form) for aggregate in aggregates)])
    first = aggregates[0]
    interval = [_interval(a, "mean_return", "{:.2f}") for a in aggregates]
    rows.insert(3, [f"  {first['confidence']:.0%} interval of the mean", *interval])
    level = first["cvar_level"]
    label = f"CVaR {level:g} of return (worst {1 - level:.0%})" if level < 1 else "CVaR 1 of return (worst episode)"
    rows.insert(4, [label, *(_cell(a["cvar_return"], "{:.2f}") for a in aggregates)])
    collisions = [_interval(a, "collision_rate", "{:.1%}") for a in aggregates]
    at = next(i for i, row in enumerate(rows) if row[0] == "Collision rate")
    rows.insert(at + 1, [f"  {first['confidence']:.0%} interval", *collisions])
    header = ["", *results] if len(results) > 1 else None
    return _render(rows, header)


def verdict(result: EvaluationResult, random: EvaluationResult) -> str:
    """Say in a sentence whether a policy's mean return is above that of random actions, by their intervals."""
    ours, theirs = result.aggregate, random.aggregate
    if ours["mean_return_low"] > theirs["mean_return_high"]:
        words = "Better than random actions"
    elif ours["mean_return_high"] < theirs["mean_return_low"]:
        words = "Worse than random actions"
    else:
        words = "Not to be told from random actions"
    means = [
        f"{a['mean_return']:.2f}, {a['confidence']:.0%} interval {_interval(a, 'mean_return', '{:.2f}')}"
        for a in (ours, theirs)
    ]
    return f"{words}: mean return {means[0]}, against {means[1]}."


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None or not math.isfinite(value) else form.format(value)


def _interval(aggregate: Mapping[str, float], name: str, form: str) -> str:
    return f"[{_cell(aggregate[f'{name}_low'], form)}, {_cell(aggregate[f'{name}_high'], form)}]"


def _render(rows: Sequence[Sequence[str]], header: Sequence[str] | None) -> str:
    lines = [*([header] if header else []), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(rows[0]))]
    total = max(len(TITLE), sum(widths) + 3 * (len(widths) - 1))
    text = ["=" * total, TITLE.center(total).rstrip(), "=" * total]
    for number, line in enumerate(lines):
        numbers = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        text.append("   ".join([line[0].ljust(widths[0]), *numbers]))
        if header and number == 0:
            text.append("-" * total)
    text.append("=" * total)
    return "\n".join(text)
