"""What counts as computing, by hand and for a real thread and a real process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from racer.distributed import progress
from racer.distributed.progress import Progress, of_process, of_this_thread


def silence_from_now(seen: Progress) -> float:
    """Return what is told 1.5 s after a reading that has taken in all that was computed until now."""
    time.sleep(0.6)
    seen.silent()
    time.sleep(1.5)
    return seen.silent()


@pytest.mark.parametrize(
    ("share", "silent"),
    [(1.0, 0.0), (0.03, 0.0), (0.002, 60.0), (0.0, 60.0)],
    ids=["busy", "starved", "polls", "hangs"],
)
def test_a_hundredth_of_a_core_is_computing(monkeypatch: pytest.MonkeyPatch, share: float, silent: float) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    seen = Progress(lambda: 7.0 + share * (now[0] - 100.0), budget=1e9)
    for second in range(1, 61):
        now[0] = 100.0 + second
        found = seen.silent()
    assert found == silent


def test_who_is_busy_beyond_its_budget_counts_as_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    seen = Progress(lambda: now[0], budget=20.0)
    found = []
    for second in range(1, 51):
        now[0] = float(second)
        found.append(seen.silent())
    assert found == [0.0] * 20 + [float(second) for second in range(1, 31)]


def test_where_nothing_can_be_told_all_time_is_silence() -> None:
    def untold() -> float:
        raise OSError("no such clock")

    seen = Progress(untold, 10.0)
    time.sleep(0.6)
    assert seen.silent() >= 0.6


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="this system tells no thread's processor time")
def test_another_thread_sees_whether_one_computes() -> None:
    computing, found, end = threading.Event(), [], threading.Event()
    computing.set()

    def work() -> None:
        found.append(of_this_thread(60.0))
        while computing.is_set():
            pass
        end.wait(60.0)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(1.0)
    busy = found[0].silent()
    computing.clear()
    idle = silence_from_now(found[0])
    end.set()
    thread.join()
    assert busy < 0.9
    assert idle > 1.0


@pytest.mark.skipif(sys.platform != "linux", reason="a process's time is read in /proc")
def test_a_process_is_seen_to_compute_until_it_waits() -> None:
    text = "import sys, time\nwhile time.process_time() < 1.0: pass\nprint(flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        seen, busy = of_process(process.pid, 60.0), []
        while process.poll() is None and len(busy) < 2:
            time.sleep(0.5)
            busy.append(seen.silent())
        process.stdout.readline()
        waits = silence_from_now(seen)
    finally:
        process.kill()
        process.communicate()
    assert min(busy) < 0.5
    assert waits > 1.0
