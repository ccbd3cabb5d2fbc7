"""The only learner loop: takes batches in, updates the agent at the exact ratio, publishes the policy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from racer.core.errors import RacerError
from racer.core.terminal import said_if_slow
from racer.distributed.config import ServiceConfig
from racer.distributed.consumers import Consumer, Info
from racer.distributed.pool import Parameters, WorkerBatch, WorkerPool
from racer.distributed.statistics import EpisodeWindow, MeanOfDicts, Throughput
from racer.envs.metric import BASE_METRICS, Metric

__all__ = ["DistributedLearner", "LearningDiverged"]

_COUNTERS = (
    "transitions", "updates", "version", "rounds", "nonfinite_updates", "nonfinite_run",
    "skipped_publications",
)  # fmt: skip


_SLOW_SECONDS = 2.0
_COMPILING = "compiling the update: seconds, but a minute or more for a memory over long episodes"


class LearningDiverged(RacerError):
    """Too many updates in a row had a loss or a gradient that is not finite."""


class DistributedLearner:
    """Owns the agent. Everything here runs on the thread that calls :meth:`step` or :meth:`round`.

    Args:
        agent: what learns; see :class:`racer.agents.protocol.Learner`. ``update`` may return before it has computed.
        consumer: what is done with experience.
        config: of the service.
        metrics: what the world reports of every episode.
    """

    def __init__(
        self,
        agent: Any,
        consumer: Consumer,
        config: ServiceConfig,
        *,
        metrics: Sequence[Metric] = BASE_METRICS,
    ) -> None:
        self.agent = agent
        self.consumer = consumer
        self.config = config
        self.transitions = 0
        self.updates = 0
        self.version = 0
        self.rounds = 0
        self.nonfinite_updates = 0
        self.skipped_publications = 0
        self.nonfinite_run = 0
        self.episodes = EpisodeWindow(metrics)
        self._pool: WorkerPool | None = None
        self._random_published = False
        self._updates_published = -1
        self._next_publication = -float("inf")
        self._unsettled: Info | None = None
        self._compiled = False
        self._info_means = MeanOfDicts()
        self._throughput = Throughput()
        self._lags: list[int] = []

    def connect(self, pool: WorkerPool) -> None:
        """Take batches from ``pool`` and publish to it."""
        self._pool = pool

    @property
    def pool(self) -> WorkerPool:
        """Where batches come from."""
        assert self._pool is not None, "the learner is connected before it works"
        return self._pool

    @property
    def finished_updates(self) -> bool:
        """Whether every update that the data pays for has been made."""
        return self.consumer.updates_due() == 0

    def step(self, timeout: float) -> bool:
        """Make one update if one is due, else take one batch; publish when it is time.

        Returns:
            False where no update was due and no batch came within ``timeout`` seconds.

        Raises:
            LearningDiverged: too many updates in a row were not finite.
        """
        worked = True
        if self.consumer.updates_due():
            self._update()
            due = self.consumer.publish_after_update
        else:
            batch = self.pool.get(timeout)
            worked = batch is not None
            if batch is not None:
                self._accept(batch)
            due = False
        if due or self._publication_due():
            self.publish()
        return worked

    def round(self, should_stop: Callable[[], bool], timeout: float = 0.2) -> bool:
        """Make one lock-step round: publish, take every worker's batch in worker order, then every update that is due.

        Returns False where ``should_stop`` said so while a batch was awaited; nothing of the round has then been taken
        in, and it will be done again under the version that it would have had.
        """
        version = self.version
        self.publish()
        try:
            batches = self._gather(should_stop, timeout)
        except BaseException:
            self.version = version
            raise
        if batches is None:
            self.version = version
            return False
        for worker in sorted(batches):
            self._accept(batches[worker])
        while self.consumer.updates_due():
            self._update()
        self.settle()
        self.rounds += 1
        return True

    def _gather(self, should_stop: Callable[[], bool], timeout: float) -> dict[int, WorkerBatch] | None:
        """Wait for every worker's batch of the round that was published, or for the word to stop."""
        batches: dict[int, WorkerBatch] = {}
        while len(batches) < self.config.num_workers:
            batch = self.pool.get(timeout)
            # A worker that died after it delivered is replaced by one that knows the round is done; a batch of an
            # earlier round cannot arrive, because rounds are published only once every worker has delivered.
            if batch is not None and batch.round == self.rounds + 1:
                batches[batch.worker] = batch
            elif should_stop():
                return None
        return batches

    def publish(self) -> None:
        """Publish the policy (or "act at random") with the next version. Waits for the last update's parameters.

        Parameters that are not finite are not published; workers go on with the last good ones.
        """
        self._next_publication = time.monotonic() + 1.0 / self.config.policy_update_frequency
        self._random_published = self.consumer.random_actions
        next_round = self.rounds + 1 if self.config.deterministic else 0
        if self._random_published:
            self.pool.publish(Parameters(self.version, next_round))
            return
        self._updates_published = self.updates
        arrays = self.agent.policy_params
        if all(np.isfinite(value).all() for value in arrays.values()):
            self.version += 1
            self.pool.publish(Parameters(self.version, next_round, arrays))
            return
        self.skipped_publications += 1
        if self.config.deterministic:
            raise LearningDiverged(f"policy parameters are not finite after {self.updates} updates")

    def settle(self) -> None:
        """Wait for the last update, look at its losses, and count.

        Raises:
            LearningDiverged: too many updates in a row were not finite.
        """
        info, self._unsettled = self._unsettled, None
        if info is None:
            return
        values = {name: float(np.asarray(value)) for name, value in info.items() if np.ndim(value) == 0}
        if "nonfinite_updates" in values:
            bad = int(values["nonfinite_updates"])
        else:
            bad = int(not np.isfinite(list(values.values())).all())
        self.nonfinite_updates += bad
        self.nonfinite_run = self.nonfinite_run + 1 if bad else 0
        self._info_means.add(values)
        if self.nonfinite_run >= self.config.max_nonfinite_updates:
            raise LearningDiverged(
                f"{self.nonfinite_run} updates in a row had losses or gradients that are not finite "
                f"(allowed: {self.config.max_nonfinite_updates - 1}), after {self.updates} updates; "
                "the newest checkpoint is from before"
            )

    def metrics(self) -> dict[str, float]:
        """Return counters, the last episodes, and means over the updates since the last call, as logs name them."""
        lags, self._lags = self._lags, []
        training = {
            "transitions": self.transitions,
            "updates": self.updates,
            "policy_version": self.version,
            "policy_lag_mean": float(np.mean(lags)) if lags else 0.0,
            "policy_lag_max": max(lags, default=0),
            "nonfinite_updates": self.nonfinite_updates,
            "skipped_publications": self.skipped_publications,
            **self.consumer.metrics(),
            **self.episodes.means(),
        }
        return {
            **{f"training/{name}": value for name, value in training.items()},
            **self._info_means.take("agent/"),
            **self._throughput.rates("speed/steps_per_second"),
        }

    def get_state(self) -> dict[str, Any]:
        """Return counters and statistics as JSON values; the agent and the consumer's arrays are kept apart."""
        counters = {name: getattr(self, name) for name in _COUNTERS}
        return {**counters, "episodes": self.episodes.get_state(), "agent_means": self._info_means.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Return to :meth:`get_state`."""
        for name in _COUNTERS:
            setattr(self, name, int(state[name]))
        self.episodes.set_state(state["episodes"])
        self._info_means.set_state(state["agent_means"])

    def _publication_due(self) -> bool:
        if self._random_published and not self.consumer.random_actions:
            return True
        return self.updates > self._updates_published >= 0 and time.monotonic() >= self._next_publication

    def _accept(self, batch: WorkerBatch) -> None:
        if batch.policy_version > 0:
            self._lags.append(self.version - batch.policy_version)
        self.transitions += self.consumer.accept(batch, self.version)
        self._throughput.add(self.transitions)
        self.episodes.extend(batch.experience.episodes)

    def _update(self) -> None:
        with contextlib.nullcontext() if self._compiled else said_if_slow(_COMPILING, _SLOW_SECONDS):
            self.agent, info = self.consumer.update(self.agent)
        self._compiled = True
        self.updates += 1
        # Wait for the update before this one, not for this one: the device computes while the next batch is sampled.
        self.settle()
        self._unsettled = info
