"""Ending by a signal in order: what is under way is undone, then the exit code says which signal it was."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Ended", "begun", "ended_by_signals", "quiet_start"]

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_AGAIN_SECONDS = 0.25


_asked = 0
"""Number of the signal that asked the program to end."""


class Ended(BaseException):
    """A signal asked the program to end.

    Attributes:
        exit_code: 128 plus the signal's number, as shells and schedulers expect.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def quiet_start(name: str) -> None:
    """End at once and without a traceback at an interrupt that comes while a program imports what it needs.

    Args:
        name: of the calling module; a program that is imported by another one changes nothing.
    """
    if name == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def begun() -> None:
    """Let an interrupt raise KeyboardInterrupt again, after :func:`quiet_start`."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise :class:`Ended`, so that half-written files are removed; a second one kills.

    A signal that is ignored (SIGHUP under ``nohup``), or that somebody handles already, is left as it is. Where Python
    cannot pass an exception on (``__del__``, a callback of the garbage collector) it prints and forgets it: a timer
    raises :class:`Ended` again then, but never while one is being handled.
    """
    mine = []
    if threading.current_thread() is threading.main_thread():
        mine = [number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    for number in mine:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        if mine and signal.getsignal(signal.SIGALRM) is _raise_again:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    global _asked
    signal.signal(number, signal.SIG_DFL)
    _asked = number
    if signal.getsignal(signal.SIGALRM) == signal.SIG_DFL:
        signal.signal(signal.SIGALRM, _raise_again)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS, _AGAIN_SECONDS)
    raise Ended(number)


def _raise_again(number: int, frame: FrameType | None) -> None:
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, Ended):
            # On its way out: what is under way is being undone.
            return
        error = error.__context__
    raise Ended(_asked)
