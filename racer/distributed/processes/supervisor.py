"""Starts workers, listens to them, and replaces those that die, hang or go silent.

One thread owns every socket and every process. Other threads reach it through a queue of calls and a wake-up socket, so
there is no lock that a worker's fate could leave held.
"""

from __future__ import annotations

import contextlib
import json
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import cloudpickle

from racer.distributed.pool import Parameters, PoolTask, WorkerBatch, WorkerHistory
from racer.distributed.processes.frames import BrokenFrame, Frame, FrameWriter, Kind
from racer.distributed.processes.launch import describe_exit, kill_process, start_process
from racer.distributed.processes.messages import batch_from_bytes, check_batch, parameters_to_bytes
from racer.distributed.processes.slots import WorkerSlot
from racer.distributed.processes.worker import WorkerStart
from racer.distributed.supervision import ErrorReport, Inbox, Supervision, silence
from racer.distributed.worker import WorkerTask

__all__ = ["ProcessPool"]

_LOG = logging.getLogger("racer.distributed")
_TICK = 0.1
_FRAMES_A_TURN = 8
_LATE_TICK = 0.5
_EXIT_GRACE = 2.0


class ProcessPool:
    """Worker processes behind sockets. See :class:`racer.distributed.pool.WorkerPool`.

    Args:
        task: what the workers do; pickled by value to our own children only.
        histories: where each worker goes on.
    """

    def __init__(self, task: PoolTask, histories: Sequence[WorkerHistory]) -> None:
        self.config = task.config
        self._task = task
        self._slots = [WorkerSlot(index, history) for index, history in enumerate(histories)]
        self._supervision = Supervision(task.config)
        self._inbox = Inbox()
        self._calls: deque[Callable[[], None]] = deque()
        self._parameters: bytearray | None = None
        self._started = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the workers and return; they build their environments meanwhile."""
        if self._started:
            raise RuntimeError("a pool runs once")
        self._started = True
        self._selector = selectors.DefaultSelector()
        self._wake_ours, self._wake_theirs = socket.socketpair()
        self._wake_ours.setblocking(False)
        self._wake_theirs.setblocking(False)
        self._selector.register(self._wake_theirs, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End every worker, killing those that do not end in time, and release everything. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping = True
        self._wake()
        thread.join()
        self._selector.close()
        self._wake_ours.close()
        self._wake_theirs.close()
        self._supervision.counts["dropped_batches"] += self._inbox.clear()

    def get(self, timeout: float) -> WorkerBatch | None:
        """Return the oldest batch or None; taking it gives its worker a credit.

        Raises:
            WorkerCrashLoop: a worker failed too often.
            NonFiniteData: a worker's environment gives nothing but values that are not finite.
            UsageError: a worker found its configuration wrong.
        """
        batch = self._inbox.get(timeout)
        if batch is not None:
            worker = batch.worker
            self._call(lambda: self._acknowledge(self._slots[worker]))
        return batch

    def publish(self, parameters: Parameters) -> None:
        """Send to every worker, and to those started later."""
        block = parameters_to_bytes(parameters)
        self._call(lambda: self._broadcast(block))

    def state(self, rounds: int) -> list[WorkerHistory]:
        """Return what a later pool needs of each worker; see :class:`racer.distributed.pool.WorkerPool`."""
        return self._supervision.histories(self._slots, rounds)

    def metrics(self) -> dict[str, float]:
        """Return counts since the start, and what is now."""
        alive = sum(slot.ready and slot.process is not None for slot in self._slots)
        return self._supervision.metrics(len(self._inbox), alive)

    def worker_pids(self) -> list[int | None]:
        """Return the process id of each worker, None for one that is being replaced."""
        return [slot.process.pid if slot.process is not None else None for slot in self._slots]

    # Everything below runs on the supervisor's own thread.

    def _call(self, function: Callable[[], None]) -> None:
        self._calls.append(function)
        self._wake()

    def _wake(self) -> None:
        # Full: it is about to wake anyway. Closed: there is nobody to wake.
        with contextlib.suppress(OSError):
            self._wake_ours.send(b"\0")

    def _run(self) -> None:
        try:
            last_tick = time.monotonic()
            while not self._stopping:
                for key, _ in self._selector.select(_TICK):
                    self._serve(key.data)
                self._drain_calls()
                now = time.monotonic()
                if now - last_tick > _LATE_TICK:
                    # It is we who were held up (a suspended process, a long hold of the interpreter lock).
                    for slot in self._slots:
                        slot.last_heard += now - last_tick
                last_tick = now
                for slot in self._slots:
                    self._tend(slot, now)
        except Exception as error:  # noqa: BLE001 - the boundary of the thread: the learner's thread raises it
            _LOG.exception("supervisor failed")
            self._fail(error)
        finally:
            self._end_all()

    def _drain_calls(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _fail(self, error: Exception) -> None:
        self._inbox.fail(error)
        self._stopping = True

    def _serve(self, slot: WorkerSlot | None) -> None:
        if slot is None:
            with contextlib.suppress(BlockingIOError):
                self._wake_theirs.recv(4096)
        elif slot.sock is not None:
            self._read(slot)
            self._flush(slot)

    def _read(self, slot: WorkerSlot) -> None:
        try:
            for _ in range(_FRAMES_A_TURN):
                if slot.sock is None or (frame := slot.reader.read(slot.sock)) is None:
                    return
                slot.last_heard = time.monotonic()
                self._take(slot, frame)
        except EOFError:
            self._hang_up(slot)
        except BrokenFrame as error:
            slot.cause = slot.cause or f"sent {error}"
            self._hang_up(slot)

    def _take(self, slot: WorkerSlot, frame: Frame) -> None:
        if frame.kind == Kind.READY:
            self._supervision.on_ready(slot, time.monotonic())
        elif frame.kind == Kind.EXPERIENCE:
            self._on_batch(slot, batch_from_bytes(frame.body))
        elif frame.kind == Kind.ERROR:
            self._on_error(slot, frame.body)

    def _on_batch(self, slot: WorkerSlot, batch: WorkerBatch) -> None:
        check_batch(batch, self._task)
        if (batch.worker, batch.incarnation) != (slot.index, slot.incarnation):
            self._supervision.counts["dropped_batches"] += 1
            return
        slot.delivered_batch(batch)
        self._inbox.put(batch)

    def _on_error(self, slot: WorkerSlot, body: bytearray) -> None:
        try:
            report = json.loads(bytes(body))
            parsed = ErrorReport(*(str(report[name]) for name in ("summary", "traceback", "category")))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BrokenFrame(f"an error report that cannot be read: {error}") from error
        self._supervision.on_error(slot, parsed)

    def _acknowledge(self, slot: WorkerSlot) -> None:
        slot.pending -= 1
        slot.writer.push(Kind.ACKNOWLEDGE)
        self._flush(slot)

    def _broadcast(self, block: bytearray) -> None:
        self._parameters = block
        for slot in self._slots:
            if slot.sock is not None:
                slot.writer.push(Kind.PARAMETERS, block)
                self._flush(slot)

    def _flush(self, slot: WorkerSlot) -> None:
        if slot.sock is None:
            slot.writer = FrameWriter()
            return
        try:
            slot.writer.flush(slot.sock)
        except EOFError:
            # Reading goes on: what the worker wrote before it died is still in the socket.
            slot.writer = FrameWriter()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if slot.writer.pending else 0)
        if wanted != slot.watched:
            self._selector.modify(slot.sock, wanted, slot)
            slot.watched = wanted

    def _hang_up(self, slot: WorkerSlot) -> None:
        if slot.sock is not None:
            self._selector.unregister(slot.sock)
            slot.sock.close()
            slot.sock = None

    def _tend(self, slot: WorkerSlot, now: float) -> None:
        """Look after one worker: start it, notice its end, end its silence."""
        if slot.process is None:
            if now >= slot.retry_at and not self._stopping:
                self._launch(slot)
            return
        code = slot.process.poll()
        if code is not None:
            # Whole batches that it wrote before its end count; then the socket closes by itself or is closed here.
            while slot.has_input():
                self._read(slot)
            self._hang_up(slot)
            slot.process = None
            self._on_failure(slot, slot.cause or describe_exit(code), now)
            return
        limit = self.config.step_timeout if slot.ready else self.config.startup_timeout
        if slot.sock is None:
            limit = min(limit, _EXIT_GRACE)
        if slot.silent(now) > limit and not slot.has_input():
            slot.cause = slot.cause or silence(limit, slot.ready)
            kill_process(slot.process)

    def _launch(self, slot: WorkerSlot) -> None:
        task = WorkerTask(self._task, slot.index, slot.history)
        slot.next_incarnation()
        start = WorkerStart(task, outstanding=slot.pending)
        message = cloudpickle.dumps(start)
        try:
            process, sock = start_process()
        except OSError as error:
            self._on_failure(slot, f"cannot be started: {error}", time.monotonic())
            return
        slot.begin(process, sock, self._task.max_batch_bytes, self.config.startup_timeout)
        slot.watched = selectors.EVENT_READ
        self._selector.register(sock, selectors.EVENT_READ, slot)
        self._supervision.on_start(slot)
        slot.writer.push(Kind.START, message)
        if self._parameters is not None:
            slot.writer.push(Kind.PARAMETERS, self._parameters)
        self._flush(slot)

    def _on_failure(self, slot: WorkerSlot, cause: str, now: float) -> None:
        """Decide between a restart and the end."""
        error = self._supervision.on_failure(slot, cause, now)
        if error is not None:
            self._fail(error)

    def _end_all(self) -> None:
        """Ask every worker to stop, wait for a while, kill the rest, close everything."""
        for slot in self._slots:
            slot.writer.push(Kind.STOP)
            self._flush(slot)
        deadline = time.monotonic() + self.config.stop_grace
        alive = [slot for slot in self._slots if slot.process is not None]
        while alive and time.monotonic() < deadline:
            for key, _ in self._selector.select(0.05):
                if key.data is None:
                    self._serve(None)
                else:
                    self._discard(key.data)
            alive = [slot for slot in alive if slot.process is not None and slot.process.poll() is None]
        for slot in self._slots:
            if slot.process is not None:
                if slot.process.poll() is None:
                    kill_process(slot.process)
                slot.process.wait()
                slot.process = None
            self._hang_up(slot)

    def _discard(self, slot: WorkerSlot) -> None:
        """Read and drop what a stopping worker still sends, so that it is not held up."""
        if slot.sock is None:
            return
        try:
            while (frame := slot.reader.read(slot.sock)) is not None:
                self._supervision.counts["dropped_batches"] += frame.kind == Kind.EXPERIENCE
        except (EOFError, BrokenFrame):
            self._hang_up(slot)
            return
        self._flush(slot)
