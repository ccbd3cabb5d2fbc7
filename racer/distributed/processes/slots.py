"""The record that the supervisor keeps of one worker process."""

from __future__ import annotations

import socket
import subprocess
import time
from dataclasses import dataclass, field

from racer.distributed.processes.frames import FrameReader, FrameWriter
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
    """

    process: subprocess.Popen[bytes] | None = None
    sock: socket.socket | None = None
    reader: FrameReader = field(default_factory=FrameReader)
    writer: FrameWriter = field(default_factory=FrameWriter)
    watched: int = 0

    def begin(self, process: subprocess.Popen[bytes], sock: socket.socket, max_bytes: int) -> None:
        """Take on a fresh process, whose messages have at most so many bytes."""
        self.process, self.sock = process, sock
        self.reader, self.writer = FrameReader(max_bytes), FrameWriter()
        self.ready, self.cause, self.category = False, None, "error"
        self.last_heard = time.monotonic()

    def has_input(self) -> bool:
        """Whether something that it wrote has not been read."""
        try:
            return self.sock is not None and bool(self.sock.recv(1, socket.MSG_PEEK))
        except (BlockingIOError, ConnectionError):
            return False
