"""Ending a run in good order.

The first SIGINT, SIGTERM, SIGUSR1 or SIGHUP asks the loop to stop: it finishes its step, writes a checkpoint and ends
with 128 plus the signal's number (130, 143, 138, 129), as shells and schedulers expect. A second SIGINT ends the
program at once, whatever it is doing: from the first stop signal on SIGINT has its default action, so that neither a
long update nor a checkpoint is waited for. Workers end by themselves.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

__all__ = ["STOP_SIGNALS", "StopSignals"]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class StopSignals:
    """While entered, turns stop signals into a flag.

    A signal that is ignored at the start (SIGHUP under ``nohup``) stays ignored.

    Attributes:
        event: set once a stop was asked for; loops and waiting threads look at it.
        exit_code: 0, or 128 plus the number of the first signal.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.exit_code = 0
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.event.is_set():
            self.exit_code = 128 + number
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            self.event.set()
