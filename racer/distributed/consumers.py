"""What the learner does with experience: learn from replay, or from fresh rollouts.

A consumer is the only part of the service that knows how an algorithm wants its data. The learner asks it whether an
update is due, else hands it the next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from racer.core.errors import UsageError
from racer.distributed.channels import WorkerBatch
from racer.distributed.config import OffPolicyConfig
from racer.distributed.rate_limiter import RateLimiter
from racer.distributed.replay import DistributedReplayBuffer
from racer.replay.experience import Batch

__all__ = ["Consumer", "OffPolicyConsumer", "OnPolicyConsumer", "UpdatableAgent"]

Info = Mapping[str, Any]


class UpdatableAgent(Protocol):
    """What the service asks of an agent; see :class:`racer.agents.protocol.Agent`."""

    @property
    def policy_spec(self) -> dict[str, Any]: ...

    @property
    def policy_params(self) -> dict[str, np.ndarray]: ...

    def update(self, batch: Mapping[str, np.ndarray], utd_ratio: int) -> tuple[Any, Info]: ...


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
        action_shape: shape of one action.
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
        self.buffer = DistributedReplayBuffer(config.replay_buffer_size, observation_shape, action_shape, seed=seed)
        self.limiter = RateLimiter(config)
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
        """Insert the batch's finite transitions."""
        inserted = self.buffer.insert(batch)
        self.limiter.transitions += inserted
        return inserted

    def update(self, agent: UpdatableAgent) -> tuple[Any, Info]:
        """Sample ``utd_ratio`` minibatches and make one update() call."""
        turn = self.limiter.updates % 2
        rows = self.config.utd_ratio * self.config.batch_size
        batch = self._minibatches[turn] = self.buffer.sample(rows, out=self._minibatches[turn])
        result = agent.update(batch, self.config.utd_ratio)
        self.limiter.updates += 1
        return result

    def metrics(self) -> dict[str, float]:
        """See :class:`Consumer`."""
        return {
            "replay_size": float(len(self.buffer)),
            "gradient_steps": float(self.limiter.gradient_steps),
            "utd_target": self.config.update_to_data,
            "utd_achieved": self.limiter.achieved,
            "nonfinite_transitions": float(self.buffer.nonfinite),
        }

    def state_arrays(self) -> dict[str, np.ndarray]:
        """See :class:`Consumer`."""
        counts = np.array([self.limiter.transitions, self.limiter.updates, self.buffer.nonfinite], np.int64)
        return {**self.buffer.state_arrays(), "counts": counts}

    def load_state_arrays(self, state: Mapping[str, np.ndarray]) -> None:
        """See :class:`Consumer`."""
        if "counts" not in state or state["counts"].shape != (3,):
            raise UsageError("replay state has no counts of transitions, updates and refused transitions")
        self.buffer.load_state_arrays(state)
        transitions, updates, nonfinite = (int(value) for value in state["counts"])
        self.limiter.transitions, self.limiter.updates, self.buffer.nonfinite = transitions, updates, nonfinite


class OnPolicyConsumer:
    """Gathers whole rollouts of fresh enough policies and hands them to the algorithm's own update.

    Args:
        update: ``(agent, rollouts) -> (agent, info)``; each rollout is a :class:`WorkerBatch` with time-major
            arrays and the policy's extras.
        batches_per_update: rollouts that make an update.
        max_policy_lag: rollouts whose policy is more publications old than this are dropped and counted.
    """

    publish_after_update = True
    random_actions = False

    def __init__(
        self,
        update: Callable[[Any, list[WorkerBatch]], tuple[Any, Info]],
        *,
        batches_per_update: int,
        max_policy_lag: int = 1,
    ) -> None:
        if batches_per_update < 1 or max_policy_lag < 0:
            raise UsageError("batches_per_update must be at least 1 and max_policy_lag at least 0")
        self._update = update
        self._needed = batches_per_update
        self._max_lag = max_policy_lag
        self._rollouts: list[WorkerBatch] = []
        self._updates = 0
        self._stale = 0
        self._nonfinite = 0

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
        return batch.experience.num_transitions

    def update(self, agent: Any) -> tuple[Any, Info]:
        """Hand the gathered rollouts to the algorithm."""
        rollouts, self._rollouts = self._rollouts[: self._needed], self._rollouts[self._needed :]
        result = self._update(agent, rollouts)
        self._updates += 1
        return result

    def metrics(self) -> dict[str, float]:
        """See :class:`Consumer`."""
        return {"stale_batches": float(self._stale), "nonfinite_transitions": float(self._nonfinite)}

    def state_arrays(self) -> dict[str, np.ndarray]:
        """See :class:`Consumer`. Rollouts that wait for an update are not kept: a resumed run collects anew."""
        return {"counts": np.array([self._updates, self._stale, self._nonfinite], np.int64)}

    def load_state_arrays(self, state: Mapping[str, np.ndarray]) -> None:
        """See :class:`Consumer`."""
        if "counts" not in state or state["counts"].shape != (3,):
            raise UsageError("on-policy state has no counts")
        self._updates, self._stale, self._nonfinite = (int(value) for value in state["counts"])
        self._rollouts = []
