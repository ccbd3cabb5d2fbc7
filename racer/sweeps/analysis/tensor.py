"""A study as one tensor, and its best settings: the two dictionaries that notebooks of other runners read.

They are written as pickles because that is what those notebooks load; this house never reads one back.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError, unknown_name
from racer.core.files import replace_file
from racer.sweeps.job import Job
from racer.sweeps.results import Table, member_folder
from racer.sweeps.study import Study

__all__ = ["DIMENSIONS", "MEASURES", "best_settings", "parsed_study", "write_pickle"]

DIMENSIONS = ("swept_hparams", "num_update", "num_steps", "seeds")
"""Axes of scores. Returns of one update are pooled over its steps, so the third has length 1."""

MEASURES = ("auc", "final")


def parsed_study(study: Study, *, discounted: bool = False) -> dict[str, Any]:
    """Return a study's scores: one array for each environment, settings of all its jobs first.

    An episode's return stands at the update in which it ended; where none ended the last one is held.

    Raises:
        UsageError: jobs of an environment that differ in seeds or length, or a study without such returns.
    """
    name = "discounted_return" if discounted else "return"
    groups: dict[str, list[tuple[Job, Table]]] = {}
    for job, table in study.finished:
        groups.setdefault(str(job.arguments.get("env", job.config["world"])), []).append((job, table))
    scores = {env: _environment(jobs, name, study.folder) for env, jobs in groups.items()}
    return {
        "envs": list(scores),
        "swept_hyperparams": {env: _swept(jobs) for env, jobs in groups.items()},
        "all_hyperparams": _all(study),
        "dim_ref": list(DIMENSIONS),
        "scores": scores,
        "final_scores": {env: found["final_scores"] for env, found in scores.items()},
        "discounted": discounted,
    }


def best_settings(study: Study, *, discounted: bool = False, measure: str = "auc") -> dict[str, Any]:
    """Return the best setting of each environment, by the mean over seeds and training, or by the final scores.

    Raises:
        UsageError: as :func:`parsed_study`, or an unknown measure.
    """
    if measure not in MEASURES:
        raise unknown_name("measure", measure, MEASURES)
    parsed = parsed_study(study, discounted=discounted)
    best, scores, paths = {}, {}, {}
    for env, found in parsed["scores"].items():
        score = found["scores"] if measure == "auc" else found["final_scores"]
        filled = np.where(np.isfinite(score), score, np.nan)
        with np.errstate(all="ignore"):
            means = np.array([np.nanmean(part) if np.isfinite(part).any() else -np.inf for part in filled])
        place = int(np.argmax(means))
        best[env] = {key: values[place] for key, values in parsed["swept_hyperparams"][env].items()}
        scores[env], paths[env] = score[place], found["fpaths"][place]
    return {
        "hyperparams": best, "scores": scores, "dim_ref": list(DIMENSIONS[1:]), "envs": parsed["envs"],
        "all_hyperparams": parsed["all_hyperparams"], "discounted": discounted, "fpaths": paths,
    }  # fmt: skip


def write_pickle(path: Path, value: Mapping[str, Any]) -> None:
    """Write plain values and arrays for those who load pickles."""
    replace_file(path, pickle.dumps(dict(value), protocol=4))


def _environment(jobs: list[tuple[Job, Table]], name: str, folder: Path) -> dict[str, Any]:
    seeds = jobs[0][0].config["seeds"]
    for job, _ in jobs:
        if job.config["seeds"] != seeds:
            raise UsageError(f"job {job.id} has the seeds {job.config['seeds']}, others {seeds}: no tensor holds both")
    parts, finals, paths = [], [], []
    for job, table in jobs:
        for setting in range(len(job.config["settings"])):
            members = [member for member in job.members if member.setting == setting]
            curves = [_held(table.series(member.index, f"training/{name}")[1]) for member in members]
            last = [table.series(member.index, f"final/{name}")[1] for member in members]
            if any(len(curve) == 0 for curve in [*curves, *last]):
                raise UsageError(f"job {job.id} has no metric {name!r}; its world does not report it")
            parts.append(curves)
            finals.append([float(values[-1]) for values in last])
            root = folder / job.id
            paths.append([os.fspath(member_folder(root, member)) for member in members])
    lengths = {len(curve) for curves in parts for curve in curves}
    if len(lengths) > 1:
        raise UsageError(f"jobs have between {min(lengths)} and {max(lengths)} points: no tensor holds both")
    stacked = np.array(parts, np.float64)
    return {
        "scores": np.moveaxis(stacked, 1, -1)[:, :, None, :],
        "final_scores": np.array(finals, np.float64)[:, None, None, :],
        "fpaths": paths,
    }


def _held(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hold the last value where there is none; NaN before the first."""
    places = np.where(np.isfinite(values), np.arange(len(values)), -1)
    last = np.maximum.accumulate(places) if len(values) else places
    return np.where(last >= 0, values[np.maximum(last, 0)], np.nan) if len(values) else values


def _settings(jobs: list[tuple[Job, Table]]) -> list[dict[str, Any]]:
    return [{**job.arguments, **setting} for job, _ in jobs for setting in job.swept]


def _swept(jobs: list[tuple[Job, Table]]) -> dict[str, list[Any]]:
    """Return, for each key that differs between an environment's settings, its value in each."""
    settings = _settings(jobs)
    keys = dict.fromkeys(key for setting in settings for key in setting if key not in ("seed", "n_seeds"))
    found = {key: [setting.get(key) for setting in settings] for key in keys}
    return {key: values for key, values in found.items() if any(repr(v) != repr(values[0]) for v in values)}


def _all(study: Study) -> dict[str, Any]:
    """Return every key of the study with its value, or with its values where there are several."""
    settings = _settings(study.finished)
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for setting in settings for key in setting):
        values = list({repr(setting[key]): setting[key] for setting in settings if key in setting}.values())
        found[key] = values[0] if len(values) == 1 else values
    return found
