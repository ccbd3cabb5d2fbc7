"""The worker's end of the socket, and what the pool accepts: credits, whose batch it is, the word to stop."""

from __future__ import annotations

import dataclasses
import socket
import threading

import pytest
from batches import make_batch
from service_kit import make_task

from racer.distributed.pool import Parameters, WorkerHistory
from racer.distributed.processes.frames import BrokenFrame, Frame, FrameReader, FrameWriter, Kind
from racer.distributed.processes.links import StopRequested, WorkerLink
from racer.distributed.processes.messages import batch_from_bytes, batch_to_bytes, parameters_to_bytes
from racer.distributed.processes.supervisor import ProcessPool


class Learner:
    """The other end of a worker's socket, by hand."""

    def __init__(self, credit_limit=2, outstanding=0):
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(5.0)
        self.link = WorkerLink(theirs, heartbeat_interval=0.05)
        self.theirs = theirs
        self.link.configure(credit_limit, outstanding)
        self.reader = FrameReader()

    def send(self, kind, body=b""):
        writer = FrameWriter()
        writer.push(kind, body)
        writer.flush(self.sock)

    def next(self, kind):
        while (frame := self.reader.read(self.sock)).kind != kind:
            assert frame.kind == Kind.HEARTBEAT
        return frame

    def close(self):
        self.sock.close()
        self.theirs.close()


@pytest.fixture
def learner():
    ends = Learner()
    yield ends
    ends.close()


def test_a_worker_waits_for_a_credit_and_gives_signs_of_life_meanwhile(learner):
    third = threading.Event()

    def work():
        for number in range(3):
            learner.link.wait_for_room()
            learner.link.put(make_batch(number))
        third.set()

    thread = threading.Thread(target=work)
    thread.start()
    for number in range(2):
        batch = batch_from_bytes(learner.next(Kind.EXPERIENCE).body)
        assert batch.experience.rewards[0, 0] == number
    for _ in range(3):
        assert learner.reader.read(learner.sock).kind == Kind.HEARTBEAT
    assert not third.is_set()
    learner.send(Kind.ACKNOWLEDGE)
    learner.next(Kind.EXPERIENCE)
    thread.join(5.0)
    assert third.is_set()


def test_batches_of_the_predecessor_count():
    learner = Learner(credit_limit=2, outstanding=2)
    learner.send(Kind.STOP)
    with pytest.raises(StopRequested):
        learner.link.wait_for_room()
    learner.close()


def test_the_latest_parameters_win(learner):
    assert learner.link.latest() is None
    for version in (1, 2):
        learner.send(Kind.PARAMETERS, parameters_to_bytes(Parameters(version)))
    assert learner.link.latest().version == 2


def test_stop_is_heard_between_steps(learner):
    learner.link.beat()
    learner.send(Kind.STOP)
    threading.Event().wait(0.1)
    with pytest.raises(StopRequested):
        learner.link.beat()


def test_a_learner_that_is_gone_stops_the_worker(learner):
    learner.sock.close()
    with pytest.raises(StopRequested, match="gone"):
        learner.link.put(make_batch(0))
    with pytest.raises(StopRequested, match="gone"):
        learner.link.wait(1.0)


@pytest.fixture
def pool_and_slot():
    pool = ProcessPool(make_task(worker_steps_per_iteration=2), [WorkerHistory()] * 2)
    slot = pool._slots[0]
    slot.incarnation = 3
    return pool, slot


@pytest.mark.parametrize("change", [{"incarnation": 0}, {"worker": 1}])
def test_a_batch_from_another_life_is_dropped_and_counted(pool_and_slot, change):
    pool, slot = pool_and_slot
    good = make_batch(0)
    pool._take(slot, Frame(Kind.EXPERIENCE, batch_to_bytes(dataclasses.replace(good, **change))))
    assert (pool.metrics()["queue_depth"], pool.metrics()["dropped_batches"]) == (0, 1)
    pool._take(slot, Frame(Kind.EXPERIENCE, batch_to_bytes(good)))
    assert (pool.metrics()["queue_depth"], pool.metrics()["dropped_batches"]) == (1, 1)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"summary": "x"}', b"[" * 100_000])
def test_an_error_report_that_cannot_be_read_is_a_broken_frame(pool_and_slot, body):
    pool, slot = pool_and_slot
    with pytest.raises(BrokenFrame):
        pool._take(slot, Frame(Kind.ERROR, bytearray(body)))
