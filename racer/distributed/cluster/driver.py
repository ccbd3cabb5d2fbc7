"""The process that is Ray's driver: it joins the cluster and keeps the pool of actors for the learner. No JAX.

Ray ends the process of a driver whose raylet or object store breaks off. With a driver of its own the learner survives
that, and can have another one: see :class:`racer.distributed.cluster.driver_pool.DriverPool`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cloudpickle

from racer.core.errors import RacerError, UsageError
from racer.distributed.cluster.connection import Cluster, ClusterLost, connect
from racer.distributed.cluster.pool import ClusterTooSmall, RayPool
from racer.distributed.config import BackendConfig
from racer.distributed.pool import PoolTask, WorkerBatch, WorkerHistory
from racer.distributed.processes.frames import Frame, FrameReader, FrameWriter, Kind
from racer.distributed.processes.messages import batch_to_bytes
from racer.distributed.processes.worker import end_with_the_learner
from racer.distributed.supervision import Inbox, WorkerCrashLoop
from racer.replay.collector import NonFiniteData

__all__ = ["BEAT", "PROGRAM", "Join", "Work", "error_from_bytes", "error_to_bytes", "main"]

PROGRAM = "from racer.distributed.cluster.driver import main; main()"
BEAT = 0.5

_ERRORS: dict[str, type[Exception]] = {
    error.__name__: error for error in (ClusterLost, ClusterTooSmall, NonFiniteData, UsageError, WorkerCrashLoop)
}


@dataclass(frozen=True)
class Join:
    """The first message to a driver.

    Attributes:
        backend: the cluster.
        workers: that it must have room for; 0: any.
        log_level: of what is told to the learner's log.
    """

    backend: BackendConfig
    workers: int
    log_level: int = logging.WARNING


@dataclass(frozen=True)
class Work:
    """The second message, once the driver has joined.

    Attributes:
        task: what the workers do.
        histories: where each goes on.
        pending: batches of each that the learner has and has not taken.
    """

    task: PoolTask
    histories: Sequence[WorkerHistory]
    pending: Sequence[int]


def error_to_bytes(error: Exception) -> bytes:
    """Return the message form of what ended a driver's work."""
    name = type(error).__name__
    text = str(error) if name in _ERRORS else f"{name}: {error}"
    return json.dumps([name, " ".join(text.split())]).encode()


def error_from_bytes(body: bytes | bytearray) -> Exception:
    """Inverse of :func:`error_to_bytes`; an error of a kind of its own is a RacerError."""
    name, text = json.loads(bytes(body))
    return _ERRORS.get(name, RacerError)(text)


class _Line:
    """The driver's end of the socket. Any thread writes."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket, self._reader, self._lock = sock, FrameReader(), threading.Lock()

    def send(self, kind: Kind, body: bytes | bytearray = b"") -> None:
        """Write a frame; where the learner is gone it goes nowhere, and this process ends soon."""
        writer = FrameWriter()
        writer.push(kind, body)
        with self._lock, contextlib.suppress(EOFError):
            writer.flush(self._socket)

    def receive(self, timeout: float) -> Frame | None:
        """Return the next frame, or None after some seconds without one; raises EOFError."""
        return self._reader.read(self._socket) if select.select([self._socket], [], [], timeout)[0] else None


class _Forward(Inbox):
    """Sends to the learner what the pool puts in."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def put(self, batch: WorkerBatch) -> None:
        self._line.send(Kind.EXPERIENCE, batch_to_bytes(batch))

    def fail(self, error: Exception) -> None:
        self._line.send(Kind.ERROR, error_to_bytes(error))


class _Log(logging.Handler):
    """Sends to the learner what is logged here."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        self._line.send(Kind.LOG, json.dumps([record.levelno, self.format(record)]).encode())


def main() -> None:
    """Entry point of the process; the only argument is the number of the inherited socket."""
    descriptor = int(sys.argv[1])
    end_with_the_learner(descriptor)
    line = _Line(socket.socket(fileno=descriptor))
    log = logging.getLogger("racer")
    log.addHandler(_Log(line))
    log.propagate = False
    code = 0
    try:
        join: Join = cloudpickle.loads(_first(line, Kind.START))
        log.setLevel(join.log_level)
        with connect(join.backend.ray_address) as cluster:
            if join.workers:
                cluster.require(join.workers, join.backend.worker_cpus)
            line.send(Kind.READY)
            _serve(line, cluster, join.backend)
    except EOFError:
        pass
    except Exception as error:  # noqa: BLE001 - the boundary of the process: whatever it was is sent to the learner
        line.send(Kind.ERROR, error_to_bytes(error))
        code = 1
    # Ray's threads may hang where the cluster is gone.
    sys.stderr.flush()
    os._exit(code)


def _first(line: _Line, *kinds: Kind) -> bytearray:
    """Wait for a message of one of these kinds; raises EOFError where the learner is gone or says to stop."""
    while (frame := line.receive(BEAT)) is None or frame.kind not in kinds:
        if frame is not None and frame.kind == Kind.STOP:
            raise EOFError
        line.send(Kind.HEARTBEAT)
    return frame.body


def _serve(line: _Line, cluster: Cluster, backend: BackendConfig) -> None:
    """Keep a pool until the learner says to stop."""
    work: Work = cloudpickle.loads(_first(line, Kind.START))
    pool = RayPool(
        work.task, work.histories, cluster=cluster, backend=backend, inbox=_Forward(line), pending=work.pending
    )
    answer: dict[Kind, Callable[[bytearray], None]] = {
        Kind.PARAMETERS: pool.publish_block,
        Kind.ACKNOWLEDGE: lambda body: pool.taken(int(body)),
    }
    pool.start()
    try:
        while (frame := line.receive(BEAT)) is None or frame.kind != Kind.STOP:
            if frame is not None and frame.kind in answer:
                answer[frame.kind](frame.body)
            _beat(line, pool)
    finally:
        pool.stop()
        _beat(line, pool)


def _beat(line: _Line, pool: RayPool) -> None:
    """Tell the learner how the pool is."""
    told = {
        "metrics": pool.metrics(),
        "incarnations": [slot.history.incarnation for slot in pool.slots],
        "pids": pool.worker_pids(),
    }
    line.send(Kind.HEARTBEAT, json.dumps(told).encode())
