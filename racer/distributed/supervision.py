"""What every pool of separate workers decides in the same way: who is replaced and when, and what ends the run."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from racer.core.errors import RacerError, UsageError
from racer.distributed.config import ServiceConfig
from racer.distributed.pool import StateLost, WorkerBatch, WorkerHistory
from racer.replay.collector import NonFiniteData

__all__ = ["ErrorReport", "Inbox", "Supervision", "WorkerCrashLoop", "WorkerRecord", "describe_error", "silence"]

_LOG = logging.getLogger("racer.distributed")
_MAX_TRACEBACKS = 100


class WorkerCrashLoop(RacerError):
    """A worker failed more often than restarts are allowed; the message ends with the root cause."""


@dataclass(frozen=True)
class ErrorReport:
    """The last word of a worker that cannot go on.

    Attributes:
        summary: what went wrong, on one line.
        traceback: where.
        category: "error", "usage" or "nonfinite"; the last two end the run.
    """

    summary: str
    traceback: str
    category: str


def describe_error(error: Exception, traceback: str) -> ErrorReport:
    """Say for the learner what ended a worker."""
    category = "usage" if isinstance(error, UsageError) else "error"
    category = "nonfinite" if isinstance(error, NonFiniteData) else category
    summary = str(error) if category != "error" else f"{type(error).__name__}: {error}"
    return ErrorReport(" ".join(summary.split()), traceback, category)


@dataclass
class WorkerRecord:
    """What is kept of one worker, whatever it runs in.

    Attributes:
        index: of the worker.
        history: what outlives it.
        earlier: the history one round before, for a round that the learner gives up.
        incarnation: number of the present one.
        ready: whether it has taken its first step.
        last_heard: when a message came last (s, monotonic clock).
        retry_at: when the next one may be started.
        failed_at: when it was last in order no more; None while it works.
        failures: when it failed, within the restart window.
        cause: what is known of why it ends.
        category: see :class:`ErrorReport`.
        pending: its batches (and its predecessors') that the learner has not taken.
        delivered: whether anyone in this place ever delivered a batch.
    """

    index: int
    history: WorkerHistory
    earlier: WorkerHistory | None = None
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

    def next_incarnation(self) -> None:
        """Count one more start."""
        self.incarnation = self.history.incarnation
        self.history = replace(self.history, incarnation=self.incarnation + 1)

    def delivered_batch(self, batch: WorkerBatch) -> None:
        """Note a batch that waits for the learner; in lock step also that its round is done, and the state after it."""
        self.delivered = True
        self.pending += 1
        if batch.round:
            self.earlier = self.history
            state = {name: value.copy() for name, value in batch.state.items()}
            self.history = replace(self.history, rounds_done=batch.round, state=state)

    def history_after(self, rounds: int) -> WorkerHistory | None:
        """Return the history as it was after so many rounds, if it is known, with the newest incarnation."""
        for history in (self.history, self.earlier):
            if history is not None and history.rounds_done == rounds:
                return replace(history, incarnation=self.history.incarnation)
        return None

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


class Inbox:
    """Batches that wait for the learner, and what ended the pool. One thread puts, another gets."""

    def __init__(self) -> None:
        self._queue: deque[WorkerBatch] = deque()
        self._arrived = threading.Condition()
        self._failure: Exception | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, batch: WorkerBatch) -> None:
        """Append a batch."""
        with self._arrived:
            self._queue.append(batch)
            self._arrived.notify_all()

    def fail(self, error: Exception) -> None:
        """Let every :meth:`get` raise ``error``, or what failed before it."""
        with self._arrived:
            if self._failure is None:
                self._failure = error
            self._arrived.notify_all()

    def get(self, timeout: float) -> WorkerBatch | None:
        """Return the oldest batch, or None after ``timeout`` seconds without one. Raises what ended the pool."""
        with self._arrived:
            self._arrived.wait_for(lambda: bool(self._queue) or self._failure is not None, timeout)
            if self._failure is not None:
                raise self._failure
            return self._queue.popleft() if self._queue else None

    def clear(self) -> int:
        """Drop what waits; return how many batches it was."""
        with self._arrived:
            count = len(self._queue)
            self._queue.clear()
            return count


class Supervision:
    """Counts what happens to workers, and decides between a restart and the end of the run.

    Args:
        config: of the service.

    Attributes:
        counts: restarts, failures, dropped batches.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        self._slowest_recovery = 0.0
        self._seen_tracebacks: set[str] = set()

    def on_ready(self, record: WorkerRecord, now: float) -> None:
        """Note that a worker has taken its first step."""
        record.ready = True
        if record.failed_at is not None:
            self._slowest_recovery = max(self._slowest_recovery, now - record.failed_at)
            record.failed_at = None

    def on_error(self, record: WorkerRecord, report: ErrorReport) -> None:
        """Keep a worker's last word; each kind of traceback is logged once."""
        record.cause, record.category = report.summary, report.category
        if report.summary not in self._seen_tracebacks and len(self._seen_tracebacks) < _MAX_TRACEBACKS:
            self._seen_tracebacks.add(report.summary)
            _LOG.error("worker %d:\n%s", record.index, report.traceback.rstrip())

    def on_failure(self, record: WorkerRecord, cause: str, now: float) -> Exception | None:
        """Set when the worker may be started again, or return what ends the run."""
        config = self.config
        self.counts["failures"] += 1
        cause = f"worker {record.index}: {cause}"
        if record.category == "usage":
            return UsageError(record.cause or cause)
        if record.category == "nonfinite":
            return NonFiniteData(cause)
        count, limit = record.count_failure(now, config)
        if count > limit:
            return WorkerCrashLoop(
                f"worker {record.index} failed {count} times within {config.restart_window:g} s "
                f"(allowed: {limit}); last cause: {cause}"
            )
        delay = min(config.restart_backoff_max, config.restart_backoff * 2.0 ** min(count - 1, 30))
        record.retry_at = now + delay
        _LOG.warning("%s; restarting it in %.2g s (failure %d of %d allowed)", cause, delay, count, limit)
        return None

    def on_start(self, record: WorkerRecord) -> None:
        """Count a worker that begins in the place of one that failed."""
        if record.failures:
            self.counts["restarts"] += 1

    def histories(self, records: Sequence[WorkerRecord], rounds: int) -> list[WorkerHistory]:
        """Return what a later pool needs of each worker; see :meth:`racer.distributed.pool.WorkerPool.state`."""
        if not self.config.deterministic:
            return [record.history for record in records]
        found = [record.history_after(rounds) for record in records]
        whole = [history for history in found if history is not None]
        if len(whole) != len(found):
            raise StateLost(f"not every worker's state after round {rounds} is known")
        return whole

    def metrics(self, queued: int, alive: int) -> dict[str, float]:
        """Return counts since the start, and what is now."""
        return {
            "queue_depth": float(queued),
            "workers_alive": float(alive),
            "worker_restarts": float(self.counts["restarts"]),
            "worker_failures": float(self.counts["failures"]),
            "dropped_batches": float(self.counts["dropped_batches"]),
            "slowest_recovery_seconds": self._slowest_recovery,
        }


def silence(limit: float, ready: bool) -> str:
    """Say that a worker gave no sign of life for so many seconds, and which setting decided it."""
    doing = "in an environment's step or reset (step_timeout)" if ready else "at its start (startup_timeout)"
    return f"gave no sign of life for {limit:g} s {doing}"
