"""What the study of positional encodings counts: one row for each run, under the published names."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from racer.core.errors import UsageError
from racer.core.files import read_bytes, replace_file
from racer.sweeps.results import Table
from racer.sweeps.study import Study

COLUMNS = ("features", "lr", "epochs", "hidden_dim", "batch", "final_reward", "max_reward", "training_steps")
"""Of the published file of 162 rows."""

OWN_NUMBERS = ("steps_to_thr", "reached_thr", "auc")
"""Further columns of :func:`write_csv` that are numbers."""

WINDOW = 10
"""Evaluations in avg_eval."""

THRESHOLD = 120.0
_BYTES = 1 << 26


def scores(steps: np.ndarray, returns: np.ndarray) -> dict[str, float]:
    """Return a run's figures from its evaluations, ``[E]`` each.

    ``avg_eval`` is the mean of the last ten evaluations; ``final_reward`` its last value, ``max_reward`` its largest,
    ``steps_to_thr`` the transitions of the first evaluation of at least 120 (NaN without one), ``auc`` the area under
    the evaluations over training, divided by its length.
    """
    if len(returns) == 0:
        raise UsageError("a run without evaluations has no figures: set eval_interval")
    sums = np.concatenate([[0.0], np.cumsum(returns)])
    ends = np.arange(1, len(returns) + 1)
    starts = np.maximum(ends - WINDOW, 0)
    averages = (sums[ends] - sums[starts]) / (ends - starts)
    above = np.flatnonzero(returns >= THRESHOLD)
    area = np.trapezoid(returns, steps) / (steps[-1] - steps[0]) if len(steps) > 1 else returns[0]
    return {
        "final_reward": float(averages[-1]), "max_reward": float(averages.max()),
        "steps_to_thr": float(steps[above[0]]) if len(above) else math.nan, "reached_thr": float(len(above) > 0),
        "auc": float(area), "training_steps": float(steps[-1]),
    }  # fmt: skip


def study_rows(study: Study) -> list[dict[str, Any]]:
    """Return a row for every finished run of a study.

    Raises:
        UsageError: a study of another world or agent, or without evaluations.
    """
    rows = []
    for job, table in study.finished:
        if job.config["world"] != "highway" or job.config["agent"] != "PPOLearner":
            raise UsageError(
                f"study {str(study.folder)!r} is of {job.config['agent']} in {job.config['world']!r}, not of "
                "positional encodings on the highway: python -m racer sweep analyse prints its tables"
            )
        for member in job.members:
            values = job.values(member)
            config = {**job.config["agent_config"], **job.config["settings"][member.setting]}
            rollout = int(config["rollout_length"]) * job.num_envs
            rows.append({
                "condition": str(values.get("tag.condition", "")),
                "features": ",".join(job.config["env"]["observation"]["features"]),
                "lr": float(config["actor_lr"]), "epochs": int(config["num_epochs"]),
                "hidden_dim": int(config["hidden_dims"][0]), "batch": rollout // int(config["num_minibatches"]),
                "seed": member.seed, **_scores(table, member.index),
            })  # fmt: skip
    return rows


def _scores(table: Table, member: int) -> dict[str, float]:
    steps, returns = table.series(member, "evaluation/return")
    return scores(steps, returns)


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Read the published format: features, lr, epochs, hidden_dim, batch, final_reward, max_reward, training_steps.

    Further columns (condition, seed) are kept; those of :data:`OWN_NUMBERS` are numbers.

    Raises:
        UsageError: a missing column, or a value that is no number (``file:line``).
    """
    text = read_bytes(path, _BYTES).decode("utf-8", "replace")
    reader = csv.DictReader(io.StringIO(text))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UsageError(f"{path}:1: columns are missing: {', '.join(missing)}")
    rows: list[dict[str, Any]] = []
    for found in reader:
        row: dict[str, Any] = {key: value for key, value in found.items() if key is not None}
        for name in (*COLUMNS[1:], *(name for name in OWN_NUMBERS if name in row)):
            try:
                number = float(row[name])
                whole = name in ("epochs", "hidden_dim", "batch")
                row[name] = int(number) if whole else number
            except (TypeError, ValueError, OverflowError) as error:
                raise UsageError(f"{path}:{reader.line_num}: {name} must be a number, not {row[name]!r}") from error
        rows.append(row)
    if not rows:
        raise UsageError(f"{path}: there are no rows")
    return rows


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the published columns first."""
    columns = list(dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.getvalue().encode())
