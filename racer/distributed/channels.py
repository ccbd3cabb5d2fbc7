"""What moves between workers and learner, and the doors it moves through.

Experience goes one way, whole arrays at a time, through a bounded queue: a worker's ``put`` blocks while the
queue holds its share, so a slow learner slows the workers instead of filling memory. Parameters go the other way
as bytes with a version, latest wins: nobody waits for them and nobody gets an old one after a newer one.

The implementations in this file serve one process (tests, threads). :mod:`racer.distributed.links` serves processes.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from racer.core.errors import RacerError, UsageError
from racer.distributed.frames import decode_arrays, encode_arrays
from racer.replay.experience import BATCH_FIELDS, Experience

__all__ = [
    "ExperienceReceiver",
    "ExperienceSender",
    "LocalExperienceChannel",
    "LocalParameterChannel",
    "ParameterPublisher",
    "ParameterReceiver",
    "Parameters",
    "StopRequested",
    "WorkerBatch",
]


class StopRequested(RacerError):
    """The other side asks a worker to end; raised out of whatever it waits for."""


@dataclass(frozen=True)
class Parameters:
    """One publication of the policy.

    Attributes:
        version: publications so far; 0 stands for "no policy yet".
        epoch: which life of the service published it. A worker ignores another life's parameters.
        round: in lock step, the round to collect with exactly these parameters; else 0.
        data: what :func:`racer.agents.policy.params_to_bytes` wrote. Empty: act with the warm-up policy.
    """

    version: int
    epoch: int
    round: int = 0
    data: bytes = b""

    def to_bytes(self) -> bytearray:
        """Return the message form."""
        header = {"version": self.version, "epoch": self.epoch, "round": self.round}
        return encode_arrays(header, {"data": np.frombuffer(self.data, np.uint8)})

    @classmethod
    def from_bytes(cls, block: bytearray) -> Parameters:
        """Inverse of :meth:`to_bytes`."""
        header, arrays = decode_arrays(block)
        return cls(header["version"], header["epoch"], header["round"], arrays["data"].tobytes())


@dataclass(frozen=True)
class WorkerBatch:
    """One collection of one worker.

    Attributes:
        experience: the transitions.
        worker: index of the worker.
        incarnation: how often that worker had been started before.
        epoch: epoch of the service that started it.
        policy_version: version of the parameters that chose the actions; 0 for random actions.
        round: the lock-step round, else 0.
        state: in lock step, what the worker needs to do the next round again: its environments and random streams.
            Empty where the environments cannot save their state.
    """

    experience: Experience
    worker: int
    incarnation: int
    epoch: int
    policy_version: int
    round: int = 0
    state: dict[str, np.ndarray] = field(default_factory=dict)

    def to_bytes(self) -> bytearray:
        """Return the message form; arrays are copied once."""
        e = self.experience
        header: dict[str, Any] = {
            "ids": [self.worker, self.incarnation, self.epoch, self.policy_version, self.round],
            "episodes": e.episodes,
            "nonfinite": e.nonfinite,
        }
        arrays = {name: getattr(e, name) for name in (*BATCH_FIELDS, "valid")}
        arrays |= {f"extras/{name}": value for name, value in e.extras.items()}
        arrays |= {f"state/{name}": value for name, value in self.state.items()}
        return encode_arrays(header, arrays)

    @classmethod
    def from_bytes(cls, block: bytearray) -> WorkerBatch:
        """Inverse of :meth:`to_bytes`; the arrays are views of ``block``."""
        header, arrays = decode_arrays(block)
        experience = Experience(
            **{name: arrays[name] for name in (*BATCH_FIELDS, "valid")},
            extras=_below("extras/", arrays),
            episodes=header["episodes"],
            nonfinite=header["nonfinite"],
        )
        worker, incarnation, epoch, version, round_number = header["ids"]
        state = _below("state/", arrays)
        return cls(experience, worker, incarnation, epoch, version, round_number, state)


def _below(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


class ExperienceSender(Protocol):
    """A worker's end of the experience channel."""

    def put(self, batch: WorkerBatch) -> None:
        """Hand over a batch; block while the queue is full. Raises StopRequested."""
        ...


class ExperienceReceiver(Protocol):
    """The learner's end of the experience channel."""

    def get(self, timeout: float) -> WorkerBatch | None:
        """Return the oldest batch, or None after ``timeout`` seconds without one."""
        ...

    @property
    def depth(self) -> int:
        """Batches waiting."""
        ...


class ParameterPublisher(Protocol):
    """The learner's end of the parameter channel."""

    def publish(self, parameters: Parameters) -> None:
        """Make ``parameters`` the latest. Does not wait for anybody."""
        ...


class ParameterReceiver(Protocol):
    """A worker's end of the parameter channel."""

    def latest(self) -> Parameters | None:
        """Return the newest parameters that have arrived, or None before the first. Does not wait."""
        ...


class LocalExperienceChannel:
    """A bounded queue between threads of one process.

    Args:
        max_queue_size: batches it holds before ``put`` blocks.
    """

    def __init__(self, max_queue_size: int) -> None:
        if max_queue_size < 1:
            raise UsageError(f"max_queue_size must be at least 1, not {max_queue_size}")
        self._limit = max_queue_size
        self._batches: deque[WorkerBatch] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, batch: WorkerBatch) -> None:
        """See :class:`ExperienceSender`."""
        with self._changed:
            while len(self._batches) >= self._limit and not self._closed:
                self._changed.wait(1.0)
            if self._closed:
                raise StopRequested("experience channel is closed")
            self._batches.append(batch)
            self._changed.notify_all()

    def get(self, timeout: float) -> WorkerBatch | None:
        """See :class:`ExperienceReceiver`."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._batches), timeout)
            if not self._batches:
                return None
            self._changed.notify_all()
            return self._batches.popleft()

    @property
    def depth(self) -> int:
        """See :class:`ExperienceReceiver`."""
        return len(self._batches)

    def close(self) -> None:
        """Let every blocked ``put`` raise StopRequested."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class LocalParameterChannel:
    """A slot for the latest parameters, between threads of one process."""

    def __init__(self) -> None:
        self._latest: Parameters | None = None

    def publish(self, parameters: Parameters) -> None:
        """See :class:`ParameterPublisher`."""
        self._latest = parameters

    def latest(self) -> Parameters | None:
        """See :class:`ParameterReceiver`."""
        return self._latest
