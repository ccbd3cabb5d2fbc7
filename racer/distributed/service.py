"""The actor-learner service: a pool of workers and the learner, joined and run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from racer.core.errors import UsageError
from racer.distributed.consumers import Consumer
from racer.distributed.learner import DistributedLearner
from racer.distributed.pool import PoolFactory, PoolTask, StateLost, WorkerHistory, WorkerPool
from racer.envs.metric import BASE_METRICS, Metric

__all__ = ["ActorLearnerService", "Periodic", "ServiceState"]

_WAIT = 0.2
_SUPERVISION = ("worker_restarts", "worker_failures", "dropped_batches")


@dataclass(frozen=True)
class ServiceState:
    """What a checkpoint keeps of the service besides the agent.

    Attributes:
        counters: plain numbers, lists and mappings, JSON-able.
        replay: the consumer's arrays.
        collector: in lock step, each worker's state (``<worker>/<name>``), where environments can save theirs.
    """

    counters: dict[str, Any]
    replay: dict[str, np.ndarray]
    collector: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Periodic:
    """Something to do every so many transitions, on the learner's thread, between updates.

    Attributes:
        interval: transitions between two calls.
        call: receives the service.
    """

    interval: int
    call: Callable[[ActorLearnerService], None]


class ActorLearnerService:
    """Workers collect, one learner updates.

    Args:
        pool: builds the pool of workers; a run of the service starts one and stops it.
        task: what the workers do.
        agent: what learns.
        consumer: what is done with experience (off-policy or on-policy).
        metrics: what the world reports of every episode.
        state: of an earlier service, to go on where it was.

    Raises:
        UsageError: ``state`` does not fit the configuration.
    """

    def __init__(
        self,
        pool: PoolFactory,
        task: PoolTask,
        agent: Any,
        consumer: Consumer,
        *,
        metrics: Sequence[Metric] = BASE_METRICS,
        state: ServiceState | None = None,
    ) -> None:
        self.config = task.config
        self.consumer = consumer
        self.learner = DistributedLearner(agent, consumer, task.config, metrics=metrics)
        self.pool: WorkerPool | None = None
        self._make_pool, self._task = pool, task
        self._histories: list[WorkerHistory] | None = [WorkerHistory() for _ in range(task.config.num_workers)]
        self._earlier = dict.fromkeys(_SUPERVISION, 0)
        self._last_metrics: dict[str, float] = {}
        self._marks: dict[int, int] = {}
        if state is not None:
            self._restore(state)

    @property
    def agent(self) -> Any:
        """The agent as it is now."""
        return self.learner.agent

    @property
    def transitions(self) -> int:
        """Transitions taken in so far, those of earlier lives included."""
        return self.learner.transitions

    def run(
        self,
        total_transitions: int,
        *,
        periodic: Sequence[Periodic] = (),
        stop_event: threading.Event | None = None,
    ) -> bool:
        """Train until ``total_transitions`` have been taken in and every update they pay for is made.

        Args:
            total_transitions: counted over all lives of the service.
            periodic: what to do on the way, in this order where several are due; :meth:`state` is whole then.
            stop_event: set it (from a signal handler, say) to end early. At most one update (of workers in the
                learner's thread, one round) and 0.2 s later the run begins to end.

        Returns:
            Whether the goal was reached. Workers have ended and everything is released in any case.

        Raises:
            LearningDiverged: updates are not finite.
            RacerError: what ended the pool, see :meth:`WorkerPool.get`.
        """
        for duty in periodic:
            if duty.interval < 1:
                raise UsageError(f"interval must be at least 1 transition, not {duty.interval}")
        stop = stop_event or threading.Event()
        if self._histories is None:
            raise StateLost("the workers of a run that ended within a round cannot go on")
        self._marks = {number: self.transitions // duty.interval for number, duty in enumerate(periodic)}
        self.pool = pool = self._make_pool(self._task, self._histories)
        self.learner.connect(pool)
        try:
            pool.start()
            if not self.config.deterministic:
                self.learner.publish()
            while not (self.transitions >= total_transitions and self.learner.finished_updates):
                if stop.is_set():
                    return False
                if self.config.deterministic:
                    self.learner.round(stop.is_set)
                else:
                    self.learner.step(_WAIT)
                self._do_duties(periodic)
            return True
        finally:
            self._end(pool)

    def metrics(self) -> dict[str, float]:
        """Return counters, and means since the last call; documented in ``docs/distributed.md``."""
        pool = self._last_metrics if self.pool is None else self.pool.metrics()
        pool |= self._supervision() if pool else {}
        return {**self.learner.metrics(), **{f"training/{name}": value for name, value in pool.items()}}

    def state(self) -> ServiceState:
        """Return copies of all that the service needs to go on, besides the agent.

        In lock step this is the state after the last whole round. Otherwise batches that are still on their way
        are not in it: what the counters count is what the replay buffer holds.

        Raises:
            StateLost: a worker broke off within a round, and its state from before was not kept.
        """
        self.learner.settle()
        histories = self._histories if self.pool is None else self.pool.state(self.learner.rounds)
        if histories is None:
            raise StateLost("the run ended within a round of collecting; the newest checkpoint is from before")
        counters = {**self.learner.get_state(), **self._supervision(), "deterministic": self.config.deterministic}
        counters["workers"] = len(histories)
        if not self.config.deterministic:
            counters["incarnations"] = [history.incarnation for history in histories]
        collector = {
            f"{worker}/{name}": np.array(value)
            for worker, history in enumerate(histories)
            for name, value in history.state.items()
        }
        return ServiceState(counters, self.consumer.state_arrays(), collector)

    def _end(self, pool: WorkerPool) -> None:
        """Keep what a later life needs of the workers, and stop them."""
        try:
            self._histories = pool.state(self.learner.rounds)
        except StateLost:
            self._histories = None
        finally:
            pool.stop()
            self._last_metrics = pool.metrics()
            self._earlier = {name: int(value) for name, value in self._supervision().items()}
            self.pool = None

    def _do_duties(self, duties: Sequence[Periodic]) -> None:
        for number, duty in enumerate(duties):
            mark = self.transitions // duty.interval
            if mark > self._marks[number]:
                self._marks[number] = mark
                duty.call(self)

    def _supervision(self) -> dict[str, int]:
        """Return the pool's counters, those of earlier lives included."""
        now = {} if self.pool is None else self.pool.metrics()
        return {name: int(now.get(name, 0)) + self._earlier[name] for name in _SUPERVISION}

    def _restore(self, state: ServiceState) -> None:
        counters = state.counters
        try:
            workers, deterministic = int(counters["workers"]), bool(counters["deterministic"])
            self._earlier = {name: int(counters[name]) for name in _SUPERVISION}
            self.learner.set_state(counters)
            fresh = [self.learner.rounds + 1] * workers
            incarnations = [int(number) for number in counters.get("incarnations", fresh)]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"the saved state lacks something, or holds it wrongly: {error}") from error
        if self.config.deterministic and (workers != self.config.num_workers or not deterministic):
            raise UsageError(
                "a deterministic run goes on only as a deterministic run of as many workers: "
                f"the state has {workers}, num_workers is {self.config.num_workers}"
            )
        self.consumer.load_state_arrays(state.replay)
        rounds = self.learner.rounds if self.config.deterministic else 0
        saved = [
            WorkerHistory(number, rounds, _worker_state(state.collector, worker) if rounds else {})
            for worker, number in enumerate(incarnations)
        ]
        assert self._histories is not None
        self._histories = [*saved, *self._histories[workers:]][: self.config.num_workers]


def _worker_state(arrays: Mapping[str, np.ndarray], worker: int) -> dict[str, np.ndarray]:
    prefix = f"{worker}/"
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
