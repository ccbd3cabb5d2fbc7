"""Real jobs as tasks of a real Ray cluster, whose launcher is ended in the middle and begun again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from test_reliability import ROOT, TEXT

from racer.sweeps.job import Job
from racer.sweeps.manifest import plan_jobs, write_manifest
from racer.sweeps.reader import read_hyperfile
from racer.sweeps.results import finished, job_folder, read_table

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))

JOBS = 4
GONE_WITHIN = 60.0


def start(manifest: Path, results: Path, address: str) -> subprocess.Popen[str]:
    words = ["--manifest", str(manifest), "--results", str(results), "--launcher", "ray"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment.pop("RAY_ADDRESS", None)
    if address:
        environment["RAY_ADDRESS"] = address
    return subprocess.Popen(
        [sys.executable, "-m", "racer", "sweep", "run", *words], env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def at_work(manifest: Path) -> list[int]:
    """Ids of the processes that run jobs of the list."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "--index" in words and str(manifest) in words and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


@pytest.fixture
def listed(tmp_path: Path) -> tuple[Path, list[Job]]:
    """A list of four short trainings."""
    (tmp_path / "study.py").write_text(TEXT.replace("SEEDS", f"list(range({JOBS}))"))
    jobs = plan_jobs(read_hyperfile(tmp_path / "study.py"))
    write_manifest(tmp_path / "study.jsonl", jobs)
    return tmp_path / "study.jsonl", jobs


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_launcher_that_is_ended_leaves_no_job_at_work_and_goes_on(
    tmp_path: Path, listed: tuple[Path, list[Job]], number: signal.Signals, code: int
) -> None:
    """Killed, it leaves a cluster behind that others use; stopped in order, its own ends with it."""
    from cluster_kit import Nodes

    manifest, jobs = listed
    results = tmp_path / "results"
    folders = [job_folder(results, job) for job in jobs]
    nodes = Nodes(2) if number == signal.SIGKILL else None
    address = "" if nodes is None else nodes.address
    try:
        launcher = start(manifest, results, address)
        try:
            wait_for(
                lambda: launcher.poll() is not None or (any(map(finished, folders)) and len(at_work(manifest)) > 0), 400
            )
            assert launcher.poll() is None, launcher.communicate(timeout=30)
            assert any(map(finished, folders))
            launcher.send_signal(number)
            output = launcher.communicate(timeout=90)
        finally:
            launcher.kill()
        assert launcher.returncode == code, output
        assert wait_for(lambda: not at_work(manifest), GONE_WITHIN)
        done = {folder: (folder / "DONE").stat().st_mtime_ns for folder in folders if finished(folder)}
        assert 0 < len(done) < JOBS
        assert "Traceback" not in output[1]
        again = start(manifest, results, address)
        output = again.communicate(timeout=400)
        assert (again.returncode, output[1].count("Traceback")) == (0, 0), output
        assert f"{JOBS} of {JOBS} jobs are finished" in output[0]
    finally:
        if nodes is not None:
            nodes.close()
    assert all((folder / "DONE").stat().st_mtime_ns == when for folder, when in done.items())
    for job, folder in zip(jobs, folders, strict=True):
        assert (folder / "log.txt").read_text().count("finished after") == 1
        assert len(read_table(job_folder(results, job)).of(0)) > 0
