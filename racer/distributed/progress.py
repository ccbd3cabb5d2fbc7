"""A worker that computes slowly and one that hangs give the same silence; processor time tells them apart."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Progress", "of_process", "of_this_thread"]

_SHARE = 0.01
_INTERVAL = 0.5


class Progress:
    """How long ago something was last seen to compute. One thread asks, now and then.

    Whoever gets less than a hundredth of a core counts as one that does not compute: a loop that waits takes as much.

    Args:
        spent: returns its processor time so far (s); raises OSError where that cannot be told.
        budget: processor time (s) after which it counts as hanging, however busy it is.
    """

    def __init__(self, spent: Callable[[], float], budget: float) -> None:
        self._read = spent
        self._at = self._asked = time.monotonic()
        self._spent = self._now()
        self._last = self._spent + budget

    def silent(self) -> float:
        """Return the seconds since it was last seen to compute."""
        now = time.monotonic()
        if now - self._asked >= _INTERVAL:
            self._asked, spent = now, self._now()
            if spent <= self._last and spent - self._spent >= _SHARE * (now - self._at):
                self._at, self._spent = now, spent
        return now - self._at

    def _now(self) -> float:
        try:
            return self._read()
        except OSError:
            return 0.0


def of_this_thread(budget: float) -> Progress | None:
    """Return the progress of the thread that calls this, for another one to ask; None where the system has none."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return None
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return Progress(lambda: time.clock_gettime(clock), budget)


def of_process(pid: int, budget: float) -> Progress:
    """Return the progress of a child process; one that is not seen to compute where the system has no ``/proc``."""
    path, ticks = Path(f"/proc/{pid}/stat"), os.sysconf("SC_CLK_TCK")

    def spent() -> float:
        # proc_pid_stat(5): the name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
        fields = path.read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    return Progress(spent, budget)
