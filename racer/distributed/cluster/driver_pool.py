"""A pool of Ray actors behind a process that is Ray's driver, and that may be lost.

What the learner counts and what another driver needs to go on is kept here: batches that wait, each worker's history,
the newest parameters. A driver that ends, or that finds the cluster lost, is followed by another one as soon as a
cluster answers at the address.
"""

from __future__ import annotations

import contextlib
import json
import logging
import select
import subprocess
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import cloudpickle

from racer.core.errors import RacerError, UsageError
from racer.distributed.cluster.connection import ClusterLost, reach
from racer.distributed.cluster.driver import PROGRAM, Join, Work, error_from_bytes
from racer.distributed.config import BackendConfig
from racer.distributed.pool import Parameters, PoolFactory, PoolTask, WorkerBatch, WorkerHistory
from racer.distributed.processes.frames import BrokenFrame, Frame, FrameReader, FrameWriter, Kind
from racer.distributed.processes.launch import describe_exit, kill_process, start_process
from racer.distributed.processes.messages import batch_from_bytes, parameters_to_bytes
from racer.distributed.supervision import Inbox, Supervision, WorkerRecord

__all__ = ["Driver", "DriverPool", "driven"]

_LOG = logging.getLogger("racer.distributed")
_TICK = 0.1
_LATE_TICK = 0.5
_JOIN_LIMIT = 180.0
_SILENCE = 60.0
_RETRY = 1.0
_END_GRACE = 10.0
_LAST_WORDS = 4096
_COUNTED = {"worker_restarts": "restarts", "worker_failures": "failures", "dropped_batches": "dropped_batches"}


class Driver:
    """Ray's driver process, from the learner's side.

    Args:
        join: the cluster.
    """

    def __init__(self, join: Join) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process, self._socket = start_process(PROGRAM, self._words)
        self._reader, self._writer, self._lock = FrameReader(), FrameWriter(), threading.Lock()
        self.send(Kind.START, cloudpickle.dumps(join))

    def send(self, kind: Kind, body: bytes | bytearray = b"") -> None:
        """Queue a frame and write what can be written without waiting. Any thread may."""
        with self._lock:
            self._writer.push(kind, body)
            self._flush()

    def receive(self, timeout: float) -> Frame | None:
        """Return a frame, or None after some seconds without a whole one; writes what waits meanwhile.

        Raises:
            EOFError: the process is gone.
        """
        select.select([self._socket], [self._socket] if self._writer.pending else [], [], timeout)
        with self._lock:
            self._flush()
        return self._reader.read(self._socket)

    def joined(self, until: Callable[[], bool]) -> Driver:
        """Wait until the process has joined the cluster.

        Args:
            until: says when there is no more waiting.

        Raises:
            UsageError: it could not.
            ClusterLost: it ended, or took too long.
        """
        try:
            while (frame := self.receive(_TICK)) is None or frame.kind != Kind.READY:
                if frame is not None and frame.kind == Kind.ERROR:
                    raise error_from_bytes(frame.body)
                if until():
                    raise ClusterLost("Ray's driver had not joined the cluster in time")
        except EOFError as error:
            raise ClusterLost(self.last_words()) from error
        return self

    def last_words(self) -> str:
        """Say how the process ended, with the last line that it wrote."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_GRACE)
        code = self.process.poll()
        size = self._words.seek(0, 2)
        self._words.seek(max(0, size - _LAST_WORDS))
        lines = [line for line in self._words.read().decode(errors="replace").splitlines() if line.strip()]
        said = f": {lines[-1].strip()[:200]}" if lines and code != 0 else ""
        return f"Ray's driver process {'closed its connection' if code is None else describe_exit(code)}{said}"

    def close(self, grace: float = 0.0) -> None:
        """End the process, killing it if it has not ended by itself in time. Idempotent."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        if self.process.poll() is None:
            kill_process(self.process)
            self.process.wait()
        self._socket.close()
        self._words.close()

    def _flush(self) -> None:
        # Reading notices that the process is gone; what it wrote before is still in the socket.
        with contextlib.suppress(EOFError):
            self._writer.flush(self._socket)


@contextlib.contextmanager
def driven(backend: BackendConfig, workers: int) -> Iterator[PoolFactory]:
    """Join a cluster through a driver, and give what makes the pool there.

    Args:
        backend: the cluster.
        workers: that it must have room for.

    Raises:
        UsageError: the cluster cannot be joined, or is too small.
        ClusterLost: Ray's driver ended before it had joined.
    """
    reach(backend.ray_address)
    level = _LOG.getEffectiveLevel()
    idle = [Driver(Join(backend, workers, level))]
    limit = time.monotonic() + _JOIN_LIMIT
    try:
        idle[0].joined(lambda: time.monotonic() > limit)

        def make(task: PoolTask, histories: Sequence[WorkerHistory]) -> DriverPool:
            return DriverPool(task, histories, join=Join(backend, 0, level), driver=idle.pop() if idle else None)

        yield make
    finally:
        for driver in idle:
            driver.send(Kind.STOP)
            driver.close(_END_GRACE)


class DriverPool:
    """Actors of a cluster, through Ray's driver. See :class:`racer.distributed.pool.WorkerPool`.

    Args:
        task: what the workers do.
        histories: where each worker goes on.
        join: the cluster, for drivers to come.
        driver: that has joined already; the pool ends it.
    """

    def __init__(
        self, task: PoolTask, histories: Sequence[WorkerHistory], *, join: Join, driver: Driver | None = None
    ) -> None:
        self.config, self._task, self._join = task.config, task, join
        self._records = [WorkerRecord(index, history) for index, history in enumerate(histories)]
        self._supervision = Supervision(task.config)
        self._inbox = Inbox()
        # Guards the driver, the credits and the parameters: another driver takes all of them over at once.
        self._lock = threading.Lock()
        self._driver, self._working = driver, False
        self._parameters: bytearray | None = None
        self._told: dict[str, float] = {}
        self._pids: list[int | None] = [None] * len(histories)
        self._earlier: Counter[str] = Counter()
        self._losses: deque[float] = deque()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._started = False

    def start(self) -> None:
        """Hand the work to the driver and return."""
        if self._started:
            raise RuntimeError("a pool runs once")
        self._started = True
        self._thread = threading.Thread(target=self._run, name="cluster-driver", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End every worker and the driver. Idempotent."""
        thread, self._thread = self._thread, None
        self._stopping.set()
        if thread is not None:
            thread.join()
            self._earlier["dropped_batches"] += self._inbox.clear()
        if self._driver is not None:
            self._driver.close()

    def get(self, timeout: float) -> WorkerBatch | None:
        """Return the oldest batch or None; taking it gives its worker a credit. Raises what ended the pool."""
        batch = self._inbox.get(timeout)
        if batch is not None:
            with self._lock:
                self._records[batch.worker].pending -= 1
                if self._working and self._driver is not None:
                    self._driver.send(Kind.ACKNOWLEDGE, str(batch.worker).encode())
        return batch

    def publish(self, parameters: Parameters) -> None:
        """Offer to every worker, and to those started later."""
        block = parameters_to_bytes(parameters)
        with self._lock:
            self._parameters = block
            if self._working and self._driver is not None:
                self._driver.send(Kind.PARAMETERS, block)

    def state(self, rounds: int) -> list[WorkerHistory]:
        """Return what a later pool needs of each worker; see :class:`racer.distributed.pool.WorkerPool`."""
        return self._supervision.histories(self._records, rounds)

    def metrics(self) -> dict[str, float]:
        """Return counts since the start, and what is now."""
        now = self._told
        counted = {name: now.get(name, 0.0) + self._earlier[short] for name, short in _COUNTED.items()}
        return {**self._supervision.metrics(0, 0), **now, **counted, "queue_depth": float(len(self._inbox))}

    def worker_pids(self) -> list[int | None]:
        """Return the process id of each worker on its machine, None for one that has no place, as last told."""
        return list(self._pids)

    # Everything below runs on the pool's own thread.

    def _run(self) -> None:
        try:
            driver = self._driver = self._driver or self._another("no Ray driver is at work")
            while driver is not None and not self._stopping.is_set():
                self._begin(driver)
                lost = self._serve(driver)
                if lost is None:
                    break
                self._give_up(driver)
                self._count_loss(lost)
                driver = self._driver = self._another(lost)
                self._earlier["restarts"] += len(self._records)
        except RacerError as error:
            self._inbox.fail(error)
        except Exception as error:  # noqa: BLE001 - the boundary of the thread: the learner's thread raises it
            _LOG.exception("cluster pool failed")
            self._inbox.fail(error)
        finally:
            self._end()

    def _begin(self, driver: Driver) -> None:
        """Hand over the work, as far as it has come."""
        with self._lock:
            histories = [record.history for record in self._records]
            work = Work(self._task, histories, [record.pending for record in self._records])
            driver.send(Kind.START, cloudpickle.dumps(work))
            if self._parameters is not None:
                driver.send(Kind.PARAMETERS, self._parameters)
            self._driver, self._working = driver, True

    def _serve(self, driver: Driver) -> str | None:
        """Take what the driver sends until the pool stops (None), or the driver or its cluster is lost (why)."""
        heard = last = time.monotonic()
        try:
            while not self._stopping.is_set():
                frame = driver.receive(_TICK)
                now = time.monotonic()
                # It is we who were held up (a suspended process, a long hold of the interpreter lock).
                heard += now - last if now - last > _LATE_TICK else 0.0
                last = now
                if frame is not None:
                    heard = now
                    self._take(frame)
                elif now - heard > _SILENCE:
                    return f"Ray's driver process gave no sign of life for {_SILENCE:g} s"
        except EOFError:
            return driver.last_words()
        except ClusterLost as error:
            return str(error).partition("; go on with")[0]
        return None

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.EXPERIENCE:
            self._on_batch(batch_from_bytes(frame.body))
        elif frame.kind == Kind.HEARTBEAT and frame.body:
            found = json.loads(bytes(frame.body))
            self._told, self._pids = found["metrics"], found["pids"]
            for record, incarnation in zip(self._records, found["incarnations"], strict=True):
                record.history = replace(record.history, incarnation=max(incarnation, record.history.incarnation))
        elif frame.kind == Kind.LOG:
            level, text = json.loads(bytes(frame.body))
            _LOG.log(level, "%s", text)
        elif frame.kind == Kind.ERROR:
            raise error_from_bytes(frame.body)

    def _on_batch(self, batch: WorkerBatch) -> None:
        record = self._records[batch.worker]
        with self._lock:
            record.history = replace(record.history, incarnation=max(batch.incarnation + 1, record.history.incarnation))
            record.delivered_batch(batch)
        self._inbox.put(batch)

    def _give_up(self, driver: Driver) -> None:
        with self._lock:
            self._driver, self._working = None, False
        driver.close()

    def _count_loss(self, lost: str) -> None:
        """Count the workers that went with a driver.

        Raises:
            ClusterLost: too many drivers went within the window in which failures are counted.
        """
        now = time.monotonic()
        for name, short in _COUNTED.items():
            self._earlier[short] += int(self._told.get(name, 0.0))
        self._earlier["failures"] += len(self._records)
        self._told, self._pids = {}, [None] * len(self._records)
        self._losses.append(now)
        while now - self._losses[0] > self.config.restart_window:
            self._losses.popleft()
        if len(self._losses) > self.config.max_restarts:
            raise ClusterLost(
                f"{lost}; it was lost {len(self._losses)} times within {self.config.restart_window:g} s "
                f"(allowed: {self.config.max_restarts}, max_restarts)"
            )

    def _another(self, lost: str) -> Driver | None:
        """Return another driver once a cluster answers; None once the pool stops.

        Raises:
            ClusterLost: there was none for as long as a worker may take to start.
        """
        address, limit = self._join.backend.ray_address, self.config.startup_timeout
        _LOG.warning("%s; going on once a Ray cluster answers at %s, for %g s (startup_timeout)", lost, address, limit)
        until, why = time.monotonic() + limit, ""
        while time.monotonic() < until:
            try:
                reach(address)
                driver = Driver(self._join)
                try:
                    return driver.joined(lambda: self._stopping.is_set() or time.monotonic() > until)
                except BaseException:
                    driver.close()
                    raise
            except (UsageError, ClusterLost) as error:
                why = str(error)
            if self._stopping.wait(_RETRY):
                return None
        raise ClusterLost(
            f"{lost}, and for {limit:g} s (startup_timeout) {why}; go on with --resume on another cluster"
        )

    def _end(self) -> None:
        """Let the driver end its workers, and keep what it counted."""
        driver = self._driver
        if driver is None:
            return
        driver.send(Kind.STOP)
        until = time.monotonic() + self.config.stop_grace + _END_GRACE
        with contextlib.suppress(EOFError, BrokenFrame, RacerError):
            while time.monotonic() < until:
                frame = driver.receive(_TICK)
                if frame is not None and frame.kind == Kind.EXPERIENCE:
                    self._earlier["dropped_batches"] += 1
                elif frame is not None and frame.kind != Kind.ERROR:
                    self._take(frame)
        driver.close(1.0)
