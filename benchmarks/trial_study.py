"""What a study of trial mode measures: the score of every trial, with the controls that a rising score needs.

Every figure is of the same held-out episodes, so that differences are paired. Intervals are 95 % bootstrap intervals
over episodes (Efron 1979), and over training seeds, whole runs at a time, where a row has at least three.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from result_file import write_result
from study_rows import PARTNERS as POLICIES
from study_runs import metric_lines, wall_clock

__all__ = ["CONTROLS", "bootstrap_interval", "differences", "picture", "report", "trial_table"]

PARTNERS = {policy.replace("trials-partner-", "partners "): policy for policy in POLICIES}
"""Shipped policies that drive the six cars ahead, by what a line of the table calls them."""

ADVANCING = {f"{name}, advance": PARTNERS[name] for name in ("partners 0.1", "partners 0.2")}
"""The same with other luck of theirs in every trial."""

CONTROLS = (
    "own", "wiped", "wiped, reward shown", "swapped", "arm redrawn", "scene redrawn", "unseen types", *PARTNERS,
    *ADVANCING,
)  # fmt: skip
"""What is done to the memory, or to what there is to remember, between the trials of an episode, and who drives about.

``wiped`` begins every trial as an episode begins; with ``reward shown`` the observation still tells what the trial
before paid last. ``unseen types`` are those that a row's training never drew.
"""

DRAWN = {"own": "-", "wiped": ":", "swapped": "--", "unseen types": "-."}
"""Controls that a picture shows, and their lines; a row has one colour."""

MEMORIES = ("gru", "transformer")
"""Rows of which a picture shows what becomes of a memory that is wiped or swapped."""

RESAMPLES = 2000

Scores = NDArray[np.float64]
"""``[N, K]``, whether trial k of an episode reached its goal."""


def report(args: Any, rows: Sequence[Any], found: Sequence[tuple[list[Path], Any, int, Path]]) -> int:
    """Evaluate runs, print a table a scene, and write figures and pictures where ``args.output`` says so.

    Args:
        args: of ``benchmarks/study.py``.
        rows: of the study, in order.
        found: folders of the runs before it, row, training seed and checkpoint of every run.
    """
    first = 30_000
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as processes:
        measured = list(processes.map(partial(measure, args.episodes, first), *zip(*found, strict=True)))
    nothing: dict[str, Any] = {"runs": [], "drivers": {}}
    kept = nothing if args.output is None or not args.output.exists() else json.loads(args.output.read_text())
    names = [row.name for row in rows]
    joined = {(names.index(run["row"]), run["seed"]): run for run in [*kept["runs"], *measured]}
    runs = [joined[key] for key in sorted(joined)]
    drivers = {}
    for scene in dict.fromkeys(run["scene"] for run in runs):
        of_scene = [{**run, "row": run["row"].removeprefix(f"{scene}-")} for run in runs if run["scene"] == scene]
        drivers[scene] = kept["drivers"].get(scene) or {
            name: driver_scores(name, scene, args.episodes, first) for name in ("prober", "oracle")
        }
        print(f"\n{scene}\n\n{trial_table(of_scene, drivers[scene])}")
        if args.output is not None:
            picture(of_scene, drivers[scene], args.output.with_name(f"{args.output.stem}_{scene}.png"))
    if args.output is not None:
        root = f"{Path(__file__).resolve().parents[1]}/"
        flags = {row.name: [flag.replace(root, "") for flag in row.flags] for row in rows}
        settings = {"episodes": args.episodes, "first_seed": first, "flags": flags}
        figures = {"settings": settings, "runs": runs, "drivers": drivers}
        write_result(args.output, "study_trials", figures, indent=None)
    return 0


def measure(
    episodes: int, first_seed: int, before: Sequence[Path], row: Any, seed: int, checkpoint: Path
) -> dict[str, Any]:
    """Return what a run scored: ``scores`` ``[N][K]`` under every control; without a memory, its own alone.

    Partners drive on the hidden lane only. What it cost includes the runs ``before`` it.
    """
    from racer.envs.trials.config import ARMS
    from racer.evaluation.checkpoints import load_policy
    from racer.evaluation.memory_controls import MemoryControl, Recorder, Swapped, Wiped

    trained = load_policy(checkpoint)
    policy: Any = trained.policy
    base = trained.world.held_out(trained.world.with_defaults(trained.env_config, row.evaluated_with_default))

    def scores(control: MemoryControl | None = None, **changes: Any) -> list[list[int]]:
        return _scores(policy, trained.params, {**base, **changes}, episodes, first_seed, control)

    recorder = Recorder()
    found = {"own": scores(recorder)}
    if policy.has_memory:
        found["wiped"] = scores(Wiped(), **trained.world.forgetful(base))
        controls: dict[str, MemoryControl] = {"wiped, reward shown": Wiped(), "swapped": Swapped(recorder)}
        found |= {name: scores(control) for name, control in controls.items()}
        found |= {f"{what} redrawn": scores(redraw=what) for what in ("arm", "scene")}
    unseen = [arm for arm in range(ARMS[base["scene"]]) if base["arms"] and arm not in base["arms"]]
    if unseen:
        found["unseen types"] = scores(arms=unseen)
    if policy.has_memory and base["scene"] == "hidden_lane" and not unseen:
        among = {"population": "partners"}
        found |= {name: scores(**among, partners=[path]) for name, path in PARTNERS.items()}
        among["partner_rng"] = "advance"
        found |= {name: scores(**among, partners=[path]) for name, path in ADVANCING.items()}
    logs = [metric_lines(path) for path in (*before, checkpoint.parent)]
    steps = [int(lines[-1]["step"]) for lines in logs]
    return {
        "row": row.name, "scene": base["scene"], "seed": seed, "scores": found, "transitions": sum(steps),
        "minutes": sum(map(wall_clock, logs, steps)) / 60,
    }  # fmt: skip


def driver_scores(name: str, scene: str, episodes: int, first_seed: int) -> list[list[int]]:
    """Return the scores ``[N][K]`` of a driver that nobody trained, at the scene's usual rate of decisions."""
    from racer.evaluation.drivers import find_driver

    world, policy = find_driver(f"driver:trials/{name}")
    return _scores(policy, {}, world.held_out(world.resolve({"scene": scene})), episodes, first_seed, None)


def _scores(
    policy: Any, params: Mapping[str, Any], config: Mapping[str, Any], episodes: int, first_seed: int, control: Any
) -> list[list[int]]:
    from racer.envs.registry import get_world
    from racer.evaluation.episodes import evaluate_policy, evaluation_seeds

    seeds = evaluation_seeds(episodes, first_seed)
    result = evaluate_policy(policy, params, get_world("trials"), config, seeds, num_envs=64, control=control)
    return [
        [int(episode.metrics[f"trial_{k}_score"]) for k in range(int(config["k_scenarios"]))]
        for episode in result.episodes
    ]


def bootstrap_interval(groups: Sequence[NDArray[np.float64]], seed: int = 0) -> tuple[float, float, float]:
    """Return the mean of paired numbers and its 95 % bootstrap interval.

    Args:
        groups: numbers of episodes, an array a training seed. With three or more, seeds are drawn again too.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = rng.integers(len(groups), size=len(groups)) if len(groups) > 2 else range(len(groups))
        means[i] = np.mean([rng.choice(groups[g], len(groups[g])).mean() for g in drawn])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean([group.mean() for group in groups])), float(low), float(high)


def differences(run: Mapping[str, Any]) -> dict[str, Scores]:
    """Return of one run, episode by episode, what is to be judged ``[N]``: gains, and own against wiped and swapped."""
    found = {name: np.asarray(values, np.float64) for name, values in run["scores"].items()}
    gains = {f"gain, {name}": values[:, -1] - values[:, 0] for name, values in found.items()}
    last = {
        f"last trial, own minus {name}": found["own"][:, -1] - found[name][:, -1]
        for name in ("wiped", "swapped")
        if name in found
    }
    return {**gains, **last}


def trial_table(runs: Sequence[Mapping[str, Any]], drivers: Mapping[str, Sequence[Sequence[int]]]) -> str:
    """Return Markdown: the score of every trial and its gain, a line a control; then what each training seed gained.

    Args:
        runs: with ``row``, ``seed``, ``transitions``, ``minutes`` and ``scores``.
        drivers: scores of drivers that nobody trained, by name.
    """
    trials = len(next(iter(drivers.values()))[0])
    names = ["row", "seeds", *(f"trial {k + 1}" for k in range(trials)), f"trial {trials} minus trial 1"]
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    for row in dict.fromkeys(run["row"] for run in runs):
        group = [run for run in runs if run["row"] == row]
        for control in CONTROLS:
            values = [np.asarray(run["scores"][control], np.float64) for run in group if control in run["scores"]]
            if not values:
                continue
            lines.append(_line(row if control == "own" else f"{row}, {control}", values))
    lines += [_line(name, [np.asarray(values, np.float64)]) for name, values in drivers.items()]
    each = []
    for run in runs:
        told = [f"{name} {_figure([values])}" for name, values in differences(run).items()]
        spent = f"{run['transitions']:,} transitions, {run['minutes']:.0f} minutes"
        each.append(f"{run['row']}, training seed {run['seed']} ({spent}): " + "; ".join(told))
    return "\n".join([*lines, "", *each, *_gap(runs, drivers)])


def _line(name: str, values: Sequence[Scores]) -> str:
    per_trial = [_share([scores[:, k] for scores in values]) for k in range(values[0].shape[1])]
    gain = _figure([scores[:, -1] - scores[:, 0] for scores in values])
    return "| " + " | ".join([name, str(len(values)), *per_trial, gain]) + " |"


def _share(groups: Sequence[NDArray[np.float64]]) -> str:
    mean, low, high = bootstrap_interval(groups)
    return f"{100 * mean:.1f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _figure(groups: Sequence[NDArray[np.float64]]) -> str:
    mean, low, high = bootstrap_interval(groups)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def _gap(runs: Sequence[Mapping[str, Any]], drivers: Mapping[str, Sequence[Sequence[int]]]) -> list[str]:
    """Say what share of the gap between no memory and knowing the type each row with a memory closes at the end.

    Rows that were trained on some of the types are judged on those alone, and have another gap.
    """
    runs = [run for run in runs if "unseen types" not in run["scores"]]
    last = {row: np.mean([np.asarray(run["scores"]["own"])[:, -1].mean() for run in runs if run["row"] == row])
            for row in dict.fromkeys(run["row"] for run in runs)}  # fmt: skip
    oracle = float(np.mean(np.asarray(drivers["oracle"])[:, -1]))
    if "memoryless" not in last or oracle <= last["memoryless"]:
        return []
    return [
        f"{row}: {(value - last['memoryless']) / (oracle - last['memoryless']):.0%} of the gap between memoryless "
        f"({last['memoryless']:.1%}) and the scripted oracle ({oracle:.1%}) closed by the last trial"
        for row, value in last.items()
        if row != "memoryless"
    ]


def picture(runs: Sequence[Mapping[str, Any]], drivers: Mapping[str, Sequence[Sequence[int]]], path: Path) -> None:
    """Draw the score of every trial with its interval, a line a row, a control or a driver."""
    from racer.plotting.style import pyplot, save

    figure, axis = pyplot().subplots(figsize=(8.5, 5.0))
    lines: dict[tuple[str, str], list[Scores]] = {}
    for run in runs:
        shown = DRAWN if run["row"] in MEMORIES else ("own", "unseen types")
        for control in (name for name in shown if name in run["scores"]):
            lines.setdefault((run["row"], control), []).append(np.asarray(run["scores"][control], np.float64))
    lines |= {(f"scripted {name}", "own"): [np.asarray(values, np.float64)] for name, values in drivers.items()}
    colours = {row: f"C{number}" for number, row in enumerate(dict.fromkeys(row for row, _ in lines))}
    for number, ((row, control), values) in enumerate(lines.items()):
        found = np.array([bootstrap_interval([scores[:, k] for scores in values]) for k in range(values[0].shape[1])])
        places = np.arange(1, len(found) + 1) + 0.03 * (number - len(lines) / 2)
        errors = np.abs(found[:, 1:] - found[:, :1]).T
        axis.errorbar(
            places, found[:, 0], errors, label=row if control == "own" else f"{row}, {control}", color=colours[row],
            linestyle=DRAWN[control], marker="o", capsize=3,
        )  # fmt: skip
    axis.set(xlabel="trial", ylabel="share of trials that reach the goal")
    axis.set(ylim=(0, 1.02), xticks=range(1, len(found) + 1))
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    save(figure, path)
