"""A signal that asks a program to end is heeded wherever it strikes, and what is under way is undone in peace."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest

from racer.core.ending import Ended, ended_by_signals


class Strikes:
    """Is struck by the signal where Python can pass no exception on."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_end_that_python_swallowed_is_raised_again() -> None:
    passed = False
    with pytest.raises(Ended) as caught, ended_by_signals():
        struck = Strikes()
        del struck
        passed = True
        deadline = time.monotonic() + 20.0
        while time.monotonic() < deadline:
            time.sleep(0.01)
    assert passed, "the exception was not swallowed, so this shows nothing"
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGALRM) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_is_undone_is_not_struck_again() -> None:
    undone = []
    with pytest.raises(Ended), ended_by_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20.0)
        finally:
            time.sleep(0.6)
            with contextlib.suppress(OSError):
                try:
                    raise OSError
                finally:
                    time.sleep(0.6)
            undone.append(True)
    assert undone == [True]


def test_a_timer_of_somebody_else_is_left_alone() -> None:
    def theirs(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGALRM, theirs)
    try:
        with pytest.raises(Ended), ended_by_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20.0)
        assert signal.getsignal(signal.SIGALRM) is theirs
    finally:
        signal.signal(signal.SIGALRM, before)
