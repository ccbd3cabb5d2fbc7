"""A real SLURM controller runs an array, is told to cancel it, and is given it again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from racer.sweeps.launchers.slurm import SlurmArray, write_array
from racer.sweeps.manifest import plan_jobs, write_manifest
from racer.sweeps.reader import read_hyperfile
from racer.sweeps.results import finished, job_folder

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "tests" / "slurm" / "cluster.sh"
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
MISSING = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name, path=PATH) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=f"LOUD: no SLURM here, {', '.join(MISSING)} missing: "
                       "apt-get install munge slurmctld slurmd slurm-client"),
    pytest.mark.skipif(os.getuid() != 0, reason="LOUD: slurmctld and slurmd are started as root"),
]  # fmt: skip

TEXT = """hparams = {'args': [{'env': 'tmaze_1', 'memoryless': True, 'hidden_size': [2, 3, 4, 5, 6, 7], 'num_envs': 2,
    'num_steps': 8, 'total_steps': 160, 'n_seeds': 2}]}"""


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("slurm")
    for parent in (folder, *folder.parents):
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    port = 20000 + os.getpid() % 20000
    try:
        command = [str(CLUSTER), "start", str(folder), str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr
        yield {**os.environ, "PATH": PATH, "SLURM_CONF": done.stdout.strip(), "PYTHONPATH": str(ROOT)}
    finally:
        subprocess.run([str(CLUSTER), "stop", str(folder)], check=False, timeout=60)


def run(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(words, env=environment, cwd=environment["HERE"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait(environment: dict[str, str], until: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not until():  # type: ignore[operator]
        assert time.monotonic() < deadline, run(environment, "squeue")
        time.sleep(0.5)


def test_an_array_of_six_jobs_is_cancelled_and_submitted_again(slurm: dict[str, str], tmp_path: Path) -> None:
    slurm["HERE"] = str(tmp_path)
    (tmp_path / "study.py").write_text(TEXT)
    jobs = plan_jobs(read_hyperfile(tmp_path / "study.py"))
    assert len(jobs) == 6
    manifest, results, script = tmp_path / "study.jsonl", tmp_path / "results", tmp_path / "array.slurm"
    write_manifest(manifest, jobs)
    array = SlurmArray(jobs_per_task=1, memory="500M", time="10", log_folder=str(tmp_path / "logs"))
    write_array(script, array, "study", manifest, results, len(jobs))

    def done() -> list[str]:
        return [job.id for job in jobs if finished(job_folder(results, job))]

    number = re.search(r"\d+", run(slurm, "sbatch", str(script)))
    assert number is not None
    most = 0

    def two_are_finished() -> bool:
        nonlocal most
        states = run(slurm, "squeue", "--noheader", "--array", "--format=%T").split()
        most = max(most, states.count("RUNNING"))
        return len(done()) >= 2

    wait(slurm, two_are_finished, 300.0)
    run(slurm, "scancel", number[0])
    wait(slurm, lambda: not run(slurm, "squeue", "--noheader").strip(), 90.0)
    first = done()
    assert 2 <= len(first) < 6
    assert most <= 2
    kept = {job.id: (job_folder(results, job) / "DONE").stat().st_mtime_ns for job in jobs if job.id in first}

    run(slurm, "sbatch", str(script))
    wait(slurm, lambda: len(done()) == 6, 400.0)
    wait(slurm, lambda: not run(slurm, "squeue", "--noheader").strip(), 60.0)
    assert {job.id: (job_folder(results, job) / "DONE").stat().st_mtime_ns for job in jobs if job.id in first} == kept
    logs = [(job_folder(results, job) / "log.txt").read_text() for job in jobs]
    assert [log.count("finished after") for log in logs] == [1] * 6
    outputs = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    assert "Traceback" not in outputs
