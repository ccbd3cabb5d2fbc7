"""Any order of writes, partial flushes and reads of a channel: frames arrive whole and in order, parameters newest."""

from __future__ import annotations

import socket
from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from racer.distributed.processes.frames import FrameReader, FrameWriter, Kind


class Narrow:
    """A socket's end that takes few bytes at a time, and then none for once."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket, self.room = sock, 0

    def send(self, data: memoryview) -> int:
        if self.room == 0:
            raise BlockingIOError
        count = self._socket.send(data[: self.room])
        self.room -= count
        return count


class Channel(RuleBasedStateMachine):
    """``queued`` is what must still arrive, in this order; ``published`` the numbers of all publications."""

    def __init__(self) -> None:
        super().__init__()
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.narrow = Narrow(self.ours)
        self.writer, self.reader = FrameWriter(), FrameReader()
        self.queued: deque[tuple[Kind, bytes]] = deque()
        self.published, self.newest_read = 0, 0

    def teardown(self) -> None:
        self.narrow.room = 1 << 20
        self.writer.flush(self.narrow)
        self.read()
        assert not self.queued
        assert self.newest_read == self.published, "the newest parameters did not arrive"
        self.ours.close()
        self.theirs.close()

    @rule(kind=st.sampled_from([Kind.EXPERIENCE, Kind.HEARTBEAT, Kind.ACKNOWLEDGE]), body=st.binary(max_size=60))
    def push(self, kind, body):
        self.writer.push(kind, body)
        self.queued.append((kind, body))

    @rule(padding=st.integers(0, 200))
    def publish(self, padding):
        self.published += 1
        self.writer.push(Kind.PARAMETERS, self.published.to_bytes(4, "big") + bytes(padding))

    @rule(room=st.integers(0, 120))
    def flush(self, room):
        self.narrow.room = room
        self.writer.flush(self.narrow)

    @rule()
    def read(self):
        while (frame := self.reader.read(self.theirs)) is not None:
            if frame.kind == Kind.PARAMETERS:
                number = int.from_bytes(frame.body[:4], "big")
                assert self.newest_read < number <= self.published
                self.newest_read = number
            else:
                assert (frame.kind, bytes(frame.body)) == self.queued.popleft()

    @precondition(lambda self: not self.writer.pending)
    @rule()
    def nothing_waits(self):
        self.read()
        assert not self.queued
        assert self.newest_read == self.published


Channel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestChannel = Channel.TestCase
