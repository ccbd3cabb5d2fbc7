"""Learning curves of a study: interquartile means over runs, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from racer.core.errors import UsageError
from racer.core.statistics import bootstrap, interquartile_mean
from racer.plotting.style import COLORS, pyplot, save
from racer.sweeps.analysis.tables import varying_keys
from racer.sweeps.results import summarise
from racer.sweeps.study import Study

__all__ = ["draw_curves"]

_POINTS = 60
_MOST = 8


def draw_curves(study: Study, metric: str, by: Sequence[str] | None, path: Path) -> None:
    """Draw a metric over transitions, a line for each value of the keys that vary.

    Args:
        study: with finished jobs.
        metric: as in ``metrics.parquet``.
        by: keys of the file; None for all that vary. With more than eight lines the best eight are drawn.
        path: of the PNG.

    Raises:
        UsageError: no member has such a metric, or the file cannot be written.
    """
    plt = pyplot()
    groups = _curves(study, metric, by)
    if not groups:
        raise UsageError(f"study {study.folder.name!r} has no metric {metric!r} to draw")
    figure, axis = plt.subplots(figsize=(8.0, 4.5))
    best = sorted(groups, key=lambda label: -np.nanmean(groups[label][1][:, -max(1, len(groups[label][0]) // 5) :]))
    for label, color in zip(best[:_MOST], COLORS, strict=False):
        steps, values = groups[label]
        columns = [(x, column[np.isfinite(column)]) for x, column in zip(steps, values.T, strict=True)]
        kept = [(x, bootstrap(column, interquartile_mean)) for x, column in columns if column.size]
        x = [item[0] for item in kept]
        axis.plot(x, [e.value for _, e in kept], color=color, label=f"{label} ({len(values)} runs)")
        axis.fill_between(x, [e.low for _, e in kept], [e.high for _, e in kept], color=color, alpha=0.18, lw=0)
    axis.set_xlabel("transitions")
    axis.set_ylabel(metric)
    more = f", the best {_MOST} of {len(groups)}" if len(groups) > _MOST else ""
    axis.set_title(f"{study.folder.name}: interquartile mean and 95 % interval{more}")
    axis.legend(fontsize=8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(figure, path)
    except OSError as error:
        raise UsageError(f"figure {str(path)!r} cannot be written: {error.strerror or error}") from error


def _curves(study: Study, metric: str, by: Sequence[str] | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return steps ``[P]`` and values ``[N, P]`` of the members of each group, as their mean in equal stretches."""
    rows = summarise(study.finished)
    keys = varying_keys(rows) if by is None else [key if key in rows[0] else f"arg.{key}" for key in by]
    members: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    places = iter(rows)
    for job, table in study.finished:
        for member in job.members:
            row = next(places)
            names = [key.removeprefix("arg.").removeprefix("tag.") for key in keys]
            label = ", ".join(f"{name} {row.get(key)}" for name, key in zip(names, keys, strict=True)) or "all"
            steps, values = table.series(member.index, metric)
            if len(steps):
                members.setdefault(label, []).append((steps, values))
    found = {}
    for label, curves in members.items():
        end = max(int(steps[-1]) for steps, _ in curves)
        edges = np.linspace(0, end, min(_POINTS, max(len(steps) for steps, _ in curves)) + 1)
        found[label] = edges[1:], np.stack([_binned(steps, values, edges) for steps, values in curves])
    return found


def _binned(steps: np.ndarray, values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    places = np.clip(np.searchsorted(edges, steps, side="left") - 1, 0, len(edges) - 2)
    good = np.isfinite(values)
    sums = np.bincount(places[good], values[good], len(edges) - 1)
    counts = np.bincount(places[good], minlength=len(edges) - 1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
