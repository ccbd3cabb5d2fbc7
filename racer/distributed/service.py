"""The actor-learner service: workers, supervisor and learner, joined and run."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from racer.core.errors import UsageError
from racer.distributed.config import ServiceConfig
from racer.distributed.consumers import Consumer
from racer.distributed.learner import DistributedLearner
from racer.distributed.supervisor import Supervisor, WorkerHistory

__all__ = ["ActorLearnerService", "Periodic", "ServiceState"]

_WAIT = 0.2
_COUNTERS = ("transitions", "updates", "version", "rounds", "episodes", "nonfinite_updates", "skipped_publications")
_SUPERVISION = ("worker_restarts", "worker_failures", "dropped_batches")


@dataclass(frozen=True)
class ServiceState:
    """What a checkpoint keeps of the service besides the agent.

    Attributes:
        counters: plain numbers and lists, JSON-able.
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
    """Worker processes collect, one learner updates.

    Args:
        env_factory: builds one worker's vector environment; pickled (cloudpickle) to our own child processes.
        agent: what learns. ``agent.policy_spec`` and ``agent.policy_params`` are what workers act with.
        consumer: what is done with experience (off-policy or on-policy).
        config: processes, channels and supervision.
        warmup_policy_spec: policy of the warm-up, for :func:`racer.agents.policy.build_policy`; None for actions drawn
            uniformly from the whole action space.
        state: of an earlier service, to go on where it was. Its epoch is left behind: nothing that was on its way then
            can be taken for something of now.

    Raises:
        UsageError: ``state`` does not fit the configuration.
    """

    def __init__(
        self,
        env_factory: Callable[[], VectorEnv],
        agent: Any,
        consumer: Consumer,
        config: ServiceConfig,
        *,
        warmup_policy_spec: Mapping[str, Any] | None = None,
        state: ServiceState | None = None,
    ) -> None:
        self.config = config
        self.consumer = consumer
        self._env_factory = env_factory
        self._policy_spec = agent.policy_spec
        self._warmup_policy_spec = warmup_policy_spec
        self._histories = [WorkerHistory() for _ in range(config.num_workers)]
        self._earlier = dict.fromkeys(_SUPERVISION, 0)
        epoch = 1 if state is None else int(state.counters["epoch"]) + 1
        self.supervisor = self._new_supervisor(epoch)
        self.learner = DistributedLearner(agent, consumer, self.supervisor, self.supervisor, config, epoch=epoch)
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
        on_log: Callable[[dict[str, float]], None] | None = None,
        log_interval: int = 1000,
        on_checkpoint: Callable[[ActorLearnerService], None] | None = None,
        checkpoint_interval: int = 10_000,
        periodic: Sequence[Periodic] = (),
        stop_event: threading.Event | None = None,
    ) -> bool:
        """Train until ``total_transitions`` have been taken in and every update they pay for is made.

        Args:
            total_transitions: counted over all lives of the service.
            on_log: receives :meth:`metrics` every ``log_interval`` transitions.
            log_interval: transitions.
            on_checkpoint: receives the service every ``checkpoint_interval`` transitions; :meth:`state` is then whole.
            checkpoint_interval: transitions.
            periodic: further things to do.
            stop_event: set it (from a signal handler, say) to end early. At most one update and 0.2 s later the run
                begins to end.

        Returns:
            Whether the goal was reached. Workers have ended and everything is released in any case.

        Raises:
            WorkerCrashLoop: a worker failed too often; the message ends with the root cause.
            NonFiniteData: a worker's environment gives nothing but values that are not finite.
            LearningDiverged: updates are not finite.
            UsageError: a worker found its configuration wrong.
        """
        duties = list(periodic)
        if on_log is not None:
            duties.append(Periodic(log_interval, lambda service: on_log(service.metrics())))
        if on_checkpoint is not None:
            duties.append(Periodic(checkpoint_interval, on_checkpoint))
        for duty in duties:
            if duty.interval < 1:
                raise UsageError(f"interval must be at least 1 transition, not {duty.interval}")
        stop = stop_event or threading.Event()
        self._renew_supervisor()
        self._marks = {number: self.transitions // duty.interval for number, duty in enumerate(duties)}
        advance = self._lock_step if self.config.deterministic else self._free_step
        self.supervisor.start()
        try:
            if not self.config.deterministic:
                self.learner.publish()
            while not self._done(total_transitions):
                if stop.is_set():
                    return False
                advance(stop)
                self._do_duties(duties)
            return True
        finally:
            self.supervisor.stop()
            if not self.config.deterministic:
                self._histories = self.supervisor.histories

    def metrics(self) -> dict[str, float]:
        """Return counters, and means since the last call; documented in ``docs/distributed.md``."""
        return {**self.learner.metrics(), **self.supervisor.metrics(), **self._supervision()}

    def state(self) -> ServiceState:
        """Return copies of all that the service needs to go on, besides the agent.

        In lock step this is the state after the last whole round. Otherwise batches that are still on their way
        are not in it: what the counters count is what the replay buffer holds.
        """
        self.learner.settle()
        histories = self._histories if self.config.deterministic else self.supervisor.histories
        counters: dict[str, Any] = {name: getattr(self.learner, name) for name in _COUNTERS}
        counters |= {name: int(value) for name, value in self._supervision().items()}
        counters["epoch"] = self.learner.epoch
        counters["deterministic"] = self.config.deterministic
        counters["incarnations"] = [history.incarnation for history in histories]
        counters["rounds_done"] = [history.rounds_done for history in histories]
        collector = {
            f"{worker}/{name}": np.array(value)
            for worker, history in enumerate(histories)
            for name, value in history.state.items()
        }
        return ServiceState(counters, self.consumer.state_arrays(), collector)

    def _done(self, total: int) -> bool:
        return self.transitions >= total and self.learner.finished_updates

    def _free_step(self, stop: threading.Event) -> None:
        self.supervisor.raise_if_failed()
        self.learner.step(_WAIT)

    def _lock_step(self, stop: threading.Event) -> None:
        version = self.learner.version
        self.learner.publish()

        def should_stop() -> bool:
            self.supervisor.raise_if_failed()
            return stop.is_set()

        if self.learner.round(should_stop):
            # No worker can begin the next round before it is published, so all stand at the same point now.
            self._histories = copy.deepcopy(self.supervisor.histories)
        else:
            # The round will be done again, under the version that it would have had.
            self.learner.version = version

    def _do_duties(self, duties: Sequence[Periodic]) -> None:
        for number, duty in enumerate(duties):
            mark = self.transitions // duty.interval
            if mark > self._marks[number]:
                self._marks[number] = mark
                duty.call(self)

    def _supervision(self) -> dict[str, float]:
        """Return the supervisor's counters, those of earlier lives included."""
        now = self.supervisor.metrics()
        return {name: now[name] + self._earlier[name] for name in _SUPERVISION}

    def _new_supervisor(self, epoch: int) -> Supervisor:
        return Supervisor(
            self._env_factory,
            self._policy_spec,
            self.config,
            warmup_policy_spec=self._warmup_policy_spec,
            epoch=epoch,
            histories=copy.deepcopy(self._histories),
        )

    def _renew_supervisor(self) -> None:
        """Put a fresh supervisor in the place of one that has run."""
        if not self.supervisor.has_run:
            return
        self._earlier = {name: int(value) for name, value in self._supervision().items()}
        self.learner.epoch += 1
        self.supervisor = self._new_supervisor(self.learner.epoch)
        self.learner.connect(self.supervisor, self.supervisor)

    def _restore(self, state: ServiceState) -> None:
        counters = state.counters
        missing = {*_COUNTERS, *_SUPERVISION, "epoch", "incarnations", "rounds_done", "deterministic"} - set(counters)
        if missing:
            raise UsageError(f"service state has no {', '.join(sorted(missing))}")
        workers = len(counters["incarnations"])
        if self.config.deterministic and (workers != self.config.num_workers or not counters["deterministic"]):
            raise UsageError(
                "a deterministic run goes on only as a deterministic run of as many workers: "
                f"the state has {workers}, num_workers is {self.config.num_workers}"
            )
        self.consumer.load_state_arrays(state.replay)
        for name in _COUNTERS:
            setattr(self.learner, name, int(counters[name]))
        self._earlier = {name: int(counters[name]) for name in _SUPERVISION}
        for worker, history in enumerate(self._histories[:workers]):
            history.incarnation = int(counters["incarnations"][worker])
            if self.config.deterministic:
                history.rounds_done = int(counters["rounds_done"][worker])
                history.state = _worker_state(state.collector, worker)
        self.supervisor = self._new_supervisor(self.learner.epoch)
        self.learner.connect(self.supervisor, self.supervisor)


def _worker_state(arrays: Mapping[str, np.ndarray], worker: int) -> dict[str, np.ndarray]:
    prefix = f"{worker}/"
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
