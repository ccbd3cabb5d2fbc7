"""What the learner does with experience: learn from replay, or from fresh rollouts.

A consumer is the only part of the service that knows how an algorithm wants its data. The learner asks it whether an
update is due, else hands it the next batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from racer.core.errors import UsageError
from racer.distributed.config import OffPolicyConfig
from racer.distributed.pool import WorkerBatch
from racer.distributed.rate_limiter import RateLimiter
from racer.replay.experience import Batch
from racer.replay.ring_buffer import RingReplayBuffer
from racer.replay.sequence import join_rollouts

__all__ = ["Consumer", "OffPolicyConsumer", "OnPolicyConsumer"]

Info = Mapping[str, Any]


class Consumer(Protocol):
    """Takes experience in and updates an agent from it."""

    publish_after_update: bool
    """Whether workers must see each update at once (on-policy), instead of at the publication frequency."""

    @property
    def random_actions(self) -> bool:
        """Whether workers should still act at random."""
        ...

    def updates_due(self) -> int:
        """Return how many updates must be made before another batch is accepted."""
        ...

    def accept(self, batch: WorkerBatch, current_version: int) -> int:
        """Take a batch in; return how many of its transitions count."""
        ...

    def update(self, agent: Any) -> tuple[Any, Info]:
        """Make one update. Only called while one is due."""
        ...

    def metrics(self) -> dict[str, float]:
        """Return what should be logged of the data and of the update-to-data ratio."""
        ...

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Return everything that the next update depends on, besides the agent (copies)."""
        ...

    def load_state_arrays(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what :meth:`state_arrays` returned."""
        ...


class OffPolicyConsumer:
    """Inserts into a replay buffer and samples minibatches from it, at an exact update-to-data ratio.

    Args:
        config: replay and ratios.
        observation_shape: shape of one observation.
        action_shape: shape of one action that the policy chooses.
        seed: of the sampling stream.
    """

    publish_after_update = False

    def __init__(
        self,
        config: OffPolicyConfig,
        observation_shape: Sequence[int],
        action_shape: Sequence[int],
        *,
        seed: int = 0,
    ) -> None:
        self.config = config
        self.buffer = RingReplayBuffer(config.replay_buffer_size, observation_shape, action_shape, seed=seed)
        self.limiter = RateLimiter(config)
        self.nonfinite = 0
        # Two sets of arrays in turn: an update that computes after it returned may still read the last one. The learner
        # waits for an update's result before it makes the next but one.
        self._minibatches: list[Batch | None] = [None, None]

    @property
    def random_actions(self) -> bool:
        """See :class:`Consumer`."""
        return self.limiter.warming_up

    def updates_due(self) -> int:
        """See :class:`Consumer`."""
        return self.limiter.updates_due

    def accept(self, batch: WorkerBatch, current_version: int) -> int:
        """Insert the batch's valid transitions in time order, without those that are not finite."""
        rows = batch.experience.flat()
        finite = np.ones(len(rows["rewards"]), bool)
        for values in rows.values():
            if not np.isfinite(values).all():
                finite &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
        refused = int(np.count_nonzero(~finite))
        if refused:
            rows = {name: values[finite] for name, values in rows.items()}
        inserted = self.buffer.insert(rows, policy_versions=batch.policy_version)
        self.nonfinite += refused + batch.experience.nonfinite
        self.limiter.transitions += inserted
        return inserted

    def update(self, agent: Any) -> tuple[Any, Info]:
        """Sample ``utd_ratio`` minibatches and make one update() call."""
        turn = self.limiter.updates % 2
        rows = self.config.utd_ratio * self.config.batch_size
        batch = self._minibatches[turn] = self.buffer.sample(rows, out=self._minibatches[turn])
        result: tuple[Any, Info] = agent.update(batch, self.config.utd_ratio)
        self.limiter.updates += 1
        return result

    def metrics(self) -> dict[str, float]:
        """See :class:`Consumer`."""
        return {
            "replay_size": len(self.buffer),
            "gradient_steps": self.limiter.gradient_steps,
            "update_to_data_target": self.config.update_to_data,
            "update_to_data": self.limiter.achieved,
            "nonfinite_transitions": self.nonfinite,
        }

    def state_arrays(self) -> dict[str, np.ndarray]:
        """See :class:`Consumer`."""
        counts = np.array([self.limiter.transitions, self.limiter.updates, self.nonfinite], np.int64)
        return {**self.buffer.state_arrays(), "counts": counts}

    def load_state_arrays(self, state: Mapping[str, np.ndarray]) -> None:
        """See :class:`Consumer`."""
        transitions, updates, nonfinite = _counts(state, 3)
        self.buffer.load_state_arrays(state)
        self.limiter.transitions, self.limiter.updates, self.nonfinite = transitions, updates, nonfinite


class OnPolicyConsumer:
    """Gathers whole rollouts of fresh enough policies; as many as there are workers make an update.

    Args:
        rollouts_per_update: rollouts that make an update.
        max_policy_lag: rollouts whose policy is more publications old than this are dropped and counted.
    """

    publish_after_update = True
    random_actions = False

    def __init__(self, *, rollouts_per_update: int, max_policy_lag: int = 1) -> None:
        if rollouts_per_update < 1 or max_policy_lag < 0:
            raise UsageError("rollouts_per_update must be at least 1 and max_policy_lag at least 0")
        self._needed = rollouts_per_update
        self._max_lag = max_policy_lag
        self._rollouts: list[WorkerBatch] = []
        self._transitions = self._gradient_steps = self._stale = self._nonfinite = 0

    def updates_due(self) -> int:
        """See :class:`Consumer`."""
        return int(len(self._rollouts) >= self._needed)

    def accept(self, batch: WorkerBatch, current_version: int) -> int:
        """Keep the rollout, unless its policy is too old."""
        self._nonfinite += batch.experience.nonfinite
        if current_version - batch.policy_version > self._max_lag:
            self._stale += 1
            return 0
        self._rollouts.append(batch)
        self._transitions += batch.experience.num_transitions
        return batch.experience.num_transitions

    def update(self, agent: Any) -> tuple[Any, Info]:
        """Make one update on the gathered rollouts, side by side."""
        rollouts, self._rollouts = self._rollouts[: self._needed], self._rollouts[self._needed :]
        agent, info = agent.update(join_rollouts([batch.experience for batch in rollouts]))
        self._gradient_steps += int(np.asarray(info.get("minibatches", 0)))
        return agent, info

    def metrics(self) -> dict[str, float]:
        """See :class:`Consumer`."""
        return {
            "gradient_steps": self._gradient_steps,
            "update_to_data": self._gradient_steps / max(self._transitions, 1),
            "stale_batches": self._stale,
            "nonfinite_transitions": self._nonfinite,
        }

    def state_arrays(self) -> dict[str, np.ndarray]:
        """See :class:`Consumer`. Rollouts that wait for an update are not kept: a resumed run collects anew."""
        return {"counts": np.array([self._transitions, self._gradient_steps, self._stale, self._nonfinite], np.int64)}

    def load_state_arrays(self, state: Mapping[str, np.ndarray]) -> None:
        """See :class:`Consumer`."""
        self._transitions, self._gradient_steps, self._stale, self._nonfinite = _counts(state, 4)
        self._rollouts = []


def _counts(state: Mapping[str, np.ndarray], size: int) -> tuple[int, ...]:
    counts = state.get("counts")
    if counts is None or counts.shape != (size,):
        raise UsageError("the saved state has no counts of transitions and updates")
    return tuple(int(value) for value in counts)
