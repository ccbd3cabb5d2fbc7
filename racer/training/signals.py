"""Ending a run in good order.

The first SIGINT, SIGTERM, SIGUSR1 or SIGHUP asks the loop to stop: it finishes its step, writes a checkpoint and ends
with 128 plus the signal's number (130, 143, 138, 129), as shells and schedulers expect. A second SIGINT ends the
program at once, whatever it is doing: from the first stop signal on SIGINT has its default action, so that neither a
long update nor a checkpoint is waited for. Workers end by themselves.

Python calls a handler between two of its own instructions only, and compiling an update is one instruction of a minute.
So a thread that the signal itself wakes says at once that it was heard, and ends the program at a second SIGINT that
comes before Python could heed the first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from types import FrameType, TracebackType

from racer.core.terminal import write_line

__all__ = ["STOP_SIGNALS", "StopSignals"]

_FAREWELL = 0

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class StopSignals:
    """While entered, turns stop signals into a flag.

    A signal that is ignored at the start (SIGHUP under ``nohup``) stays ignored.

    Args:
        promise: what the program does when it is asked to stop, said at once on standard error; None says nothing.

    Attributes:
        event: set once a stop was asked for; loops and waiting threads look at it.
        exit_code: 0, or 128 plus the number of the first signal.
    """

    def __init__(self, promise: str | None = None) -> None:
        self.event = threading.Event()
        self.exit_code = 0
        self._promise = promise
        self._previous: dict[signal.Signals, object] = {}
        self._held = contextlib.ExitStack()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
            if self._promise is not None:
                self._held.enter_context(_awake(self._previous, self._promise))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.event.is_set():
            self.exit_code = 128 + number
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            self.event.set()


@contextlib.contextmanager
def _awake(numbers: Collection[int], promise: str) -> Iterator[None]:
    """Let signals wake a thread, unless an event loop has taken that way already."""
    ends = os.pipe()
    os.set_blocking(ends[1], False)
    before = signal.set_wakeup_fd(ends[1], warn_on_full_buffer=False)
    if before != -1:
        signal.set_wakeup_fd(before)
    thread = threading.Thread(target=_acknowledge, args=(ends[0], numbers, promise), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        if before == -1:
            signal.set_wakeup_fd(-1)
        os.write(ends[1], bytes([_FAREWELL]))
        thread.join()
        for end in ends:
            os.close(end)


def _acknowledge(end: int, numbers: Collection[int], promise: str) -> None:
    heard = False
    while True:
        number = os.read(end, 1)[0]
        if number == _FAREWELL:
            return
        if heard and number == signal.SIGINT:
            # Python's own handler has not even begun on the first signal.
            os._exit(128 + number)
        if number in numbers and not heard:
            heard = True
            again = "Ctrl-C again" if number == signal.SIGINT else "Ctrl-C"
            # A progress bar leaves the cursor in its line.
            start = "\n" if sys.stderr is not None and sys.stderr.isatty() else ""
            write_line(f"{start}{signal.Signals(number).name}: {promise}; {again} ends at once", error=True)
