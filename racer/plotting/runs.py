"""What a plot reads: runs with their metrics and evaluations, grouped where they differ by the seed only."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from racer.agents import agent_config, agent_names
from racer.core.checkpoint import list_checkpoints
from racer.core.errors import RacerError, UsageError
from racer.core.metrics import METRICS_FILE as RUN_METRICS_FILE
from racer.core.metrics import read_metrics
from racer.core.run_dir import read_json
from racer.envs.registry import DEFAULT_WORLD
from racer.evaluation.report import METRICS_FILE, read_evaluation
from racer.training.past import upgraded_agent_config

__all__ = ["Curve", "Evaluation", "Run", "RunGroup", "group_runs", "has_checkpoint", "load_run", "mean_curve"]

RUN_FILE = "run.json"
_LEARNING = (
    "num_envs", "num_workers", "envs_per_worker", "batch_size", "utd_ratio", "experience_batch_size",
    "learner_update_ratio",
)  # fmt: skip
"""Options of a training program by which runs of one configuration learn differently."""

_SEED_SUFFIX = re.compile(r"[-_](?:seed|s)?[-_]?(\d+)$")


@dataclass(frozen=True)
class Evaluation:
    """An ``evaluation_metrics.json``: where it lies and what it says."""

    path: Path
    document: Mapping[str, Any]

    def returns(self, comparison: str | None = None) -> np.ndarray:
        """Finite returns of the episodes ``[N]``, or of a comparison's ("random")."""
        part = self.document if comparison is None else self.document["comparisons"][comparison]
        values = [episode.get("return") for episode in part["episodes"]]
        return np.array([value for value in values if value is not None], dtype=np.float64)

    @property
    def aggregate(self) -> Mapping[str, Any]:
        """The aggregate; null where a number was not finite."""
        return self.document["aggregate"]


@dataclass(frozen=True)
class Run:
    """A run folder, or a lone evaluation file.

    Attributes:
        path: as given.
        name: the folder's name; of a folder that holds evaluations only, the run that was evaluated.
        seed: of training, or None where nothing says.
        identity: equal for runs that differ by the seed only.
        world: that it was trained in, by name.
        rows: lines of ``metrics.jsonl``, in order.
        evaluations: evaluation files in the folder.
    """

    path: Path
    name: str
    seed: int | None
    identity: str
    world: str
    rows: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Evaluation] = ()

    def curve(self, metric: str) -> Curve | None:
        """Steps and values of a metric, or None where it was never logged as a finite number."""
        points = [(row["step"], row[metric]) for row in self.rows if _is_number(row.get(metric)) and "step" in row]
        if not points:
            return None
        steps, values = np.array(points, dtype=np.float64).T
        order = np.argsort(steps, kind="stable")
        return Curve(steps[order], values[order])

    def metric_names(self) -> set[str]:
        """Names of all finite numbers in the log."""
        return {name for row in self.rows for name, value in row.items() if _is_number(value)} - {"step", "time"}


@dataclass(frozen=True)
class Curve:
    """A line with an optional band: ``[T]`` each."""

    steps: np.ndarray
    values: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ by the seed only."""

    label: str
    runs: Sequence[Run] = field(default_factory=tuple)


def load_run(path: str | os.PathLike[str]) -> Run:
    """Read a run folder or an evaluation file.

    Raises:
        UsageError: there is nothing to plot at ``path``.
    """
    found = Path(os.path.normpath(path))
    if found.is_file():
        evaluation = Evaluation(found, read_evaluation(found))
        return _evaluation_run(found, evaluation)
    if not found.is_dir():
        raise UsageError(f"there is no run at {str(found)!r}")
    rows = read_metrics(found / RUN_METRICS_FILE) if (found / RUN_METRICS_FILE).is_file() else []
    rows = [row for row in rows if isinstance(row, dict)]
    evaluations = [Evaluation(p, read_evaluation(p)) for p in sorted(found.glob(f"**/{METRICS_FILE}"))]
    if not rows and not evaluations and not has_checkpoint(found):
        raise UsageError(
            f"nothing to plot in {str(found)!r}: it has neither {RUN_METRICS_FILE} nor {METRICS_FILE} nor a checkpoint"
        )
    described = _description(found, evaluations)
    seed = described.get("seed", _seed_of_name(found.name))
    name = found.name if rows else _evaluated_run(evaluations) or found.name
    return Run(found, name, seed, _identity(described, name), _world(described), rows, evaluations)


def group_runs(runs: Iterable[Run]) -> list[RunGroup]:
    """Put runs together that differ by the seed only, in the order in which they were first named."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.identity, []).append(run)
    labels = [_label(members) for members in groups.values()]
    return [
        RunGroup(label if labels.count(label) == 1 else f"{label} ({number + 1})", tuple(members))
        for number, (label, members) in enumerate(zip(labels, groups.values(), strict=True))
    ]


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint or a run that holds one."""
    return folder.is_dir() and ((folder / "manifest.json").is_file() or bool(list_checkpoints(folder)))


def mean_curve(curves: Sequence[Curve], confidence: float = 0.95, points: int = 200) -> Curve:
    """Average curves over the steps that all of them reached, with a t interval where there are three or more.

    The band of two reaches from one to the other: their t interval, 12.7 standard errors each way, says nothing.
    Each is interpolated linearly onto one grid; a single curve is returned as it is.
    """
    from racer.evaluation.summary import mean_interval

    if len(curves) == 1:
        return curves[0]
    start = max(curve.steps[0] for curve in curves)
    end = min(curve.steps[-1] for curve in curves)
    if end < start:
        raise UsageError("runs of one group have no steps in common: plot them one by one")
    own = np.unique(np.concatenate([curve.steps for curve in curves]))
    own = own[(own >= start) & (own <= end)]
    grid = own if own.size <= points else np.linspace(start, end, points)
    values = np.stack([np.interp(grid, curve.steps, curve.values) for curve in curves])
    if len(curves) == 2:
        return Curve(grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0))
    bounds = np.array([mean_interval(column, confidence) for column in values.T])
    return Curve(grid, values.mean(axis=0), bounds[:, 0], bounds[:, 1])


def smooth(curve: Curve, share: float) -> Curve:
    """Running mean over ``share`` of the points, centred and shortened at the ends; shares under a point do nothing."""
    half = int(len(curve.values) * share / 2)
    if half < 1:
        return curve
    totals = np.concatenate([[0.0], np.cumsum(curve.values)])
    index = np.arange(len(curve.values))
    left, right = np.maximum(index - half, 0), np.minimum(index + half + 1, len(curve.values))
    return Curve(curve.steps, (totals[right] - totals[left]) / (right - left))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _evaluation_run(path: Path, evaluation: Evaluation) -> Run:
    described = _description(path.parent, [evaluation])
    name = _evaluated_run([evaluation]) or path.parent.name or path.stem
    return Run(path, name, described.get("seed"), _identity(described, name), _world(described), (), (evaluation,))


def _evaluated_run(evaluations: Sequence[Evaluation]) -> str:
    """The run that evaluations are about, where they are all about one; otherwise nothing."""
    files = {(evaluation.document.get("configuration") or {}).get("policy_file") for evaluation in evaluations}
    names = {Path(file).parent.name if isinstance(file, str) else "" for file in files}
    return names.pop() if len(names) == 1 else ""


def _description(folder: Path, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """What a run was made of: from its run.json, else from an evaluation's configuration, else nothing."""
    document: Any = None
    if (folder / RUN_FILE).is_file():
        try:
            document = read_json(folder / RUN_FILE)
        except RacerError:
            document = None
    if isinstance(document, dict) and "agent_config" in document:
        names = ("world", "agent_name", "agent_config", "env_config", "seed")
        found = {"world": DEFAULT_WORLD, **{name: document[name] for name in names if name in document}}
        options = document.get("options")
        known = {name: options[name] for name in _LEARNING if name in options} if isinstance(options, dict) else {}
        return {**found, "options": known} if known else found
    for evaluation in evaluations:
        stored = evaluation.document.get("configuration") or {}
        if stored.get("agent_config"):
            return {
                "world": stored.get("world", DEFAULT_WORLD),
                "agent_name": stored.get("agent_name"),
                "agent_config": stored["agent_config"],
                "env_config": stored.get("env_config"),
                **({"seed": stored["training_seed"]} if stored.get("training_seed") is not None else {}),
            }
    return {}


def _world(described: Mapping[str, Any]) -> str:
    return str(described.get("world", DEFAULT_WORLD))


def _identity(described: Mapping[str, Any], name: str) -> str:
    settings = {key: value for key, value in described.items() if key != "seed"}
    # A run from before a key existed was trained as the key's default says.
    config = agent_config(settings["agent_name"]) if settings.get("agent_name") in agent_names() else None
    if config is not None and isinstance(settings.get("agent_config"), dict):
        known = dataclasses.fields(config)
        defaults = {field.name: field.default for field in known if field.default is not dataclasses.MISSING}
        settings["agent_config"] = {**defaults, **upgraded_agent_config(settings["agent_config"])}
    return json.dumps(settings, sort_keys=True) if settings else _SEED_SUFFIX.sub("", name)


def _seed_of_name(name: str) -> int | None:
    found = _SEED_SUFFIX.search(name)
    return int(found[1]) if found else None


def _label(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        return runs[0].name
    stems = {_SEED_SUFFIX.sub("", run.name) for run in runs}
    stem = stems.pop() if len(stems) == 1 else f"{runs[0].name} and others"
    return f"{stem} ({len(runs)} seeds)"
