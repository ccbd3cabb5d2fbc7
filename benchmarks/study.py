"""How well does each agent drive? Trains the rows of a study with the project's own program and evaluates them alike.

    python benchmarks/study.py risk                                 # CVaR levels and SAC on the sparse highway
    python benchmarks/study.py risk --rows cvar-0.5 --steps 1600000   # one row, further
    python benchmarks/study.py highway                              # PPO and CVaR on the default highway
    python benchmarks/study.py risk --report_only                   # evaluate and print what is there

A row and a training seed make a run, kept under ``--runs``; a run that is there already is resumed, or left alone
where it has its steps, so that a study can be stopped and gone on with. Runs go side by side, ``--jobs`` at a time, one
thread each. Checkpoints at regular numbers of transitions are evaluated on ``--episodes`` held-out seeds that
training never looks at. Prints a table and writes ``benchmarks/results/study_<name>.json``.

An interval is a 95 % Student interval over training seeds where there are at least three, and over episodes, which says
nothing about other training seeds, where there is one; two seeds have a mean and no interval.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import multiprocessing
import os
import platform
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "scripts" / "sim" / "train_highway_states.py"
CONFIGS = ROOT / "scripts" / "sim" / "configs"

COLUMNS = {
    "return": "mean_return", "worst 20 %": "cvar_return", "length": "mean_length", "speed, m/s": "mean_forward_speed",
    "collisions": "collision_rate", "off road": "off_road_rate",
}  # fmt: skip

REWARD = ("collision_reward", "offroad_penalty", "forward_speed_range")

# One thread a run and an evaluation: several share the machine.
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of a study: how its runs are trained."""

    name: str
    flags: tuple[str, ...]
    steps: int
    steps_between: int
    """Transitions between two checkpoints that are evaluated."""
    evaluated_with_default: tuple[str, ...] = ()
    """Keys of the world that evaluations set back to their defaults."""
    starts_from: str | None = None
    """Row whose run of the same training seed it begins with."""


def risk_rows() -> list[Row]:
    """CVaR levels and SAC in the published setting: 30,000 iterations of 8 environments, 8 gradient steps each.

    The last row is risk 0.25 for half as long again, with step sizes that fall from where the others end.
    """
    common = ("--num_envs=8", "--utd_ratio=8", "--batch_size=128", "--start_training=1000")
    config = f"--config={CONFIGS / 'highway_study_config.py'}"
    levels = ("0.0", "0.25", "0.5", "0.8")
    flags = {f"cvar-{level}": (config, f"--config.cvar_risk={level}", *common) for level in levels}
    flags["sac"] = (f"{config}:sac", *common)
    falling = (
        "--config.lr_schedule=linear", "--config.lr_decay_begin=240_000", "--config.lr_decay_steps=120_000",
        "--config.final_lr_fraction=0.1",
    )  # fmt: skip
    longer = Row("cvar-0.25-longer", (*flags["cvar-0.25"], *falling), 360_000, 360_000)
    return [*(Row(name, given, 240_000, 240_000) for name, given in flags.items()), longer]


def highway_rows() -> list[Row]:
    """The default highway with 50 vehicles, where speed is paid for between 30 and 45 m/s.

    Between 20 m/s, the traffic's speed, and 30 m/s going faster earns nothing: the second CVaR row is trained where
    speed pays from 15 m/s on, and evaluated as the others are. The second PPO row goes on from the first where a crash
    costs 15 and nothing above 36 m/s is paid for, the third from the second where it costs 40.
    """
    ppo = (f"--config={CONFIGS / 'highway_ppo_config.py'}", "--num_envs=16")
    cvar = (f"--config={CONFIGS / 'highway_distributional_config.py'}", "--num_envs=8", "--start_training=1000")
    wide = ("--config.cvar_risk=0.25", "--config.env.forward_speed_range=(15.0, 45.0)")
    slower = ("--config.actor_lr=1e-4", "--config.env.forward_speed_range=(20.0, 36.0)")
    careful = (
        *slower, "--config.critic_lr=1e-4", "--config.env.collision_reward=-15", "--config.env.offroad_penalty=-15.0",
    )  # fmt: skip
    cautious = (
        *slower, "--config.critic_lr=2e-4", "--config.env.collision_reward=-40", "--config.env.offroad_penalty=-40.0",
        "--config.lr_decay_transitions=2_000_000",
    )  # fmt: skip
    return [
        Row("ppo", ppo, 8_000_000, 2_000_000),
        Row("ppo-careful", (*ppo, *careful), 4_000_000, 2_000_000, REWARD, "ppo"),
        Row("ppo-cautious", (*ppo, *cautious), 4_000_000, 2_000_000, REWARD, "ppo-careful"),
        Row("cvar", cvar, 60_000, 60_000),
        Row("cvar-wide", (*cvar, *wide), 240_000, 120_000, REWARD),
    ]


STUDIES = {"risk": risk_rows, "highway": highway_rows}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES, help="which comparison")
    parser.add_argument("--rows", nargs="+", default=None, help="only these (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="training seeds (default: 1)")
    parser.add_argument("--steps", type=int, default=None, help="transitions of each run (default: the row's)")
    parser.add_argument("--episodes", type=int, default=1000, help="held-out episodes of an evaluation (default: 1000)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side (default: cores)")
    parser.add_argument("--runs", type=Path, default=ROOT / "policies", help="folder of the runs (default: policies)")
    parser.add_argument("--report_only", action="store_true", help="train nothing, evaluate what is there")
    parser.add_argument("--output", type=Path, default=None, help="default: benchmarks/results/study_<name>.json")
    args = parser.parse_args()
    known = [row.name for row in STUDIES[args.study]()]
    for name in args.rows or ():
        if name not in known:
            parser.error(f"study {args.study!r} has no row {name!r}; it has {', '.join(known)}")
    return args


def run_folder(args: argparse.Namespace, row: str, seed: int) -> Path:
    """Return where the run of the row of that name is kept."""
    return Path(args.runs) / f"study-{args.study}-{row}-seed{seed}"


def depth_of(row: Row, rows: list[Row]) -> int:
    """Return how many of ``rows`` have to be trained one after another before this one."""
    before = [other for other in rows if other.name == row.starts_from]
    return 1 + depth_of(before[0], rows) if before else 0


def train(args: argparse.Namespace, row: Row, seed: int) -> None:
    """Begin a run or go on with it; does nothing where it has its steps."""
    folder, steps = run_folder(args, row.name, seed), args.steps or row.steps
    if (folder / "run.json").exists():
        command = [f"--resume={folder}", f"--max_steps={steps}"]
        if last_step(folder) >= steps:
            return
    else:
        command = [
            *row.flags, f"--policy_dir={folder.parent}", f"--run_name={folder.name}", f"--seed={seed}",
            f"--max_steps={steps}", f"--save_interval={row.steps_between // 4}", "--keep_checkpoints=1000",
            f"--log_interval={row.steps_between // 80}", f"--eval_interval={row.steps_between // 8}",
            "--eval_episodes=20",
        ]  # fmt: skip
        if row.starts_from is not None:
            command.append(f"--start_from={run_folder(args, row.starts_from, seed)}")
    print(f"training {folder.name} to {steps} transitions", flush=True)
    env = {**os.environ, **ONE_THREAD}
    done = subprocess.run([sys.executable, str(PROGRAM), *command, "--progress=false"], env=env, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{folder.name} ended with exit code {done.returncode}")


def metric_lines(folder: Path) -> list[dict[str, Any]]:
    """Read the log of a run."""
    with (folder / "metrics.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def last_step(folder: Path) -> int:
    """Return the step of the newest checkpoint, 0 where there is none."""
    return max((step_of(path) for path in folder.glob("checkpoint_*")), default=0)


def step_of(checkpoint: Path) -> int:
    """Return the step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix("checkpoint_"))


def wall_clock(lines: list[dict[str, Any]], step: int) -> float:
    """Return the seconds of training up to ``step``; a pause between two sessions of a run is left out."""
    times = [line["time"] for line in lines if line["step"] <= step]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    usual = sorted(gaps)[len(gaps) // 2] if gaps else 0.0
    return sum(gap for gap in gaps if gap < 20.0 * max(usual, 1.0))


def is_kept(row: Row, step: int) -> bool:
    """Return whether a checkpoint is one to evaluate: the first at or after a multiple of ``steps_between``."""
    # On-policy runs save after whole rollouts, a little late.
    return step >= row.steps_between and step % row.steps_between < row.steps_between // 8


def measure(episodes: int, row: Row, seed: int, checkpoint: Path) -> dict[str, Any]:
    """Evaluate one checkpoint and join what its training cost."""
    from racer.envs.highway.config import default_config
    from racer.evaluation.checkpoints import load_policy
    from racer.evaluation.episodes import FIRST_UNWATCHED_SEED, evaluate_policy, evaluation_seeds

    trained, step = load_policy(checkpoint), step_of(checkpoint)
    seeds = evaluation_seeds(episodes, FIRST_UNWATCHED_SEED)
    usual = default_config(trained.env_config["scenario"])
    world = {**trained.env_config, **{key: usual[key] for key in row.evaluated_with_default}}
    result = evaluate_policy(trained.policy, trained.params, world, seeds, num_envs=8)
    lines = metric_lines(checkpoint.parent)
    training = [line for line in lines if line["step"] <= step and "training/episodes" in line][-1]
    return {
        "row": row.name,
        "seed": seed,
        "transitions": step,
        "gradient_steps": int(training["training/gradient_steps"]),
        "seconds": wall_clock(lines, step),
        "training_collisions": int(training["training/collisions"]),
        "training_episodes": int(training["training/episodes"]),
        "evaluation": dict(result.aggregate),
        "worst_exploit": max(result.worst_exploits.values()),
    }


def interval(runs: list[dict[str, Any]], key: str) -> tuple[float, float]:
    """Return mean and half width of an evaluation's figure over runs of one row; NaN width where unknown.

    Two seeds have no width: a Student interval of two is wider than the scale.
    """
    from racer.evaluation.metrics import mean_interval

    values = [run["evaluation"][key] for run in runs]
    mean = sum(values) / len(values)
    low = high = math.nan
    if len(values) > 2:
        low, high = mean_interval(values)
    elif len(values) == 1:
        low, high = (runs[0]["evaluation"].get(f"{key}_{bound}", math.nan) for bound in ("low", "high"))
    return mean, (high - low) / 2


def table(runs: list[dict[str, Any]]) -> str:
    """Return the Markdown table: a line for every row and number of transitions."""
    costs = ("seeds", "transitions", "gradient steps", "minutes")
    names = ["row", *costs, *COLUMNS, "training collisions", "worst exploit", "return of each seed"]
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["row"], run["transitions"]), []).append(run)
    for (row, step), group in groups.items():
        minutes = sum(run["seconds"] for run in group) / len(group) / 60
        collisions = sum(run["training_collisions"] for run in group) / len(group)
        cells = [row, str(len(group)), f"{step:,}", f"{group[0]['gradient_steps']:,}", f"{minutes:.1f}"]
        for key in COLUMNS.values():
            digits = "{:.1%}" if key.endswith("_rate") else "{:.1f}"
            mean, half = interval(group, key)
            cells.append(digits.format(mean) + ("" if half != half else " ± " + digits.format(half)))
        worst = max(run["worst_exploit"] for run in group)
        each = ", ".join(f"{run['evaluation']['mean_return']:.1f}" for run in group)
        lines.append("| " + " | ".join([*cells, f"{collisions:,.0f}", f"{worst:.1%}", each]) + " |")
    return "\n".join(lines)


def main() -> int:
    """Train, evaluate, print, write."""
    from racer.evaluation.episodes import FIRST_UNWATCHED_SEED

    args = parse_arguments()
    rows = [row for row in STUDIES[args.study]() if args.rows is None or row.name in args.rows]
    pairs = [(row, seed) for seed in args.seeds for row in rows]
    if not args.report_only:
        args.runs.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(args.jobs) as pool:
            # Rows that begin with another row's networks come after it.
            for depth in sorted({depth_of(row, rows) for row in rows}):
                now = [(row, seed) for row, seed in pairs if depth_of(row, rows) == depth]
                list(pool.map(lambda pair: train(args, *pair), now))
    kept = [
        (row, seed, path)
        for row, seed in pairs
        for path in run_folder(args, row.name, seed).glob("checkpoint_*")
        if is_kept(row, step_of(path))
    ]
    os.environ.update(ONE_THREAD)
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as processes:
        measured = list(processes.map(functools.partial(measure, args.episodes), *zip(*kept, strict=True)))
    measured.sort(key=lambda run: (run["transitions"], [row.name for row in rows].index(run["row"]), run["seed"]))
    print(table(measured))
    output = args.output or ROOT / "benchmarks" / "results" / f"study_{args.study}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        "episodes": args.episodes, "first_seed": FIRST_UNWATCHED_SEED, "jobs": args.jobs,
        "starts_from": {row.name: row.starts_from for row in rows if row.starts_from is not None},
    }  # fmt: skip
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    flags = {row.name: [flag.replace(f"{ROOT}{os.sep}", "") for flag in row.flags] for row in rows}
    everything = {"benchmark": f"study_{args.study}", **machine, "settings": settings, "flags": flags, "runs": measured}
    output.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
