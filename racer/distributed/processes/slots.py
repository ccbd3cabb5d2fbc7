"""The record that the supervisor keeps of one worker."""

from __future__ import annotations

import socket
import subprocess
import time
from collections import deque
from dataclasses import dataclass, field, replace

from racer.distributed.config import ServiceConfig
from racer.distributed.pool import WorkerBatch, WorkerHistory
from racer.distributed.processes.frames import FrameReader, FrameWriter

__all__ = ["WorkerSlot"]


@dataclass
class WorkerSlot:
    """One worker: its present process, if any, and its record.

    Attributes:
        index: of the worker.
        history: what outlives the process.
        earlier: the history one round before, for a round that the learner gives up.
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
    earlier: WorkerHistory | None = None
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

    def begin(self, process: subprocess.Popen[bytes], sock: socket.socket, max_bytes: int) -> None:
        """Take on a fresh process, whose messages have at most so many bytes."""
        self.process, self.sock = process, sock
        self.reader, self.writer = FrameReader(max_bytes), FrameWriter()
        self.ready, self.cause, self.category = False, None, "error"
        self.last_heard = time.monotonic()

    def delivered_round(self, batch: WorkerBatch) -> None:
        """Note that a lock-step round is done, and the worker's state after it."""
        self.earlier = self.history
        state = {name: value.copy() for name, value in batch.state.items()}
        self.history = replace(self.history, rounds_done=batch.round, state=state)

    def history_after(self, rounds: int) -> WorkerHistory | None:
        """Return the history as it was after so many rounds, if it is known, with the newest incarnation."""
        for history in (self.history, self.earlier):
            if history is not None and history.rounds_done == rounds:
                return replace(history, incarnation=self.history.incarnation)
        return None

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
