"""Populations in worlds outside the compilation: every member is its own run, to the last bit on a CPU."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from racer.core.checkpoint import latest_valid_checkpoint, read_checkpoint
from racer.core.metrics import MetricsLogger
from racer.sweeps.collected import train_collected
from racer.sweeps.compiled import Stopped
from racer.sweeps.exchange import Exchange
from racer.sweeps.execute import execute
from racer.sweeps.job import Job
from racer.sweeps.manifest import plan_jobs
from racer.sweeps.reader import read_hyperfile
from racer.sweeps.results import job_folder, member_folder, read_table
from racer.training.run import TrainingRun, make_evaluation
from racer.training.saving import CheckpointSaver

SMALL = {"actor_hidden_dims": (8,), "critic_hidden_dims": (8,), "start_training": 24, "batch_size": 8, "utd_ratio": 2}
SCHEDULE = {"log_interval": 24, "eval_interval": 48, "save_interval": 48, "eval_episodes": 1, "num_envs": 2}
JOBS: dict[str, dict[str, Any]] = {
    "sac": {"agent": "sac", "world": "gym:Pendulum-v1", "max_steps": 96, **SMALL},
    "cvar": {"agent": "cvar", "world": "gym:Pendulum-v1", "max_steps": 96, "num_atoms": 11, **SMALL},
    "gru": {
        "agent": "ppo", "world": "tmaze_2", "max_steps": 128, "engine": "collected",
        "memory": {"kind": "gru", "size": 5},
        "hidden_dims": (8,), "value_hidden_dims": (8,), "rollout_length": 16, "num_minibatches": 2, "num_epochs": 2,
    },
}  # fmt: skip
JOBS["transformer"] = {
    **JOBS["gru"], "memory": {"kind": "transformer", "layers": 2, "heads": 2, "embed": 6, "head_size": 3, "length": 8},
    "value_heads": 2, "ld_weight": 0.25,
}  # fmt: skip


def plan(folder: Path, values: dict[str, Any], **swept: str) -> Job:
    marked = "".join(f", {key!r}: {text}" for key, text in swept.items())
    path = folder / "study.py"
    path.write_text(f"hparams = {{'args': [{{**{values!r}{marked}}}]}}\n")
    (job,) = plan_jobs(read_hyperfile(path))
    return job


def alone(job: Job, index: int, folder: Path) -> dict[str, np.ndarray]:
    """Train a member as ``racer train`` would, by itself; return its state."""
    folder.mkdir(parents=True)
    spec = job.spec(job.members[index])
    run = TrainingRun(spec, job.setup(spec))
    logger = MetricsLogger(folder)
    try:
        evaluate = make_evaluation(spec, 1)
        saver = CheckpointSaver(folder, spec, keep=1)
        assert run.run(logger, saver, stop=threading.Event(), evaluate=evaluate, progress=False)
    finally:
        logger.close()
    return run.service.agent.state_arrays()


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return what a run logged, without clocks."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "time" and not k.startswith("speed/")} for line in found]


@pytest.mark.parametrize(
    "kind", ["gru", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("sac", "cvar", "transformer"))]
)
def test_a_member_is_its_own_run_to_the_last_bit(kind: str, tmp_path: Path) -> None:
    job = plan(tmp_path, {**JOBS[kind], **SCHEDULE}, actor_lr="vmapped(1e-3, 3e-3)", seed="vmapped(3, 8)")
    assert len(job.members) == 4
    assert execute(job, tmp_path / "results", quiet=True) == 0
    folder = job_folder(tmp_path / "results", job)
    for index in (1, 2):
        want = alone(job, index, tmp_path / f"alone_{index}")
        path = member_folder(folder, job.members[index])
        got = read_checkpoint(latest_valid_checkpoint(path)).groups["agent"]
        assert sorted(got) == sorted(want)
        for name in want:
            np.testing.assert_array_equal(got[name], want[name], err_msg=name)
        assert lines(path) == lines(tmp_path / f"alone_{index}")
    table = read_table(folder)
    assert set(table.member.tolist()) == {0, 1, 2, 3}
    assert not {name for name in table.metric.tolist() if name.startswith("speed/")}


@pytest.mark.slow
def test_one_batched_update_agrees_to_rounding(tmp_path: Path) -> None:
    """``vmap`` sums in another order: parameters agree to 1e-5 after an update of the CVaR actor-critic."""
    job = plan(tmp_path, {**JOBS["cvar"], **SCHEDULE}, actor_lr="vmapped(1e-3, 3e-3)")
    rng, rows = np.random.default_rng(0), 8
    count = len(job.members)
    shapes = {"observations": (3,), "next_observations": (3,), "actions": (1,), "rewards": (), "masks": (), "dones": ()}
    data = [{k: rng.random((rows, *s), np.float32) for k, s in shapes.items()} for _ in range(count)]
    states = {}
    for batched in (False, True):
        learners = [TrainingRun(job.spec(m), job.setup(job.spec(m))).service.agent for m in job.members]
        exchange = Exchange(learners, range(2), batched=batched)
        with exchange.turn:
            exchange._waiting = {1: (data[1], 2)}
            exchange.update(0, data[0], 2)
        states[batched] = [exchange.state_arrays(index) for index in range(2)]
    for index in range(2):
        for name, want in states[False][index].items():
            np.testing.assert_allclose(states[True][index][name], want, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_stopped_job_goes_on_where_it_was(tmp_path: Path) -> None:
    job = plan(tmp_path, {**JOBS["gru"], **SCHEDULE}, seed="vmapped(3, 8)")
    folder = tmp_path / "broken"
    stop = threading.Event()

    def tell(share: float, line: str) -> None:
        if share >= 0.5:
            stop.set()

    with pytest.raises(Stopped):
        train_collected(job, folder, stop, tell)
    train_collected(job, folder, threading.Event(), lambda share, line: None)
    for index in range(2):
        want = alone(job, index, tmp_path / f"alone_{index}")
        got = read_checkpoint(latest_valid_checkpoint(member_folder(folder, job.members[index]))).groups["agent"]
        for name in want:
            np.testing.assert_array_equal(got[name], want[name], err_msg=name)


@pytest.mark.slow
def test_a_member_that_diverges_leaves_the_others_alone(tmp_path: Path) -> None:
    values = {**JOBS["sac"], **SCHEDULE, "max_nonfinite_updates": 3}
    job = plan(tmp_path, values, critic_lr="vmapped(1e-3, 1e38)")
    assert execute(job, tmp_path / "results", quiet=True) == 0
    folder = job_folder(tmp_path / "results", job)
    table = read_table(folder)
    assert table.series(0, "final/diverged")[1].tolist() == [0.0]
    assert table.series(1, "final/diverged")[1].tolist() == [1.0]
    want = alone(job, 0, tmp_path / "alone")
    got = read_checkpoint(latest_valid_checkpoint(member_folder(folder, job.members[0]))).groups["agent"]
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)
