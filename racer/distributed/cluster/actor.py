"""The actor around an :class:`racer.distributed.worker.EnvironmentWorker`, in a process of the cluster: no JAX, no Ray.

Two threads call it. One collects; the other brings parameters and says how the first one is.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
import traceback

import cloudpickle
import numpy as np

import racer
from racer.core.errors import RacerError
from racer.distributed.pool import Parameters
from racer.distributed.processes.messages import batch_to_bytes, parameters_from_bytes
from racer.distributed.progress import Progress, of_this_thread
from racer.distributed.supervision import ErrorReport, describe_error
from racer.distributed.worker import EnvironmentWorker, WorkerTask

__all__ = ["ClusterWorker", "Identity", "Pulse"]

_WAIT = 1.0


class _Stopped(RacerError):
    """The learner asks the worker to end."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """Who answers, and where.

    Attributes:
        pid: process id on its machine.
        host: name of its machine.
        version: of RACER there.
        token: whether Ray asks for a token there.
    """

    pid: int
    host: str
    version: str
    token: bool


@dataclasses.dataclass(frozen=True)
class Pulse:
    """How a worker is.

    Attributes:
        ready: whether it has taken its first step.
        busy: seconds since it last began a step or, at its start, was last seen to compute; 0 while it waits for
            something.
    """

    ready: bool
    busy: float


class ClusterWorker:
    """Collects one batch a call with the newest parameters that it has.

    Args:
        task: cloudpickled :class:`racer.distributed.worker.WorkerTask`; it is read by the first call of
            :meth:`collect`, so that what cannot be read is reported as any other error.
    """

    def __init__(self, task: bytes) -> None:
        self._task = task
        self._worker: EnvironmentWorker | None = None
        self._arrived = threading.Condition()
        self._parameters: Parameters | None = None
        self._stopping = False
        self._steps = 0
        self._ready = False
        self._busy_since: float | None = None
        self._progress: Progress | None = None

    def hello(self) -> Identity:
        """Say who answers: the actor has its place in the cluster."""
        token = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        return Identity(os.getpid(), os.uname().nodename, racer.__version__, token)

    def pulse(self, block: np.ndarray | None) -> Pulse:
        """Take newer parameters, if there are any, and say how the worker is."""
        if block is not None:
            parameters = parameters_from_bytes(block.data)
            with self._arrived:
                self._parameters = parameters
                self._arrived.notify_all()
        since, progress = self._busy_since, self._progress
        busy = 0.0 if since is None else time.monotonic() - since
        return Pulse(self._ready, busy if self._ready or progress is None else min(busy, progress.silent()))

    def collect(self) -> np.ndarray | ErrorReport | None:
        """Collect a batch and return its message form; a report of what went wrong; or None once asked to stop."""
        try:
            return self._collect()
        except _Stopped:
            return None
        except Exception as error:  # noqa: BLE001 - the boundary of the worker: whatever it was is sent to the learner
            return describe_error(error, traceback.format_exc())
        finally:
            self._busy_since = None

    def stop(self) -> None:
        """End before the next step, and close the environments."""
        with self._arrived:
            self._stopping = True
            self._arrived.notify_all()

    def close(self) -> None:
        """Close the environments, once nothing is collected any more."""
        if self._worker is not None:
            self._worker.close()

    def _collect(self) -> np.ndarray:
        self._busy_since = time.monotonic()
        if self._worker is None:
            task: WorkerTask = cloudpickle.loads(self._task)
            self._progress = of_this_thread(task.pool.config.startup_timeout)
            self._worker = EnvironmentWorker(task)
        worker = self._worker
        self._busy_since = None
        parameters = self._next_parameters(worker)
        self._busy_since = time.monotonic()
        batch = worker.collect(parameters, self._on_step)
        self._ready = True
        if worker.task.pool.config.deterministic:
            batch = dataclasses.replace(batch, state=worker.state())
        return np.frombuffer(batch_to_bytes(batch), np.uint8)

    def _next_parameters(self, worker: EnvironmentWorker) -> Parameters:
        with self._arrived:
            while not self._stopping:
                parameters = self._parameters
                if parameters is not None and worker.may_use(parameters):
                    return parameters
                self._arrived.wait(_WAIT)
        raise _Stopped

    def _on_step(self) -> None:
        if self._stopping:
            raise _Stopped
        # The first step may compile; only once it is done does the step timeout apply.
        self._ready = self._ready or self._steps == 1
        self._steps += 1
        self._busy_since = time.monotonic()
