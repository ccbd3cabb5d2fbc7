"""Stop signals are acknowledged while the main thread is in one long call, as a compilation is."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from racer.core.terminal import said_if_slow
from racer.distributed import learner as learner_room
from racer.distributed.config import ServiceConfig
from racer.distributed.learner import DistributedLearner
from racer.training.signals import StopSignals

# Hashing is one call of minutes that lets go of Python's lock and heeds no signal.
BUSY = """
import hashlib
from racer.training.signals import StopSignals
with StopSignals({promise!r}) as stop:
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", {rounds})
print(stop.exit_code, flush=True)
"""


def started(promise: str | None, rounds: int) -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(promise=promise, rounds=rounds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout.readline() == "ready\n"
    time.sleep(0.2)
    return program


def test_a_signal_is_acknowledged_in_the_midst_of_a_call_and_a_second_interrupt_ends_it() -> None:
    program = started("stopping after this step", 2_000_000_000)
    try:
        program.send_signal(signal.SIGINT)
        assert program.stderr.readline() == "SIGINT: stopping after this step; Ctrl-C again ends at once\n"
        assert program.poll() is None
        program.send_signal(signal.SIGINT)
        assert program.wait(10.0) == 128 + signal.SIGINT
    finally:
        program.kill()
        program.communicate()


def test_every_signal_is_acknowledged_once_and_heeded_after_the_call() -> None:
    program = started("stopping", 3_000_000)
    for _ in range(2):
        program.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    out, errors = program.communicate(timeout=100.0)
    assert (out, errors) == ("143\n", "SIGTERM: stopping; Ctrl-C ends at once\n")
    program = started(None, 1_000_000)
    program.send_signal(signal.SIGTERM)
    assert program.communicate(timeout=100.0) == ("143\n", "")


def test_an_event_loops_own_way_of_being_woken_is_left_alone() -> None:
    mine, theirs = socket.socketpair()
    theirs.setblocking(False)
    with mine, theirs:
        before = signal.set_wakeup_fd(theirs.fileno())
        try:
            with StopSignals("stopping"):
                assert signal.set_wakeup_fd(theirs.fileno()) == theirs.fileno()
        finally:
            assert signal.set_wakeup_fd(before) == theirs.fileno()
    with StopSignals("stopping"):
        pass
    assert signal.set_wakeup_fd(-1) == -1


def test_a_long_first_update_is_announced_and_no_later_one(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def update(agent):
        time.sleep(0.3)
        return agent, {"loss": np.float32(0.0)}

    monkeypatch.setattr(learner_room, "_SLOW_SECONDS", 0.01)
    learner = DistributedLearner(None, types.SimpleNamespace(update=update), ServiceConfig())
    learner._update()
    assert capsys.readouterr().err.startswith("compiling the update")
    learner._update()
    assert capsys.readouterr().err == ""
    with said_if_slow("slow", 30.0):
        pass
    assert capsys.readouterr().err == ""
