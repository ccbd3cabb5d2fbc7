"""A sweep of sixty jobs through twenty SIGKILLs: no row lost, none twice, the table that of an undisturbed sweep."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from racer.sweeps.manifest import plan_jobs, read_manifest, write_manifest
from racer.sweeps.reader import read_hyperfile
from racer.sweeps.results import finished, job_folder, read_table

ROOT = Path(__file__).parents[2]
JOBS, KILLS = 60, 20

TEXT = """hparams = {'args': [{
    'agent': 'ppo', 'world': 'tmaze_1', 'engine': 'collected', 'max_steps': 192, 'num_envs': 2, 'rollout_length': 16,
    'num_minibatches': 1, 'num_epochs': 1, 'hidden_dims': (2,), 'value_hidden_dims': (2,), 'log_interval': 32,
    'eval_interval': 96, 'eval_episodes': 2, 'save_interval': 32, 'seed': SEEDS}]}"""


def start(manifest: Path, results: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "racer", "sweep", "run", "--manifest", str(manifest), "--results", str(results),
               "--devices", "cpu", "--oversub", "3"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_somebody(parent: subprocess.Popen[bytes], kind: str, rng: random.Random) -> bool:
    """SIGKILL the launcher or one of its jobs; says whether anybody was there."""
    try:
        launcher = psutil.Process(parent.pid)
        alive = [child for child in launcher.children() if child.status() != psutil.STATUS_ZOMBIE]
        victims = [launcher] if kind == "launcher" else alive
        if not victims:
            return False
        rng.choice(victims).send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(TEXT.replace("SEEDS", f"list(range({JOBS}))"))
    jobs = plan_jobs(read_hyperfile(tmp_path / "study.py"))
    assert len(jobs) == JOBS
    manifest = tmp_path / "study.jsonl"
    write_manifest(manifest, jobs)
    disturbed, calm, rng = tmp_path / "disturbed", tmp_path / "calm", random.Random(0)
    killed: list[str] = []
    parent = start(manifest, disturbed)
    first_sums: dict[str, bytes] = {}
    while True:
        time.sleep(rng.uniform(0.3, 3.0))
        for job in jobs:
            folder = job_folder(disturbed, job)
            if finished(folder):
                # What is finished is never written again.
                assert first_sums.setdefault(job.id, (folder / "DONE").read_bytes()) == (folder / "DONE").read_bytes()
        # Spread over the sweep, so that jobs are hit in all their stages.
        if len(killed) < KILLS and len(first_sums) >= 2 * len(killed):
            kind = "launcher" if len(killed) % 4 == 3 else "job"
            killed += [kind] if kill_somebody(parent, kind, rng) else []
        if parent.poll() is not None:
            if parent.returncode == 0 and len(first_sums) == JOBS:
                break
            parent = start(manifest, disturbed)
    assert (killed.count("launcher"), killed.count("job")) == (KILLS // 4, KILLS - KILLS // 4)
    assert start(manifest, calm).wait(timeout=1800) == 0
    assert len(read_manifest(disturbed / "study" / "manifest.jsonl")) == JOBS
    for job in jobs:
        mine, theirs = (read_table(job_folder(results, job)) for results in (disturbed, calm))
        assert mine.of(0) == theirs.of(0)
        log = (job_folder(disturbed, job) / "log.txt").read_text()
        assert log.count("finished after") <= 1
    summaries = [(results / "study" / "summary.csv").read_bytes() for results in (disturbed, calm)]
    assert summaries[0] == summaries[1]
    assert summaries[0].count(b"\n") == JOBS + 1
