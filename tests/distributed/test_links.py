"""The worker's end of the socket, and what the supervisor accepts: credits, epochs, the word to stop."""

from __future__ import annotations

import dataclasses
import socket
import threading

import pytest
from test_channels_local import make_batch
from toy_agent import policy_spec
from toy_envs import toy_vector

from racer.distributed.channels import Parameters, StopRequested, WorkerBatch
from racer.distributed.config import ServiceConfig
from racer.distributed.frames import Frame, FrameReader, FrameWriter, Kind
from racer.distributed.links import WorkerLink
from racer.distributed.supervisor import Supervisor


class Learner:
    """The other end of a worker's socket, by hand."""

    def __init__(self, credit_limit=2, epoch=4, outstanding=0):
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(5.0)
        self.link = WorkerLink(theirs, heartbeat_interval=0.05)
        self.theirs = theirs
        self.link.configure(epoch, credit_limit, outstanding)
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


def test_put_waits_for_a_credit_and_gives_signs_of_life_meanwhile(learner):
    third = threading.Event()

    def work():
        for number in range(3):
            learner.link.put(make_batch(number))
        third.set()

    thread = threading.Thread(target=work)
    thread.start()
    for number in range(2):
        batch = WorkerBatch.from_bytes(learner.next(Kind.EXPERIENCE).body)
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
        learner.link.put(make_batch(0))
    learner.close()


def test_parameters_of_another_epoch_are_ignored(learner):
    assert learner.link.latest() is None
    learner.send(Kind.PARAMETERS, Parameters(9, epoch=3).to_bytes())
    assert learner.link.latest() is None
    learner.send(Kind.PARAMETERS, Parameters(1, epoch=4).to_bytes())
    learner.send(Kind.PARAMETERS, Parameters(2, epoch=4).to_bytes())
    learner.send(Kind.PARAMETERS, Parameters(10, epoch=3).to_bytes())
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


@pytest.mark.parametrize("change", [{"epoch": 3}, {"incarnation": 0}, {"worker": 1}])
def test_a_batch_from_another_life_is_dropped_and_counted(change):
    supervisor = Supervisor(toy_vector, policy_spec(), ServiceConfig(), epoch=4)
    slot = supervisor._slots[0]
    slot.incarnation = 3
    good = make_batch(0)
    supervisor._take(slot, Frame(Kind.EXPERIENCE, dataclasses.replace(good, **change).to_bytes()))
    assert (supervisor.depth, supervisor.metrics()["dropped_batches"]) == (0, 1)
    supervisor._take(slot, Frame(Kind.EXPERIENCE, good.to_bytes()))
    assert (supervisor.depth, supervisor.metrics()["dropped_batches"]) == (1, 1)
