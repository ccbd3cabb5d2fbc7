"""The process around an :class:`racer.distributed.worker.EnvironmentWorker`: one thread, no JAX.

It is started with the interpreter itself rather than with :mod:`multiprocessing`: a fresh process inherits no lock
and no thread of the learner (forking after JAX is loaded deadlocks), does not import the learner's main script
(which loads JAX), leaves no tracker process behind, and has its thread limits in the environment before NumPy is
loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Protocol

import cloudpickle

from racer.distributed.pool import Parameters, WorkerBatch
from racer.distributed.processes.links import StopRequested, WorkerLink
from racer.distributed.supervision import describe_error
from racer.distributed.worker import EnvironmentWorker, WorkerTask

__all__ = ["WorkerLoop", "WorkerStart", "end_with_the_learner", "main"]

_START_TIMEOUT = 60.0
_PARENT_GRACE = 2.0


@dataclass(frozen=True)
class WorkerStart:
    """The first message to a worker process.

    Attributes:
        task: what it does.
        outstanding: batches of its predecessor that still wait at the learner.
    """

    task: WorkerTask
    outstanding: int = 0

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between signs of life."""
        return min(0.5, self.task.pool.config.step_timeout / 4)


class Link(Protocol):
    """What the loop needs of its connection to the learner."""

    def wait_for_room(self) -> None: ...

    def put(self, batch: WorkerBatch) -> None: ...

    def latest(self) -> Parameters | None: ...

    def ready(self) -> None: ...

    def beat(self) -> None: ...

    def wait(self, timeout: float) -> None: ...


class WorkerLoop:
    """Collects with the latest parameters and hands over what it collected, until it is asked to stop.

    Args:
        start: what to do.
        link: connection to the learner.
    """

    def __init__(self, start: WorkerStart, link: Link) -> None:
        self._start, self._link = start, link
        self._lock_step = start.task.pool.config.deterministic
        self.worker = EnvironmentWorker(start.task)
        self._steps_begun = 0
        self._ready = False

    def run(self) -> None:
        """Work until the link raises StopRequested."""
        while True:
            # Before collecting rather than before sending: what is collected next is then of the newest policy.
            self._link.wait_for_room()
            batch = self.worker.collect(self._next_parameters(), self._on_step)
            self._announce()
            if self._lock_step:
                batch = dataclasses.replace(batch, state=self.worker.state())
            self._link.put(batch)

    def _next_parameters(self) -> Parameters:
        while True:
            parameters = self._link.latest()
            if parameters is not None and self.worker.may_use(parameters):
                return parameters
            self._link.wait(self._start.heartbeat_interval)

    def _on_step(self) -> None:
        # The first step may compile; only once it is done does the step timeout apply.
        if self._steps_begun == 1:
            self._announce()
        self._steps_begun += 1
        self._link.beat()

    def _announce(self) -> None:
        if not self._ready:
            self._ready = True
            self._link.ready()


def end_with_the_learner(descriptor: int) -> None:
    """End this process soon after the learner's end of the socket closes, also in the middle of a step.

    The learner decides when its children end: a signal to a whole process group must not look like a crash of one.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.set_inheritable(descriptor, False)

    def watch() -> None:
        poller = select.poll()
        poller.register(descriptor, 0)
        while not poller.poll(60_000):
            pass
        time.sleep(_PARENT_GRACE)
        os._exit(0)

    threading.Thread(target=watch, name="end-with-learner", daemon=True).start()


def main() -> None:
    """Entry point of the process; the only argument is the number of the inherited socket."""
    descriptor = int(sys.argv[1])
    end_with_the_learner(descriptor)
    link = WorkerLink(socket.socket(fileno=descriptor))
    code = 0
    loop: WorkerLoop | None = None
    try:
        start: WorkerStart = cloudpickle.loads(link.receive_start(_START_TIMEOUT))
        link.configure(start.task.pool.config.credits, start.outstanding)
        loop = WorkerLoop(start, link)
        loop.run()
    except StopRequested:
        pass
    except Exception as error:  # noqa: BLE001 - the boundary of the process: whatever it was is sent to the learner
        code = 1
        with contextlib.suppress(StopRequested):
            link.report_error(describe_error(error, traceback.format_exc()))
    finally:
        if loop is not None and code == 0:
            loop.worker.close()
    sys.exit(code)
