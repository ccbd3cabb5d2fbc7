"""Run folders, strict JSON and the metrics file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from racer.core.checkpoint import CheckpointError, latest_valid_checkpoint, read_checkpoint
from racer.core.errors import UsageError
from racer.core.files import read_json, strict, write_json
from racer.core.metrics import METRICS_FILE, MetricsLogger, read_metrics, wandb_mode
from racer.core.run_dir import check_run_name, check_vacant, check_writable, lock_run, open_run


@pytest.fixture(autouse=True)
def _no_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": np.float32(1.5), "y": float("nan"), "z": [np.inf, (1, np.int64(2))]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1.5, "y": None, "z": [None, [1, 2]]}
    assert os.listdir(tmp_path) == ["a.json"]
    with pytest.raises(UsageError, match=r"b\.json"):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 200, "a b", "-x"])
def test_run_names_cannot_climb(name: str) -> None:
    with pytest.raises(UsageError, match="run name"):
        check_run_name(name)


def test_run_folders(tmp_path: Path) -> None:
    run = open_run(tmp_path, "one", resume=False)
    (run / "x").write_text("")
    with pytest.raises(UsageError, match="--resume"):
        open_run(tmp_path, "one", resume=False)
    assert open_run(tmp_path, "one", resume=True) == run
    with pytest.raises(UsageError, match="no run to resume"):
        open_run(tmp_path, "two", resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        check_writable(tmp_path / "file" / "below", "folder")


@pytest.mark.parametrize("name", ["x" * 300, "y/" * 3_000])
def test_a_long_path_is_one_line(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    check_vacant(folder)
    with pytest.raises(UsageError, match="cannot be written: File name too long"):
        check_writable(folder, "run folder")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        read_checkpoint(folder)
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        latest_valid_checkpoint(folder)


def test_a_start_that_was_killed_at_once_can_be_made_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "tensorboard").mkdir(parents=True)
    for name in ("run.json", ".run.json.abcd1234", ".lock", "metrics.jsonl"):
        (run / name).write_text("")
    check_vacant(run)
    with lock_run(run):
        assert not (run / ".run.json.abcd1234").exists()
    (run / "metrics.jsonl").write_text("{}")
    with pytest.raises(UsageError, match="--resume"):
        check_vacant(run)
    (run / "metrics.jsonl").write_text("")
    (run / "checkpoint_5").mkdir()
    with pytest.raises(UsageError, match="--resume"):
        check_vacant(run)


HOLDER = """
import sys, time
from pathlib import Path
from racer.core.run_dir import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_is_held_by_one_process(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"in use by process {holder.pid};"), lock_run(tmp_path):
            raise AssertionError("locked twice")
        holder.kill()
        holder.wait(timeout=10)
    # A killed process holds nothing, and neither does one that is done.
    for _ in range(2):
        with lock_run(tmp_path):
            assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
            with pytest.raises(UsageError, match=f"process {os.getpid()};"), lock_run(tmp_path):
                raise AssertionError("locked twice")
    with pytest.raises(UsageError, match="cannot be locked"), lock_run(tmp_path / "none"):
        raise AssertionError("locked nothing")


def test_metrics_are_complete_and_cut_on_resume(tmp_path: Path) -> None:
    logger = MetricsLogger(tmp_path)
    for step in (10, 20, 30):
        logger.log(step, {"a/b": np.float32(step), "bad": float("nan")})
    logger.close()
    resumed = MetricsLogger(tmp_path, truncate_after=20)
    resumed.log(30, {"a/b": 3.0})
    resumed.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 40, "a/')
    lines = read_metrics(tmp_path / METRICS_FILE)
    assert [(line["step"], line["a/b"]) for line in lines] == [(10, 10.0), (20, 20.0), (30, 3.0)]
    assert lines[0]["bad"] is None
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_wandb_is_offline_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_mode() is None
    monkeypatch.setenv("WANDB_PROJECT", "p")
    assert wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(UsageError, match="WANDB_API_KEY"):
        wandb_mode()
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(UsageError, match="choose online"):
        wandb_mode()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() is None


def test_a_failing_tracker_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = MetricsLogger(tmp_path)

    class Broken:
        def log(self, step: int, values: dict) -> None:
            raise ConnectionError("unreachable")

        def close(self) -> None:
            raise AssertionError("was left out")

    logger._trackers.append(Broken())
    logger.log(1, {"x": 1.0})
    logger.log(2, {"x": 2.0})
    logger.close()
    assert caplog.text.count("unreachable") == 1
    assert len(read_metrics(tmp_path / METRICS_FILE)) == 2


def test_strict_leaves_plain_values() -> None:
    assert strict({"a": True, "b": "x", "c": None}) == {"a": True, "b": "x", "c": None}
