"""The runs of a study: where they are kept, how one is trained, and what it cost."""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from study_rows import Row

__all__ = [
    "COSTS", "ONE_THREAD", "ROOT", "cost", "given_up", "last_step", "metric_lines", "run_folder", "step_of", "train",
    "wall_clock",
]  # fmt: skip

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "scripts" / "sim" / "train_highway_states.py"

COSTS = ("transitions", "gradient_steps", "seconds", "training_collisions", "training_episodes")

ATTEMPTS = 4
"""How often a run is begun at most that does not reach the least of its row; the best of them counts then."""

# One thread a run and an evaluation: several share the machine.
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu",
}  # fmt: skip


def run_folder(args: argparse.Namespace, row: str, seed: int) -> Path:
    """Return where the run of the row of that name is kept."""
    return Path(args.runs) / f"study-{args.study}-{row}-seed{seed}"


def given_up(folder: Path) -> list[Path]:
    """Return the runs in whose place that one was begun again, in order."""
    return [path for n in range(1, ATTEMPTS) if (path := folder.with_name(f"{folder.name}-given-up-{n}")).exists()]


def train(args: argparse.Namespace, row: Row, seed: int) -> None:
    """Begin a run or go on with it; does nothing where it has its steps.

    One that ends below the least of its row is kept under another name and begun again, with the training seed plus a
    thousand times the number of those given up. ``args.steps`` replaces the steps of rows that are compared, not of
    their stages.
    """
    folder = run_folder(args, row.name, seed)
    for number in range(len(given_up(folder)), ATTEMPTS):
        _train_once(args, row, seed, seed + 1000 * number)
        if row.least is None:
            return
        name, least = row.least
        reached = _at_end(folder, name)
        print(f"{folder.name}: {name} {reached:.3f}, at least {least} is asked for", flush=True)
        if reached >= least:
            return
        if number < ATTEMPTS - 1:
            folder.rename(folder.with_name(f"{folder.name}-given-up-{number + 1}"))
    best = max((folder, *given_up(folder)), key=lambda path: _at_end(path, name))
    if best != folder:
        aside = folder.with_name(f"{folder.name}-aside")
        for old, new in ((folder, aside), (best, folder), (aside, best)):
            old.rename(new)


def _at_end(folder: Path, name: str) -> float:
    """Return a figure of a run's log, the mean of its last tenth."""
    values = [line[name] for line in metric_lines(folder) if name in line]
    last = values[-max(1, len(values) // 10) :]
    return float(sum(last) / len(last))


def _train_once(args: argparse.Namespace, row: Row, seed: int, own_seed: int) -> None:
    folder, steps = run_folder(args, row.name, seed), row.steps if row.is_stage else args.steps or row.steps
    if (folder / "run.json").exists():
        command = [f"--resume={folder}", f"--max_steps={steps}"]
        if last_step(folder) >= steps:
            return
    else:
        command = [
            *row.flags, f"--policy_dir={folder.parent}", f"--run_name={folder.name}", f"--seed={own_seed}",
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
    from racer.core.metrics import METRICS_FILE, read_metrics

    return read_metrics(folder / METRICS_FILE)


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


def cost(lines: list[dict[str, Any]], step: int) -> dict[str, Any]:
    """Return what the run of that log had cost at a checkpoint, without the runs that it goes on from."""
    training = [line for line in lines if line["step"] <= step and "training/episodes" in line][-1]
    names = ("gradient_steps", "collisions", "episodes")
    gradient_steps, collisions, episodes = (int(training[f"training/{name}"]) for name in names)
    return dict(zip(COSTS, (step, gradient_steps, wall_clock(lines, step), collisions, episodes), strict=True))
