"""A worker's end of the channels: one socket to the learner, shared with nobody.

Each worker has a socket of its own, so nothing that one worker does to its channel, dying in mid-write included,
can block or corrupt another's. Back-pressure is credit: a worker may have so many batches under way, and the
learner returns a credit with each batch that it takes from its queue.
"""

from __future__ import annotations

import dataclasses
import json
import select
import socket
import time

from racer.core.errors import RacerError
from racer.distributed.pool import Parameters, WorkerBatch
from racer.distributed.processes.frames import FrameReader, FrameWriter, Kind
from racer.distributed.processes.messages import batch_to_bytes, parameters_from_bytes
from racer.distributed.supervision import ErrorReport

__all__ = ["StopRequested", "WorkerLink"]


class StopRequested(RacerError):
    """The learner asks a worker to end, or is gone; raised out of whatever the worker waits for."""


class WorkerLink:
    """Experience and parameters over a socket, from the worker's side.

    Args:
        sock: connected stream socket; it is switched to non-blocking.
        heartbeat_interval: seconds between signs of life.
    """

    def __init__(self, sock: socket.socket, heartbeat_interval: float = 0.5) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._reader = FrameReader()
        self._writer = FrameWriter()
        self._interval = heartbeat_interval
        self._last_beat = -float("inf")
        self._parameters: Parameters | None = None
        self._credits = 1
        self._outstanding = 0

    def receive_start(self, timeout: float) -> bytearray:
        """Wait for the first message and return its body.

        Raises:
            StopRequested: nothing came, or something else.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            select.select([self._socket], [], [], 1.0)
            try:
                frame = self._reader.read(self._socket)
            except EOFError as error:
                raise StopRequested("learner is gone") from error
            if frame is not None and frame.kind == Kind.START:
                return frame.body
            if frame is not None:
                break
        raise StopRequested("learner sent no start message")

    def configure(self, credit_limit: int, outstanding: int) -> None:
        """Set how many batches may be and already are under way."""
        self._credits, self._outstanding = credit_limit, outstanding

    def wait_for_room(self) -> None:
        """Wait while this worker's share of the queue is under way."""
        while self._outstanding >= self._credits:
            self.wait(self._interval)

    def put(self, batch: WorkerBatch) -> None:
        """Send a batch."""
        self._outstanding += 1
        self._send(Kind.EXPERIENCE, batch_to_bytes(batch))

    def latest(self) -> Parameters | None:
        """Return the newest parameters that have arrived, or None before the first. Does not wait."""
        self._receive()
        return self._parameters

    def ready(self) -> None:
        """Tell the learner that the first step has been taken."""
        self._send(Kind.READY)

    def beat(self) -> None:
        """Give a sign of life and look for messages, where the last time is some while ago."""
        now = time.monotonic()
        if now - self._last_beat >= self._interval:
            self._send(Kind.HEARTBEAT)
            self._receive()

    def wait(self, timeout: float) -> None:
        """Wait for a message, at most ``timeout`` seconds, and give a sign of life."""
        select.select([self._socket], [], [], timeout)
        self._receive()
        self.beat()

    def report_error(self, report: ErrorReport) -> None:
        """Send the last word of a worker that cannot go on."""
        self._send(Kind.ERROR, json.dumps(dataclasses.asdict(report)).encode())

    def _send(self, kind: Kind, body: bytes | bytearray = b"") -> None:
        self._last_beat = time.monotonic()
        self._writer.push(kind, body)
        try:
            self._writer.flush(self._socket)
            while self._writer.pending:
                select.select([self._socket], [self._socket], [], self._interval)
                self._receive()
                self._writer.flush(self._socket)
        except EOFError as error:
            raise StopRequested("learner is gone") from error

    def _receive(self) -> None:
        try:
            while (frame := self._reader.read(self._socket)) is not None:
                if frame.kind == Kind.STOP:
                    raise StopRequested("learner asks to stop")
                if frame.kind == Kind.ACKNOWLEDGE:
                    self._outstanding -= 1
                elif frame.kind == Kind.PARAMETERS:
                    self._parameters = parameters_from_bytes(frame.body)
        except EOFError as error:
            raise StopRequested("learner is gone") from error
