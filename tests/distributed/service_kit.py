"""Builds small services for the tests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import psutil
from toy_agent import POLICY, ToyAgent
from toy_envs import OBSERVATION_SIZE, toy_vector

from racer.distributed.config import OffPolicyConfig, ServiceConfig
from racer.distributed.consumers import OffPolicyConsumer
from racer.distributed.pool import PoolFactory, PoolTask
from racer.distributed.processes.supervisor import ProcessPool
from racer.distributed.service import ActorLearnerService, ServiceState

QUICK = {"worker_steps_per_iteration": 8, "max_queue_size": 8, "restart_backoff": 0.05, "stop_grace": 2.0}
SMALL = {
    "replay_buffer_size": 5000,
    "batch_size": 16,
    "utd_ratio": 4,
    "experience_batch_size": 32,
    "learner_update_ratio": 2,
    "start_training": 64,
}


def make_consumer(**changes: Any) -> OffPolicyConsumer:
    """An off-policy consumer for the toy environments."""
    return OffPolicyConsumer(OffPolicyConfig(**{**SMALL, **changes}), (OBSERVATION_SIZE,), (1,), seed=5)


def make_task(factory: Callable[[], Any] | None = None, warmup: Any = POLICY, **config: Any) -> PoolTask:
    """What workers with two toy environments each do."""
    factory = factory or functools.partial(toy_vector, 2)
    return PoolTask(factory, POLICY, warmup, ServiceConfig(**{**QUICK, **config}), (OBSERVATION_SIZE,))


def make_service(
    factory: Callable[[], Any] | None = None,
    *,
    agent: ToyAgent | None = None,
    consumer: Any = None,
    state: ServiceState | None = None,
    pool: PoolFactory = ProcessPool,
    **config: Any,
) -> ActorLearnerService:
    """A service of two workers with two toy environments each, unless told otherwise."""
    return ActorLearnerService(
        pool,
        make_task(factory, **config),
        agent or ToyAgent(),
        consumer or make_consumer(),
        state=state,
    )


def children() -> list[int]:
    """Living child processes of this one, but the tracker that multiprocessing keeps once a pool was spawned."""
    return [child.pid for child in psutil.Process().children(recursive=True) if not _is_tracker(child)]


def _is_tracker(child: psutil.Process) -> bool:
    try:
        return any("multiprocessing.resource_tracker" in word for word in child.cmdline())
    except psutil.Error:
        return False
