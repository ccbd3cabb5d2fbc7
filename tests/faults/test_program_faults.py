"""Faults injected into the training programs through their real command lines: signals, damage, a full disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from test_training_programs import DISTRIBUTED, ROOT, SMALL, STATES, TINY_DISTRIBUTED, environment, wait_until

from racer.core.checkpoint import latest_valid_checkpoint, list_checkpoints, read_checkpoint
from racer.core.metrics import read_metrics
from racer.faults import harm

WORKERS_GONE_WITHIN = 5.0
ENDLESS = ["--max_steps", "1000000"]


class Program:
    """A training program at work.

    Its errors go to a file, so that they can be read while it runs.
    """

    def __init__(self, folder: Path, program: str, *flags: str, **variables: str) -> None:
        self.errors = folder / "stderr"
        with self.errors.open("w") as errors:
            self.process: subprocess.Popen[str] = subprocess.Popen(
                [sys.executable, f"scripts/sim/{program}", *flags], cwd=ROOT, env={**environment(), **variables},
                text=True, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip

    @property
    def stderr(self) -> str:
        return self.errors.read_text()

    def wait(self, condition: object, seconds: float = 120.0) -> None:
        self.process.stderr = self.errors.open()
        with self.process.stderr:
            wait_until(condition, self.process, seconds)

    def finish(self, timeout: float = 240.0) -> int:
        self.process.communicate(timeout=timeout)
        return self.process.returncode

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def launch(tmp_path_factory):
    """Start programs; whatever is left of them at the end is killed."""
    started: list[Program] = []

    def begin(program: str, *flags: str, **variables: str) -> Program:
        started.append(Program(tmp_path_factory.mktemp("program"), program, *flags, **variables))
        return started[-1]

    yield begin
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate(timeout=10.0)


def place(folder: Path) -> list[str]:
    return ["--policy_dir", str(folder), "--run_name", "run"]


def lines_in(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def logged_steps(run: Path) -> list[int]:
    return [line["step"] for line in read_metrics(run / "metrics.jsonl")]


def arrays(checkpoint: Path) -> dict[str, bytes]:
    groups = read_checkpoint(checkpoint).groups
    return {f"{group}/{name}": value.tobytes() for group, found in groups.items() for name, value in found.items()}


@pytest.mark.slow
def test_a_killed_learner_takes_its_workers_along_and_its_run_goes_on(tmp_path: Path, launch) -> None:
    run = tmp_path / "run"
    program = launch(DISTRIBUTED, *TINY_DISTRIBUTED, *place(tmp_path), *ENDLESS, "--save_interval", "128")
    program.wait(lambda: run.is_dir() and len(list_checkpoints(run)) >= 2)
    shared_memory, workers = set(os.listdir("/dev/shm")), program.workers()
    assert len(workers) == 2
    program.process.kill()
    program.process.wait(timeout=10)
    _, alive = psutil.wait_procs(workers, timeout=WORKERS_GONE_WITHIN)
    assert not alive
    assert set(os.listdir("/dev/shm")) <= shared_memory
    before = read_checkpoint(latest_valid_checkpoint(run))
    resumed = launch(DISTRIBUTED, "--resume", str(run), "--max_steps", str(before.step + 200))
    assert resumed.finish() == 0, resumed.stderr
    after = read_checkpoint(latest_valid_checkpoint(run))
    assert after.step >= before.step + 200
    # Nothing counted was lost, and nothing of the first life can be taken for something of the second.
    first, second = before.metadata["loop"], after.metadata["loop"]
    for name in ("transitions", "updates", "version", "incarnations"):
        assert second[name] > first[name], name
    assert second["episodes"]["total"] > first["episodes"]["total"]
    steps = logged_steps(run)
    assert steps == sorted(set(steps))


def test_a_learner_killed_in_mid_save_goes_on_from_the_checkpoint_before(tmp_path: Path, launch) -> None:
    run = tmp_path / "run"
    program = launch(STATES, *SMALL, *place(tmp_path), *ENDLESS, "--save_interval", "64", "--num_envs", "2")
    program.wait(lambda: run.is_dir() and len(list_checkpoints(run)) >= 2)
    deadline = time.monotonic() + 60.0
    while not stopped_in_mid_save(program, run):
        assert time.monotonic() < deadline
    program.process.kill()
    program.process.wait(timeout=10)
    assert list(run.glob(".unfinished-*"))
    step = read_checkpoint(latest_valid_checkpoint(run)).step
    resumed = launch(STATES, "--resume", str(run), "--max_steps", str(step + 64))
    assert resumed.finish() == 0, resumed.stderr
    assert not list(run.glob(".unfinished-*"))
    assert logged_steps(run) == list(range(64, step + 65, 64))
    assert read_checkpoint(latest_valid_checkpoint(run)).step == step + 64


def stopped_in_mid_save(program: Program, run: Path) -> bool:
    """Stop the program if it is writing a checkpoint; it stays stopped only where the checkpoint is not committed."""
    if not any(run.glob(".unfinished-*")):
        time.sleep(0.0005)
        return False
    program.process.send_signal(signal.SIGSTOP)
    psutil_process, deadline = psutil.Process(program.process.pid), time.monotonic() + 10.0
    while psutil_process.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
    if any((folder / "agent.safetensors").exists() for folder in run.glob(".unfinished-*")):
        return True
    program.process.send_signal(signal.SIGCONT)
    return False


HARMS = {
    "truncated": lambda folder: harm.truncate(folder / "replay.safetensors"),
    "flipped": lambda folder: harm.flip(folder / "agent.safetensors"),
    "deleted": lambda folder: (folder / "policy.safetensors").unlink(),
    "empty": lambda folder: [file.unlink() for file in folder.iterdir()],
}
NAMED = {
    "truncated": "replay.safetensors",
    "flipped": "agent.safetensors",
    "deleted": "policy.safetensors",
    "empty": "has no manifest.json",
}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    """A run of 256 steps with two checkpoints."""
    folder = tmp_path_factory.mktemp("finished")
    program = Program(folder, STATES, *SMALL, *place(folder), "--max_steps", "256", "--save_interval", "128",
                      "--num_envs", "2")  # fmt: skip
    assert program.finish() == 0, program.stderr
    assert [path.name for path in list_checkpoints(folder / "run")] == ["checkpoint_128", "checkpoint_256"]
    return folder / "run"


@pytest.mark.parametrize(
    "harm", ["flipped", *(pytest.param(harm, marks=pytest.mark.slow) for harm in HARMS if harm != "flipped")]
)
def test_a_damaged_checkpoint_is_named_and_what_it_held_is_done_again(
    tmp_path: Path, launch, finished_run: Path, harm: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    HARMS[harm](run / "checkpoint_256")
    resumed = launch(STATES, "--resume", str(run))
    assert resumed.finish() == 0, resumed.stderr
    assert "falling back to an older checkpoint" in resumed.stderr
    assert NAMED[harm] in resumed.stderr
    assert "checkpoint_256" in resumed.stderr
    assert "Traceback" not in resumed.stderr
    assert arrays(run / "checkpoint_256") == arrays(finished_run / "checkpoint_256")
    assert logged_steps(run) == logged_steps(finished_run) == [64, 128, 192, 256]


def test_a_run_without_a_valid_checkpoint_is_refused_in_one_line(tmp_path: Path, launch, finished_run: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    for checkpoint in list_checkpoints(run):
        harm.flip(checkpoint / "policy.safetensors")
    resumed = launch(STATES, "--resume", str(run))
    assert resumed.finish() == 2
    *warnings, last = resumed.stderr.strip().splitlines()
    assert last.startswith("error: no valid checkpoint in ")
    assert "checkpoint_128/policy.safetensors" in last
    assert "checkpoint_256/policy.safetensors" in last
    assert all(line.startswith("WARNING ") for line in warnings)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real file system of 6 MB."""
    try:
        with harm.small_disk(tmp_path / "disk", 6) as folder:
            yield folder
    except harm.NotPossible as error:
        pytest.skip(f"NOT TESTED: {error}")


@pytest.mark.slow
def test_a_full_disk_is_outlived_for_a_while_and_costs_no_checkpoint(small_disk: Path, launch) -> None:
    run = small_disk / "run"
    program = launch(
        STATES, *SMALL, *place(small_disk), *ENDLESS, "--save_interval", "1024", "--num_envs", "2",
        "--replay_buffer_size", "1024", "--keep_checkpoints", "1",
    )  # fmt: skip
    program.wait(lambda: run.is_dir() and list_checkpoints(run))

    def failed(times: int) -> bool:
        harm.fill(small_disk)
        return program.stderr.count("was not written: No space left on device") >= times

    program.wait(lambda: failed(1))
    kept = latest_valid_checkpoint(run)
    (small_disk / harm.FILLER).unlink()
    program.wait(lambda: latest_valid_checkpoint(run) != kept)
    # Nothing of the log is lost either: what did not fit was written later.
    steps = logged_steps(run)
    assert steps == list(range(64, steps[-1] + 1, 64))
    deadline = time.monotonic() + 120.0
    while program.process.poll() is None and time.monotonic() < deadline:
        harm.fill(small_disk)
        time.sleep(0.02)
    assert program.finish(10.0) == 1
    last = program.stderr.strip().splitlines()[-1]
    assert last.startswith("error: no checkpoint could be written ")
    assert last.endswith("No space left on device")
    assert "Traceback" not in program.stderr
    (small_disk / harm.FILLER).unlink()
    assert not list(run.glob(".unfinished-*"))
    step = read_checkpoint(latest_valid_checkpoint(run)).step
    resumed = launch(STATES, "--resume", str(run), "--max_steps", str(step + 64))
    assert resumed.finish() == 0, resumed.stderr


def test_a_second_interrupt_waits_for_nothing(tmp_path: Path, launch) -> None:
    # The learner is in an evaluation that would take hours, and nothing needs to be compiled before it.
    program = launch(
        DISTRIBUTED, *TINY_DISTRIBUTED, *place(tmp_path), *ENDLESS, "--start_training", "100000",
        "--eval_interval", "128", "--eval_episodes", "1000000",
    )  # fmt: skip
    program.wait(lambda: lines_in(tmp_path / "run") >= 1)
    workers = program.workers()
    assert len(workers) == 2
    time.sleep(2.0)
    program.process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert program.process.poll() is None
    program.process.send_signal(signal.SIGINT)
    assert program.finish(5.0) == -signal.SIGINT
    _, alive = psutil.wait_procs(workers, timeout=WORKERS_GONE_WITHIN)
    assert not alive


def test_a_crash_loop_ends_with_its_cause_and_a_checkpoint(tmp_path: Path, launch) -> None:
    run = tmp_path / "run"
    program = launch(DISTRIBUTED, *TINY_DISTRIBUTED, *place(tmp_path), *ENDLESS, "--save_interval", "0",
                     "--max_restarts", "1")  # fmt: skip
    program.wait(lambda: lines_in(run) >= 2)
    deadline = time.monotonic() + 60.0
    while program.process.poll() is None and time.monotonic() < deadline:
        for worker in psutil.Process(program.process.pid).children():
            worker.kill()
        time.sleep(0.2)
    assert program.finish(60.0) == 1
    last = program.stderr.strip().splitlines()[-1]
    assert last.startswith("error: worker ")
    assert "failed 2 times" in last
    assert last.endswith("was killed by SIGKILL")
    assert "Traceback" not in program.stderr
    assert read_checkpoint(latest_valid_checkpoint(run)).step > 0


@pytest.mark.slow
def test_lock_step_runs_agree_bit_for_bit_with_and_without_a_killed_worker(tmp_path: Path, launch) -> None:
    results, goal = [], 2000
    for name, killed in (("a", 0), ("b", 0), ("c", 2)):
        run = tmp_path / name / "run"
        program = launch(DISTRIBUTED, *TINY_DISTRIBUTED, *place(tmp_path / name), "--max_steps", str(goal),
                         "--deterministic")  # fmt: skip
        for victim in range(killed):
            program.wait(lambda run=run, victim=victim: lines_in(run) > 2 * victim)
            workers = program.workers()
            workers[victim % len(workers)].kill()
        assert program.finish() == 0, program.stderr
        checkpoint = latest_valid_checkpoint(run)
        counters = read_checkpoint(checkpoint).metadata["loop"]
        assert counters["worker_failures"] == killed
        about_faults = ("worker_failures", "worker_restarts", "dropped_batches", "incarnations")
        rest = {key: value for key, value in counters.items() if key not in about_faults}
        results.append((checkpoint.name, arrays(checkpoint), json.dumps(rest, sort_keys=True)))
    assert results[0] == results[1]
    assert results[0] == results[2]


BROKEN_TRACKERS = {
    "raises at the start": "def init(**_): raise ConnectionError('tracker is down')",
    "raises later": """
class Run:
    def log(self, values, step): raise ConnectionError('tracker is down')
def init(**_): return Run()
""",
    "blocks for a while": """
import time
def init(**_):
    time.sleep(20.0)
    raise ConnectionError('tracker is down')
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("tracker", BROKEN_TRACKERS)
def test_a_broken_tracker_is_reported_and_the_local_log_is_whole(tmp_path: Path, launch, tracker: str) -> None:
    settings = "class Settings:\n    def __init__(self, **_): pass\n"
    (tmp_path / "wandb.py").write_text(settings + BROKEN_TRACKERS[tracker])
    program = launch(STATES, *SMALL, *place(tmp_path), "--max_steps", "512", "--save_interval", "0", "--num_envs", "2",
                     WANDB_MODE="offline", PYTHONPATH=str(tmp_path))  # fmt: skip
    assert program.finish() == 0, program.stderr
    assert program.stderr.count("tracker is down") == 1
    assert "Traceback" not in program.stderr
    assert logged_steps(tmp_path / "run") == list(range(64, 513, 64))
