"""Jobs inside one compilation: interrupted ones go on as if nothing had happened, members are runs."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from racer.__main__ import main
from racer.evaluation.checkpoints import resolve_checkpoint
from racer.plotting.runs import load_run
from racer.sweeps.compiled import Stopped, train_compiled
from racer.sweeps.job import Job
from racer.sweeps.manifest import plan_jobs
from racer.sweeps.reader import read_hyperfile
from racer.sweeps.results import member_folder, read_table, write_results
from racer.training.run_spec import read_run

TEXT = """hparams = {'args': [{'env': 'tmaze_1', 'hidden_size': 4, 'num_envs': 4, 'num_steps': 8, 'lr': '1e-3 1e-2',
    'total_steps': 640, 'seed': 3, 'n_seeds': 2, 'memoryless': True, 'update_log_freq': 2}]}"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    path = tmp_path_factory.mktemp("plan") / "study.py"
    path.write_text(TEXT)
    (found,) = plan_jobs(read_hyperfile(path))
    return found


def test_an_interrupted_job_goes_on_where_it_was(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = threading.Event()
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    want = train_compiled(job, whole, quiet, lambda share, line: None)
    stop, told = threading.Event(), []

    def tell(share: float, line: str) -> None:
        told.append(share)
        if share >= 0.4:
            stop.set()

    with pytest.raises(Stopped):
        train_compiled(job, broken, stop, tell)
    first = len(told)
    got = train_compiled(job, broken, quiet, lambda share, line: told.append(share))
    assert told[first] > told[first - 1]
    assert [row[:3] for row in got] == [row[:3] for row in want]
    np.testing.assert_array_equal([row.value for row in got], [row.value for row in want])
    write_results(broken, job, got)
    table = read_table(broken)
    assert table.series(3, "training/return")[0].tolist() == [64 * k for k in range(1, 11)]
    run = member_folder(broken, job.members[3])
    spec, options = read_run(run)
    assert (spec.seed, spec.agent_config["actor_lr"], options["sweep"]) == (4, 1e-2, job.id)
    assert resolve_checkpoint(str(run), ["policy", "agent"]).name == "checkpoint_640"
    assert load_run(run).curve("training/return") is not None
    # Its environments are not among what is saved, so that another run goes on from its networks.
    assert main(["train", "--resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert "was begun by 'racer sweep'" in error
    assert f"--start_from {run}" in error
