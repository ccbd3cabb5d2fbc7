"""Jobs in any world: every member is a run of its own, and all share one compiled update."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from racer.core.checkpoint import list_checkpoints, recover_checkpoints
from racer.core.errors import UsageError
from racer.core.metrics import METRICS_FILE, MetricsLogger, read_metrics
from racer.distributed.learner import LearningDiverged
from racer.envs.registry import get_world
from racer.sweeps.compiled import Stopped
from racer.sweeps.exchange import Exchange
from racer.sweeps.job import Job, Member
from racer.sweeps.results import Row, member_folder
from racer.training.run import TrainingRun, make_evaluation
from racer.training.run_spec import write_run
from racer.training.saving import CheckpointSaver, resume_checkpoint

__all__ = ["train_collected"]

_KEPT = 1
_DIVERGED = "final/diverged"


def train_collected(job: Job, folder: Path, stop: threading.Event, tell: Callable[[float, str], None]) -> list[Row]:
    """Train a job to its end; see :func:`racer.sweeps.compiled.train_compiled`."""
    runs = [_begin(job, member, folder) for member in job.members]
    goal = job.schedule.max_steps
    going = [index for index, run in enumerate(runs) if run.step < goal or not run.service.learner.finished_updates]

    def on_update() -> None:
        slowest = min(run.step for run in runs)
        tell(min(slowest / goal, 1.0), f"{slowest:,} transitions of each of {len(runs)} members")

    exchange = Exchange([run.service.agent for run in runs], going, on_update, batched=job.engine == "vmapped")
    halt = threading.Event()
    failures: dict[int, BaseException] = {}
    threads = []
    for index in going:
        runs[index].service.learner.agent = exchange.agent(index)
        arguments = (job, job.members[index], runs[index], folder, exchange, halt, failures)
        threads.append(threading.Thread(target=_train, args=arguments, name=f"member {index}", daemon=True))
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if stop.is_set():
            halt.set()
        next(thread for thread in [*threads] if thread.is_alive() or thread is threads[-1]).join(0.2)
    for error in failures.values():
        if not isinstance(error, LearningDiverged):
            raise exchange.error or error
    if any(run.step < goal for index, run in enumerate(runs) if index not in failures):
        raise Stopped
    return [row for member in job.members for row in _rows(job, member, folder, member.index in failures)]


def _begin(job: Job, member: Member, folder: Path) -> TrainingRun:
    """Build a member's run, from its newest checkpoint where it has one."""
    spec, path = job.spec(member), member_folder(folder, member)
    path.mkdir(parents=True, exist_ok=True)
    recover_checkpoints(path)
    checkpoint = resume_checkpoint(path, spec) if list_checkpoints(path) else None
    run = TrainingRun(spec, job.setup(spec), checkpoint)
    # As `racer train` writes it, so that a member can be evaluated, plotted and gone on with like any run.
    options = {**job.options, "keep_checkpoints": _KEPT, "eval_episodes": _episodes(job), "start_from": None}
    write_run(path, spec, {**options, "program": "racer train", "sweep": job.id})
    return run


def _episodes(job: Job) -> int:
    return int(job.options.get("eval_episodes", 10))


def _train(
    job: Job,
    member: Member,
    run: TrainingRun,
    folder: Path,
    exchange: Exchange,
    halt: threading.Event,
    failures: dict[int, BaseException],
) -> None:
    """Take a member to its end, a turn at a time."""
    path = member_folder(folder, member)
    with exchange.turn:
        metrics = MetricsLogger(path, job.options, truncate_after=run.step)
        try:
            saver = CheckpointSaver(path, run.spec, keep=_KEPT)
            evaluate = make_evaluation(run.spec, _episodes(job))
            run.run(metrics, saver, stop=halt, evaluate=evaluate, progress=False)
        except LearningDiverged as error:
            failures[member.index] = error
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            failures[member.index] = error
            halt.set()
        finally:
            exchange.leave(member.index)
            metrics.close()


def _rows(job: Job, member: Member, folder: Path, diverged: bool) -> list[Row]:
    """Return what a member logged, without times and speeds, and the last of its training metrics as final ones."""
    path = member_folder(folder, member) / METRICS_FILE
    if not path.is_file():
        raise UsageError(f"member {member.index} of job {job.id} has no {METRICS_FILE}: delete its folder, run again")
    names = {metric.name for metric in get_world(job.config["world"]).metrics}
    rows: list[Row] = []
    last: dict[str, tuple[int, float]] = {}
    for line in read_metrics(path):
        step = int(line["step"])
        for name, value in line.items():
            if name in ("step", "time") or name.startswith("speed/") or not _is_number(value):
                continue
            number = math.nan if value is None else float(value)
            rows.append(Row(member, step, name, number))
            if name.startswith("training/") and name.removeprefix("training/") in names:
                last[name.removeprefix("training/")] = (step, number)
    step = max((row.step for row in rows), default=0)
    rows += [Row(member, at, f"final/{name}", math.nan if diverged else v) for name, (at, v) in sorted(last.items())]
    return [*rows, Row(member, step, _DIVERGED, float(diverged))]


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
