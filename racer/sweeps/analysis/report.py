"""The report of a study: tables by what was varied, comparisons, the best setting by seeds that did not choose it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from racer.core.errors import UsageError
from racer.core.statistics import bootstrap
from racer.sweeps.analysis.tables import by_key, comparison, overall, varying_keys
from racer.sweeps.early import read_decisions
from racer.sweeps.results import summarise
from racer.sweeps.study import Study

__all__ = ["report"]


def report(
    study: Study,
    metric: str,
    by: Sequence[str] | None = None,
    compare: str | None = None,
    select_seeds: Sequence[int] | None = None,
) -> str:
    """Return what a study says about the last value of a metric.

    Args:
        study: with finished jobs.
        metric: as in ``metrics.parquet``.
        by: keys or columns; None for all keys that vary.
        compare: key whose values are arms.
        select_seeds: seeds that choose the best setting; the other seeds report it.

    Raises:
        UsageError: an unknown key or metric, or no seeds to report with.
    """
    rows = summarise(study.finished)
    total = sum(len(job.members) for job in study.jobs)
    parts = [f"{study.folder.name}: {len(rows)} of {total} members, last value of {metric}"]
    decisions = read_decisions(study.folder)
    if decisions:
        parts.append("Arms were stopped early; their intervals are too narrow for a comparison:\n  "
                     + "\n  ".join(decisions))  # fmt: skip
    keys = varying_keys(rows) if by is None else [_column(rows, key) for key in by]
    parts.append(overall(rows, metric))
    parts += [by_key(rows, key, metric, f"By {key.removeprefix('arg.')}") for key in keys]
    if compare is not None:
        column = _column(rows, compare)
        within = {key: {repr(row.get(column)) for row in rows} for key in varying_keys(rows)}
        others = [key for key in within if key != column and not _follows(rows, key, column)]
        parts.append(comparison(rows, column, metric, [*others, "seed"]))
    if select_seeds is not None:
        parts.append(_selected(rows, metric, set(select_seeds)))
    return "\n\n".join(parts)


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    return f"arg.{key}" if any(f"arg.{key}" in row for row in rows) else key


def _follows(rows: Sequence[Mapping[str, Any]], key: str, column: str) -> bool:
    pairs = {(repr(row.get(column)), repr(row.get(key))) for row in rows}
    return len(pairs) == len({pair[0] for pair in pairs})


def _selected(rows: Sequence[Mapping[str, Any]], metric: str, seeds: set[int]) -> str:
    """Choose the setting by some seeds and report it by the others: what chose it flatters it."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((str(row["job"]), int(row["setting"])), []).append(row)

    def values(group: Sequence[Mapping[str, Any]], chosen: bool) -> np.ndarray:
        found = [row.get(metric) for row in group if (row["seed"] in seeds) is chosen]
        return np.array([value for value in found if isinstance(value, int | float) and np.isfinite(value)], float)

    scored = {name: values(group, True).mean() for name, group in groups.items() if values(group, True).size}
    if not scored:
        raise UsageError(f"no row has one of the seeds {sorted(seeds)} that should choose the best setting")
    best = max(scored, key=lambda name: scored[name])
    others = values(groups[best], False)
    if others.size == 0:
        raise UsageError("every seed chose the best setting, and none is left to report it")
    estimate = bootstrap(others)
    shown = {key.removeprefix("arg."): groups[best][0].get(key) for key in varying_keys(rows)}
    return (
        f"Best setting by the seeds {sorted(seeds)}: {shown}, {scored[best]:.3f} there;\n"
        f"by the {others.size} other seeds {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
    )
