"""The run's folder is deleted while the run is at work: it comes back complete, or the run ends and says why."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tensorboardX import event_file_writer

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from runs import contents, differing, logged, make_setup, make_spec

from racer.core.checkpoint import list_checkpoints
from racer.core.errors import RacerError
from racer.core.files import write_json
from racer.core.metrics import MetricsLogger
from racer.training.plan import RunPlan
from racer.training.run import run_training
from racer.training.run_spec import read_run
from racer.training.saving import CheckpointSaver

OPTIONS = {"program": "racer train", "keep_checkpoints": 3, "eval_episodes": 1}


def plan(folder: Path, **changes: Any) -> RunPlan:
    spec = make_spec("SACLearner")
    setup = make_setup(spec, **{"max_steps": 80, "log_interval": 20, "save_interval": 40, **changes})
    return RunPlan(folder, spec, setup, OPTIONS, resumed=False)


def delete(folder: Path) -> None:
    """Delete a folder into which others may write meanwhile."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def when_saved(monkeypatch: pytest.MonkeyPatch, step: int, then: Any, *, before: bool = False) -> None:
    """Do something once, when the checkpoint of a step has been written or is about to be."""
    plain, done = CheckpointSaver.save, threading.Event()

    def save(self: CheckpointSaver, at: int, *arguments: Any, **keywords: Any) -> Any:
        now = at == step and not done.is_set()
        if now and before:
            done.set()
            then()
        found = plain(self, at, *arguments, **keywords)
        if now and not before:
            done.set()
            then()
        return found

    monkeypatch.setattr(CheckpointSaver, "save", save)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run_training(plan(folder), progress=False) == 0
    return folder


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("step", [40, 80])
def test_a_deleted_folder_comes_back_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Path, step: int, before: bool, caplog
) -> None:
    run = tmp_path / "deep" / "run"
    when_saved(monkeypatch, step, lambda: delete(tmp_path / "deep"), before=before)
    assert run_training(plan(run), progress=False) == 0
    assert "was deleted; it is back" in caplog.text
    assert read_run(run) == (plan(run).spec, OPTIONS)
    assert logged(run) == logged(undisturbed)
    assert differing(contents(run, 80), contents(undisturbed, 80)) == []
    if step == 40:  # what TensorBoard had is gone; what is logged from now on is there
        assert list((run / "tensorboard").iterdir())
    again = dataclasses.replace(plan(run, max_steps=100), resumed=True)
    assert run_training(again, progress=False) == 0
    assert list_checkpoints(run)[-1].name == "checkpoint_100"


def test_tensorboard_opens_its_file_again_where_the_folder_went_as_it_did(tmp_path, monkeypatch, caplog) -> None:
    plain, tries = event_file_writer.EventsWriter, []

    def writer(prefix: str) -> Any:
        tries.append(prefix)
        if len(tries) == 1:
            shutil.rmtree(tmp_path / "run" / "tensorboard")
            raise FileNotFoundError(prefix)
        return plain(prefix)

    monkeypatch.setattr(event_file_writer, "EventsWriter", writer)
    (tmp_path / "run").mkdir()
    logger = MetricsLogger(tmp_path / "run")
    logger.log(1, {"training/return": 1.0})
    logger.close()
    assert len(tries) == 2
    assert "left out" not in caplog.text
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"training/return" in file.read_bytes()


def test_a_checkpoint_follows_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    when_saved(monkeypatch, 40, lambda: delete(run))
    seen: list[list[str]] = []
    log = MetricsLogger.log

    def spied(self: MetricsLogger, step: int, values: Any) -> None:
        seen.append([path.name for path in list_checkpoints(run)])
        log(self, step, values)

    monkeypatch.setattr(MetricsLogger, "log", spied)
    assert run_training(plan(run), progress=False) == 0
    assert seen == [[], [], ["checkpoint_60"], ["checkpoint_60"]]


@pytest.mark.parametrize("file", ["run.json", "metrics.jsonl", ".lock"])
def test_a_single_file_comes_back_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Path, file: str
) -> None:
    run = tmp_path / "run"
    when_saved(monkeypatch, 40, (run / file).unlink)
    assert run_training(plan(run), progress=False) == 0
    assert (run / file).exists()
    assert logged(run) == logged(undisturbed)
    assert read_run(run) == (plan(run).spec, OPTIONS)


def test_a_folder_that_cannot_come_back_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = tmp_path / "parent"

    def replaced() -> None:
        delete(parent)
        parent.write_text("a file where the folder of runs was")

    when_saved(monkeypatch, 40, replaced)
    with pytest.raises(RacerError, match=r"was deleted and cannot be resumed: (Not a directory|File exists)"):
        run_training(plan(parent / "run"), progress=False)


def test_another_run_that_took_the_name_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"

    def taken() -> None:
        delete(run)
        run.mkdir()
        write_json(run / "run.json", {"another": "run"})

    when_saved(monkeypatch, 40, taken)
    with pytest.raises(RacerError, match="cannot be resumed: another run has its name now"):
        run_training(plan(run), progress=False)
    assert json.loads((run / "run.json").read_text()) == {"another": "run"}
    assert not list_checkpoints(run)
