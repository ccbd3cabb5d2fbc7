"""The learner's end, wanted or not: workers follow it, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PROGRAM = Path(__file__).with_name("service_program.py")
WORKERS_GONE_WITHIN = 5.0


@pytest.fixture
def program(request):
    """The program with its workers at work, and their process ids."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), request.param], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    line = process.stdout.readline().split()
    while line and "None" in line:
        line = process.stdout.readline().split()
    assert line[0] == "pids"
    workers = [int(pid) for pid in line[1:]]
    assert len(workers) == 2
    assert all(psutil.pid_exists(pid) for pid in workers)
    yield process, workers
    if process.poll() is None:
        process.kill()
    process.communicate(timeout=10.0)


def gone_within(pids, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("program", ["quick", "slow"], indirect=True)
def test_workers_end_with_a_killed_learner(program):
    process, workers = program
    shared_memory = set(os.listdir("/dev/shm"))
    process.kill()
    process.wait(timeout=10.0)
    assert gone_within(workers, WORKERS_GONE_WITHIN)
    assert set(os.listdir("/dev/shm")) <= shared_memory


@pytest.mark.parametrize(
    ("program", "number"), [("quick", signal.SIGINT), ("slow", signal.SIGTERM)], indirect=["program"]
)
def test_a_signal_to_the_whole_group_is_a_clean_end(program, number):
    process, workers = program
    # As a keyboard or a batch system does it: to the learner and to every worker.
    for pid in workers:
        os.kill(pid, number)
    os.killpg(process.pid, number)
    rest, _ = process.communicate(timeout=30.0)
    assert process.returncode == 0
    ended = rest.strip().splitlines()[-1].split()
    assert ended[0] == "ended"
    assert ended[1] == ended[2] != "0"
    assert gone_within(workers, 1.0)
