"""How well does each agent drive? Trains the rows of a study with the project's own program and evaluates them alike.

    python benchmarks/study.py risk                                 # CVaR levels and SAC on the sparse highway
    python benchmarks/study.py risk --rows cvar-0.5 --steps 1600000   # one row, further
    python benchmarks/study.py highway                              # PPO on the default highway, in stages
    python benchmarks/study.py levels --seeds 1 2 3 4 5             # one CVaR policy for every risk level, there too
    python benchmarks/study.py encoders --seeds 1 2 3 --episodes 300   # what reads the cars around, in a short training
    python benchmarks/study.py trials --seeds 1 2 3                 # memory from attempt to attempt, with its controls
    python benchmarks/study.py risk --report_only                   # evaluate and print what is there
    python benchmarks/study.py risk --seeds 1 2 3 --output FILE     # keep the figures, beside those already in FILE

A row and a training seed make a run, kept under ``--runs``; a run that is there already is resumed, or left alone
where it has its steps, so that a study can be stopped and gone on with. Runs go side by side, ``--jobs`` at a time, one
thread each. Checkpoints at regular numbers of transitions are evaluated on ``--episodes`` held-out seeds that
training never looks at. Prints a table. With ``--output`` the figures are written as JSON, joined with those of other
runs and checkpoints that the file holds, and the table is of all of them.

What a run cost (transitions, gradient steps, minutes, training collisions) includes the runs that it goes on from and
those that were given up. An interval is a 95 % Student interval over training seeds where there are at least three,
and over episodes, which says nothing about other training seeds, where there is one; two seeds have a mean and no
interval.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from result_file import write_result
from study_rows import LEVEL, STUDIES, Row, stages_before
from study_runs import (
    COSTS,
    ONE_THREAD,
    ROOT,
    cost,
    given_up,
    last_step,
    metric_lines,
    run_folder,
    step_of,
    train,
    wall_clock,
)

COLUMNS = {
    "return": "mean_return", "worst 20 %": "cvar_return", "length": "mean_length", "speed, m/s": "mean_forward_speed",
    "collisions": "collision_rate", "off road": "off_road_rate", "spinning": "spin_share",
}  # fmt: skip

FAST = 35.0
"""m/s; from when on training episodes are faster is reported."""

PLANNER = "observation-planner"
"""Driver of the world whose return others are shown as shares of, where ``benchmarks/drivers.py`` has measured it."""

PLANNED = ("highway", "levels", "encoders")
"""Studies in the world that the planner was measured in."""

FIRST_SEEDS = {"risk": 20_000, "highway": 20_000, "levels": 30_000, "encoders": 30_000, "trials": 30_000}
"""First held-out seed of each study's evaluations."""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES, help="which comparison")
    parser.add_argument("--rows", nargs="+", default=None, help="only these (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="training seeds (default: 1)")
    parser.add_argument("--steps", type=int, default=None, help="transitions of all but stages (default: the row's)")
    parser.add_argument("--episodes", type=int, default=1000, help="held-out episodes of an evaluation (default: 1000)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side (default: cores)")
    parser.add_argument("--runs", type=Path, default=ROOT / "policies", help="folder of the runs (default: policies)")
    parser.add_argument("--report_only", action="store_true", help="train nothing, evaluate what is there")
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write or add to (default: none)")
    args = parser.parse_args()
    rows = STUDIES[args.study]()
    by_name = {row.name: row for row in rows}
    for name in args.rows or ():
        if name not in by_name:
            known = ", ".join(row.name for row in rows if not row.is_stage)
            parser.error(f"study {args.study!r} has no row {name!r}; it has {known}")
        if by_name[name].is_stage:
            after = next(row for row in rows if not row.is_stage and by_name[name] in stages_before(row, rows))
            parser.error(f"row {name!r} is a stage of {after.name!r}, with which it is trained: name that one")
    try:
        kept_results(args)
    except (OSError, ValueError) as error:
        parser.error(f"--output: {error}")
    return args


def is_kept(row: Row, step: int, steps: int | None = None) -> bool:
    """Return whether a checkpoint is one to evaluate: the first at or after a multiple of ``steps_between``.

    Of a run of fewer ``steps`` it is the last one.
    """
    if row.is_stage:
        return False
    if steps is not None and steps < row.steps_between:
        return step >= steps
    # On-policy runs save after whole rollouts, a little late.
    return step in row.also_at or (step >= row.steps_between and step % row.steps_between < row.steps_between // 8)


def fast_from(lines: list[dict[str, Any]], step: int) -> dict[str, Any] | None:
    """Return after what time training episodes are faster than ``FAST`` in every line up to a checkpoint."""
    name = "training/mean_forward_speed"
    since = None
    for line in lines:
        if line["step"] <= step and name in line:
            since = (line["step"] if since is None else since) if line[name] > FAST else None
    return None if since is None else {"transitions": since, "seconds": wall_clock(lines, since)}


def measure(
    episodes: int, first_seed: int, before: list[Path], row: Row, level: float | None, seed: int, checkpoint: Path
) -> dict[str, Any]:
    """Evaluate one checkpoint and join what its training cost, with the runs ``before`` it."""
    from racer.evaluation.checkpoints import load_policy
    from racer.evaluation.episodes import evaluate_policy, evaluation_seeds

    trained, step = load_policy(checkpoint), step_of(checkpoint)
    if level is not None:
        trained = trained.at_risk(level)
    seeds = evaluation_seeds(episodes, first_seed)
    env_config = trained.world.with_defaults(trained.env_config, row.evaluated_with_default)
    result = evaluate_policy(trained.policy, trained.params, trained.world, env_config, seeds)
    lines = metric_lines(checkpoint.parent)
    costs = [*(cost(metric_lines(folder), last_step(folder)) for folder in before), cost(lines, step)]
    return {
        "row": row.line(level),
        "seed": seed,
        **{name: sum(part[name] for part in costs) for name in COSTS},
        "fast_from": None if before else fast_from(lines, step),
        "evaluation": dict(result.aggregate),
        "worst_exploit": max(result.worst_exploits.values()),
    }


def figure(runs: list[dict[str, Any]], key: str) -> str:
    """Return mean and interval of an evaluation's figure over runs of one row, as text.

    Two seeds have no interval: a Student interval of two is wider than the scale.
    """
    from racer.evaluation.summary import mean_interval

    values = [run["evaluation"][key] for run in runs]
    mean = sum(values) / len(values)
    share = key.endswith(("_rate", "_share"))
    text = f"{mean:.1%}" if share else f"{mean:.1f}"
    if len(values) > 2:
        low, high = mean_interval(values)
    elif len(values) == 1 and f"{key}_low" in runs[0]["evaluation"]:
        low, high = (runs[0]["evaluation"][f"{key}_{end}"] for end in ("low", "high"))
    else:
        return text
    if share:
        # A share has no interval symmetric about its mean: none is below 0.
        return f"{text} [{100 * max(low, 0.0):.1f}, {100 * min(high, 1.0):.1f}]"
    return f"{text} ± {(high - low) / 2:.1f}"


def planner_return(study: str) -> float | None:
    """Return the planner's mean return in the study's world, or None where it has not been measured in it.

    The planner's episodes may have other seeds than the study's.
    """
    path = ROOT / "benchmarks" / "results" / "drivers.json"
    if study not in PLANNED or not path.exists():
        return None
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return float(rows[PLANNER]["mean_return"]) if PLANNER in rows else None


def table(runs: list[dict[str, Any]], planner: float | None = None) -> str:
    """Return the Markdown table: a line for every row and number of transitions.

    Args:
        runs: evaluated checkpoints.
        planner: a planner's mean return, of which each line then shows its share.
    """
    costs = ("seeds", "transitions", "gradient steps", "minutes")
    share = () if planner is None else ("share of planner",)
    names = ["row", *costs, *COLUMNS, *share, "training collisions", "worst exploit", "return of each seed"]
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["row"], run["transitions"]), []).append(run)
    for (row, step), group in groups.items():
        mean = {name: sum(run[name] for run in group) / len(group) for name in COSTS}
        cells = [row, str(len(group)), f"{step:,}", f"{mean['gradient_steps']:,.0f}", f"{mean['seconds'] / 60:.1f}"]
        cells += [figure(group, key) for key in COLUMNS.values()]
        if planner is not None:
            cells.append(f"{sum(run['evaluation']['mean_return'] for run in group) / len(group) / planner:.0%}")
        worst = max(run["worst_exploit"] for run in group)
        each = ", ".join(f"{run['evaluation']['mean_return']:.1f}" for run in group)
        cells += [f"{mean['training_collisions']:,.0f}", f"{worst:.1%}", each]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def speeds(runs: list[dict[str, Any]]) -> str:
    """Return from when on each run's training episodes are fast, a line a run that goes on from no other."""
    # A run that is evaluated at several levels has lines that differ in the level only.
    longest = {(run["row"].partition(LEVEL)[0], run["seed"]): run for run in runs}
    return "\n".join(
        f"{row}, training seed {seed}: training episodes above {FAST:g} m/s from {found['transitions']:,} transitions "
        f"({found['seconds']:.0f} s) on"
        for (row, seed), run in longest.items()
        if (found := run["fast_from"]) is not None
    )


def kept_results(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the runs in the file to add to.

    Raises:
        ValueError: it is of another study or another number of episodes.
    """
    if args.output is None or not args.output.exists():
        return []
    document = json.loads(args.output.read_text(encoding="utf-8"))
    if document["benchmark"] != f"study_{args.study}":
        raise ValueError(f"{args.output} holds {document['benchmark']!r}, not study_{args.study}; name another file")
    if document["settings"]["episodes"] != args.episodes:
        found = document["settings"]["episodes"]
        raise ValueError(f"{args.output} is over {found} episodes, not {args.episodes}; name another file")
    return list(document["runs"])


def joined(old: list[dict[str, Any]], new: list[dict[str, Any]], rows: list[Row]) -> list[dict[str, Any]]:
    """Return the runs of both in the table's order; where both have one, the new one."""
    names = [line for row in rows for line in row.lines]
    runs = {(run["transitions"], names.index(run["row"]), run["seed"]): run for run in [*old, *new]}
    return [runs[key] for key in sorted(runs)]


def write(args: argparse.Namespace, rows: list[Row], runs: list[dict[str, Any]]) -> None:
    """Write the figures and how they were obtained."""
    settings = {
        "episodes": args.episodes, "first_seed": FIRST_SEEDS[args.study], "jobs": args.jobs,
        "starts_from": {row.name: row.starts_from for row in rows if row.starts_from is not None},
    }  # fmt: skip
    flags = {row.name: [flag.replace(f"{ROOT}{os.sep}", "") for flag in row.flags] for row in rows}
    write_result(args.output, f"study_{args.study}", {"settings": settings, "flags": flags, "runs": runs})


def paid_before(args: argparse.Namespace, rows: list[Row], seed: int) -> list[Path]:
    """Return the runs that went before the last row's: those of the rows that it goes on from, and those given up."""
    folders = [run_folder(args, row.name, seed) for row in rows]
    return [path for folder in folders for path in (*given_up(folder), folder)][:-1]


def main() -> int:
    """Train, evaluate, print, write."""
    args = parse_arguments()
    all_rows = STUDIES[args.study]()
    rows = [row for row in all_rows if args.rows is None or row.name in args.rows]
    pairs = [(row, seed) for seed in args.seeds for row in rows]
    before = {row.name: stages_before(row, all_rows) for row in rows}
    if not args.report_only:
        args.runs.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(args.jobs) as pool:
            # Rows that begin with another row's networks come after it, which is trained too where it was not.
            needed = [row for row in all_rows if row in rows or any(row in stages for stages in before.values())]
            depths = {row.name: len(stages_before(row, all_rows)) for row in needed}
            for depth in sorted(set(depths.values())):
                now = [(row, seed) for seed in args.seeds for row in needed if depths[row.name] == depth]
                list(pool.map(lambda pair: train(args, *pair), now))
    kept = [
        (paid_before(args, [*before[row.name], row], seed), row, level, seed, path)
        for row, seed in pairs
        for level in row.levels or (None,)
        for path in run_folder(args, row.name, seed).glob("checkpoint_*")
        if is_kept(row, step_of(path), args.steps)
    ]
    if not kept:
        print(f"{args.runs} has no checkpoint to evaluate: train first, without --report_only", file=sys.stderr)
        return 2
    os.environ.update(ONE_THREAD)
    if args.study == "trials":
        import trial_study

        return trial_study.report(args, all_rows, [(folders, row, seed, path) for folders, row, _, seed, path in kept])
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as processes:
        evaluate = functools.partial(measure, args.episodes, FIRST_SEEDS[args.study])
        measured = list(processes.map(evaluate, *zip(*kept, strict=True)))
    runs = joined(kept_results(args), measured, all_rows)
    print(table(runs, planner_return(args.study)))
    print(speeds(runs))
    if args.output is not None:
        write(args, all_rows, runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
