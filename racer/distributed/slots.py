"""The record that the supervisor keeps of one worker."""

from __future__ import annotations

import socket
import subprocess
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from racer.distributed.config import ServiceConfig
from racer.distributed.frames import FrameReader, FrameWriter

__all__ = ["WorkerHistory", "WorkerSlot"]


@dataclass
class WorkerHistory:
    """What outlives a worker's process, and is saved with a checkpoint.

    Attributes:
        incarnation: number of the next process; distinct for all processes that ever served this worker.
        rounds_done: last lock-step round delivered.
        state: of the worker after that round.
    """

    incarnation: int = 0
    rounds_done: int = 0
    state: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class WorkerSlot:
    """One worker: its present process, if any, and its record.

    Attributes:
        index: of the worker.
        history: what outlives the process.
        process: None while it is being replaced.
        sock: our end of its socket, None once it is closed.
        reader: of what it sends.
        writer: of what it is sent.
        incarnation: number of the present process.
        ready: whether it has taken its first step.
        last_heard: when a message came last (s, monotonic clock).
        retry_at: when the next process may be started.
        failed_at: when it was last in order no more; None while it works.
        failures: when it failed, within the restart window.
        cause: what is known of why it ends.
        category: "error", "usage" or "nonfinite"; the last two end the run.
        pending: its batches (and its predecessors') that the learner has not taken.
        delivered: whether any process of this slot ever delivered a batch.
        watched: selector events that its socket is registered for.
    """

    index: int
    history: WorkerHistory
    process: subprocess.Popen[bytes] | None = None
    sock: socket.socket | None = None
    reader: FrameReader = field(default_factory=FrameReader)
    writer: FrameWriter = field(default_factory=FrameWriter)
    incarnation: int = -1
    ready: bool = False
    last_heard: float = 0.0
    retry_at: float = 0.0
    failed_at: float | None = None
    failures: deque[float] = field(default_factory=deque)
    cause: str | None = None
    category: str = "error"
    pending: int = 0
    delivered: bool = False
    watched: int = 0

    def begin(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        """Take on a fresh process."""
        self.process, self.sock = process, sock
        self.reader, self.writer = FrameReader(), FrameWriter()
        self.ready, self.cause, self.category = False, None, "error"
        self.last_heard = time.monotonic()

    def has_input(self) -> bool:
        """Whether something that it wrote has not been read."""
        try:
            return self.sock is not None and bool(self.sock.recv(1, socket.MSG_PEEK))
        except (BlockingIOError, ConnectionError):
            return False

    def count_failure(self, now: float, config: ServiceConfig) -> tuple[int, int]:
        """Note a failure; return how many there are in the window, and how many are answered with a restart."""
        self.failed_at = self.failed_at or now
        self.failures.append(now)
        while now - self.failures[0] > config.restart_window:
            self.failures.popleft()
        limit = config.max_restarts
        if not self.delivered:
            limit = min(limit, config.max_start_failures - 1)
        return len(self.failures), limit
