"""A signal that asks a program to end is heeded wherever it strikes, and what is under way is undone in peace."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from racer.core.ending import Ended, ended_by_signals


@pytest.fixture(autouse=True)
def no_alarm() -> Iterator[None]:
    """The alarm as a program finds it: pytest's own timeout has it otherwise."""
    timer, handler = signal.setitimer(signal.ITIMER_REAL, 0.0), signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


class Strikes:
    """Is struck by the signal where Python can pass no exception on."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass


def ended(call: Callable[[], None]) -> int:
    """The exit code that the program ends with while it makes a call, which must not come to its end."""
    with pytest.raises(Ended) as caught, ended_by_signals():
        call()
    return caught.value.exit_code


def wait() -> None:
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_end_that_python_swallowed_is_raised_again() -> None:
    passed = []

    def swallow() -> None:
        struck = Strikes()
        del struck
        passed.append(True)
        wait()

    assert ended(swallow) == 143
    assert passed, "the exception was not swallowed, so this shows nothing"
    assert signal.getsignal(signal.SIGALRM) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_is_undone_is_not_struck_again() -> None:
    undone = []

    def undo() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            wait()
        finally:
            time.sleep(0.6)
            with contextlib.suppress(OSError):
                try:
                    raise OSError
                finally:
                    time.sleep(0.6)
            undone.append(True)

    assert ended(undo) == 143
    assert undone == [True]


def test_a_timer_of_somebody_else_is_left_alone() -> None:
    def theirs(number: int, frame: object) -> None: ...

    def strike() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        wait()

    signal.signal(signal.SIGALRM, theirs)
    assert ended(strike) == 143
    assert signal.getsignal(signal.SIGALRM) is theirs
