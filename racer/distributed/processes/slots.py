"""The record that the supervisor keeps of one worker process."""

from __future__ import annotations

import socket
import subprocess
import time
from dataclasses import dataclass, field

from racer.distributed.processes.frames import FrameReader, FrameWriter
from racer.distributed.progress import Progress, of_process
from racer.distributed.supervision import WorkerRecord

__all__ = ["WorkerSlot"]


@dataclass
class WorkerSlot(WorkerRecord):
    """One worker: its present process, if any, and its record.

    Attributes:
        process: None while it is being replaced.
        sock: our end of its socket, None once it is closed.
        reader: of what it sends.
        writer: of what it is sent.
        watched: selector events that its socket is registered for.
        progress: of the process, until it is ready.
    """

    process: subprocess.Popen[bytes] | None = None
    sock: socket.socket | None = None
    reader: FrameReader = field(default_factory=FrameReader)
    writer: FrameWriter = field(default_factory=FrameWriter)
    watched: int = 0
    progress: Progress | None = None

    def begin(self, process: subprocess.Popen[bytes], sock: socket.socket, max_bytes: int, budget: float) -> None:
        """Take on a fresh process.

        Args:
            process: that was started.
            sock: our end of its socket.
            max_bytes: that a message of it may have.
            budget: processor time (s) that it may take until it is ready.
        """
        self.process, self.sock = process, sock
        self.progress = of_process(process.pid, budget)
        self.reader, self.writer = FrameReader(max_bytes), FrameWriter()
        self.ready, self.cause, self.category = False, None, "error"
        self.last_heard = time.monotonic()

    def silent(self, now: float) -> float:
        """Return the seconds without a sign of life; computing is one at its start, when it cannot give any."""
        silent = now - self.last_heard
        if self.ready or self.sock is None or self.progress is None:
            return silent
        return min(silent, self.progress.silent())

    def has_input(self) -> bool:
        """Whether something that it wrote has not been read."""
        try:
            return self.sock is not None and bool(self.sock.recv(1, socket.MSG_PEEK))
        except (BlockingIOError, ConnectionError):
            return False
