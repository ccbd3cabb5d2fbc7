"""What stands between the learner and whoever collects for it, and what moves through it.

Experience goes one way, whole arrays at a time, through something bounded: a worker waits while as many batches are
under way as it may have, so a slow learner slows the workers instead of filling memory. Parameters go the other way
with a version, latest wins: nobody waits for them and nobody gets an old one after a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from gymnasium.vector import VectorEnv

from racer.core.errors import RacerError
from racer.distributed.config import ServiceConfig
from racer.networks.policy import ActingPolicy
from racer.replay.experience import Experience

__all__ = [
    "Parameters",
    "PoolFactory",
    "PoolTask",
    "StateLost",
    "WorkerBatch",
    "WorkerHistory",
    "WorkerPool",
]


class StateLost(RacerError):
    """A worker stopped within a round, and nobody kept its state from before."""


@dataclass(frozen=True)
class Parameters:
    """One publication of the policy.

    Attributes:
        version: publications so far; 0 stands for "no policy yet".
        round: in lock step, the round to collect with exactly these parameters; else 0.
        arrays: what :meth:`racer.networks.policy.ActingPolicy.act` takes. None: act with the warm-up policy.
    """

    version: int
    round: int = 0
    arrays: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class WorkerBatch:
    """One collection of one worker.

    Attributes:
        experience: the rows.
        worker: index of the worker.
        incarnation: how often that worker had been started before.
        policy_version: version of the parameters that chose the actions; 0 for random actions.
        round: the lock-step round, else 0.
        state: what another process needs to do the next round again: environments and random streams. Empty where
            nobody could replace the worker, and where the environments cannot save their state.
    """

    experience: Experience
    worker: int
    incarnation: int
    policy_version: int
    round: int = 0
    state: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerHistory:
    """What outlives a worker, and is saved with a checkpoint.

    Attributes:
        incarnation: number of the next worker in this place; distinct for all that ever served it.
        rounds_done: last lock-step round delivered.
        state: of the worker after that round.
    """

    incarnation: int = 0
    rounds_done: int = 0
    state: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class PoolTask:
    """What a pool's workers do.

    Attributes:
        env_factory: builds one worker's vector environment.
        policy: acts once there are parameters.
        warmup: acts before that.
        config: of the service.
        observation_shape: of one observation; batches of another shape are refused. None accepts any.
        max_batch_bytes: size of a message beyond which a worker is not believed.
    """

    env_factory: Callable[[], VectorEnv]
    policy: ActingPolicy
    warmup: ActingPolicy
    config: ServiceConfig
    observation_shape: tuple[int, ...] | None = None
    max_batch_bytes: int = 1 << 30


class WorkerPool(Protocol):
    """Workers that collect. It runs once, between :meth:`start` and :meth:`stop`."""

    def start(self) -> None:
        """Start the workers; they may build their environments later."""
        ...

    def get(self, timeout: float) -> WorkerBatch | None:
        """Return the oldest batch, or None after ``timeout`` seconds without one. Raises what ended the pool."""
        ...

    def publish(self, parameters: Parameters) -> None:
        """Make ``parameters`` the latest. Does not wait for anybody."""
        ...

    def metrics(self) -> dict[str, float]:
        """Return counts since the start, and what is now."""
        ...

    def state(self, rounds: int) -> list[WorkerHistory]:
        """Return what a later pool needs of each worker; in lock step, as it was after round ``rounds``.

        Raises:
            StateLost: a worker is past that round and its state from before was not kept.
        """
        ...

    def stop(self) -> None:
        """End every worker and release everything. Idempotent."""
        ...


PoolFactory = Callable[[PoolTask, Sequence[WorkerHistory]], WorkerPool]
"""Builds a pool whose workers go on from their histories."""
