"""The learner: takes batches in, updates the agent at the exact ratio, publishes the policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from racer.agents.policy import params_to_bytes
from racer.core.errors import RacerError
from racer.distributed.channels import ExperienceReceiver, ParameterPublisher, Parameters, WorkerBatch
from racer.distributed.config import ServiceConfig
from racer.distributed.consumers import Consumer, Info
from racer.distributed.statistics import MeanOfDicts, Throughput

__all__ = ["DistributedLearner", "LearningDiverged"]


class LearningDiverged(RacerError):
    """Too many updates in a row had a loss or a gradient that is not finite."""


class DistributedLearner:
    """Owns the agent. Everything here runs on the thread that calls :meth:`step` or :meth:`round`.

    Args:
        agent: what learns; see :class:`racer.agents.protocol.Agent`. ``update`` may return before it has computed.
        consumer: what is done with experience.
        experience: where batches come from.
        parameters: where the policy is published.
        config: of the service.
        epoch: of the service.
    """

    def __init__(
        self,
        agent: Any,
        consumer: Consumer,
        experience: ExperienceReceiver,
        parameters: ParameterPublisher,
        config: ServiceConfig,
        *,
        epoch: int = 1,
    ) -> None:
        self.agent = agent
        self.consumer = consumer
        self.config = config
        self.epoch = epoch
        self.transitions = 0
        self.updates = 0
        self.version = 0
        self.rounds = 0
        self.episodes = 0
        self.nonfinite_updates = 0
        self.skipped_publications = 0
        self._experience = experience
        self._parameters = parameters
        self._nonfinite_run = 0
        self._random_published = False
        self._updates_published = -1
        self._next_publication = -float("inf")
        self._unsettled: Info | None = None
        self._episode_means = MeanOfDicts()
        self._info_means = MeanOfDicts()
        self._throughput = Throughput()
        self._lags: list[int] = []

    def connect(self, experience: ExperienceReceiver, parameters: ParameterPublisher) -> None:
        """Change to other channels (those of new workers)."""
        self._experience, self._parameters = experience, parameters

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
            batch = self._experience.get(timeout)
            worked = batch is not None
            if batch is not None:
                self._accept(batch)
            due = False
        if due or self._publication_due():
            self.publish()
        return worked

    def round(self, should_stop: Callable[[], bool], timeout: float = 0.2) -> bool:
        """Finish one lock-step round: every worker's batch in worker order, then every update that is due.

        The round must have been published. Returns False where ``should_stop`` said so first; nothing of the round has
        then been taken in.
        """
        batches: dict[int, WorkerBatch] = {}
        while len(batches) < self.config.num_workers:
            if should_stop():
                return False
            batch = self._experience.get(timeout)
            # A worker that died after it delivered is replaced by one that knows the round is done; a batch of an
            # earlier round cannot arrive, because rounds are published only once every worker has delivered.
            if batch is not None and batch.round == self.rounds + 1:
                batches[batch.worker] = batch
        for worker in sorted(batches):
            self._accept(batches[worker])
        while self.consumer.updates_due():
            self._update()
        self.settle()
        self.rounds += 1
        return True

    def publish(self) -> None:
        """Publish the policy (or "act at random") with the next version. Waits for the last update's parameters.

        Parameters that are not finite are not published; workers go on with the last good ones.
        """
        self._next_publication = time.monotonic() + 1.0 / self.config.policy_update_frequency
        self._random_published = self.consumer.random_actions
        data = b""
        if not self._random_published:
            params = self.agent.policy_params
            if all(np.isfinite(value).all() for value in params.values()):
                data = params_to_bytes(params)
                self.version += 1
                self._updates_published = self.updates
            else:
                self.skipped_publications += 1
                self._updates_published = self.updates
                if not self.config.deterministic:
                    return
                raise LearningDiverged(f"policy parameters are not finite after {self.updates} updates")
        next_round = self.rounds + 1 if self.config.deterministic else 0
        self._parameters.publish(Parameters(self.version, self.epoch, next_round, data))

    def _publication_due(self) -> bool:
        if self._random_published and not self.consumer.random_actions:
            return True
        return self.updates > self._updates_published >= 0 and time.monotonic() >= self._next_publication

    def _accept(self, batch: WorkerBatch) -> None:
        if batch.policy_version > 0:
            self._lags.append(self.version - batch.policy_version)
        self.transitions += self.consumer.accept(batch, self.version)
        self._throughput.add(self.transitions)
        for episode in batch.experience.episodes:
            self.episodes += 1
            self._episode_means.add(episode)

    def _update(self) -> None:
        self.agent, info = self.consumer.update(self.agent)
        self.updates += 1
        # Wait for the update before this one, not for this one: the device computes while the next batch is sampled.
        self.settle()
        self._unsettled = info

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
        self._nonfinite_run = self._nonfinite_run + 1 if bad else 0
        self._info_means.add(values)
        if self._nonfinite_run >= self.config.max_nonfinite_updates:
            raise LearningDiverged(
                f"{self._nonfinite_run} updates in a row had losses or gradients that are not finite "
                f"(allowed: {self.config.max_nonfinite_updates - 1}), after {self.updates} updates"
            )

    def metrics(self) -> dict[str, float]:
        """Return counters, and means since the last call."""
        lags, self._lags = self._lags, []
        return {
            "transitions": float(self.transitions),
            "updates": float(self.updates),
            "episodes": float(self.episodes),
            "policy_version": float(self.version),
            "policy_lag_mean": float(np.mean(lags)) if lags else 0.0,
            "policy_lag_max": float(max(lags, default=0)),
            "nonfinite_updates": float(self.nonfinite_updates),
            "skipped_publications": float(self.skipped_publications),
            **self._throughput.rates("steps_per_second"),
            **self.consumer.metrics(),
            **self._episode_means.take("episode/"),
            **self._info_means.take("learner/"),
        }
