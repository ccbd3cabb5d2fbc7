"""The replay buffer that a receiving and a sampling thread may use at once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from racer.distributed.channels import WorkerBatch
from racer.replay.experience import Batch
from racer.replay.ring_buffer import RingReplayBuffer

__all__ = ["DistributedReplayBuffer"]


class DistributedReplayBuffer:
    """A :class:`racer.replay.RingReplayBuffer` behind a lock, that knows where its transitions came from.

    Args:
        capacity: transitions kept.
        observation_shape: shape of one observation.
        action_shape: shape of one action.
        seed: of the sampling stream.

    Attributes:
        nonfinite: transitions that were refused because a value was not finite (by workers or here).
    """

    def __init__(
        self, capacity: int, observation_shape: Sequence[int], action_shape: Sequence[int], *, seed: int = 0
    ) -> None:
        self._ring = RingReplayBuffer(capacity, observation_shape, action_shape, seed=seed)
        self._lock = threading.Lock()
        self.nonfinite = 0
        self._by_worker: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def capacity(self) -> int:
        """Transitions kept at most."""
        return self._ring.capacity

    @property
    def total_inserted(self) -> int:
        """Transitions ever inserted."""
        return self._ring.total_inserted

    @property
    def transitions_by_worker(self) -> dict[int, int]:
        """Transitions inserted in this process's life, by worker."""
        with self._lock:
            return dict(self._by_worker)

    def insert(self, batch: WorkerBatch) -> int:
        """Insert the valid and finite transitions of ``batch`` in time order; return how many they were."""
        rows = batch.experience.flat()
        finite = np.ones(len(rows["rewards"]), bool)
        for values in rows.values():
            if not np.isfinite(values).all():
                finite &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
        refused = int(np.count_nonzero(~finite))
        if refused:
            rows = {name: values[finite] for name, values in rows.items()}
        with self._lock:
            inserted = self._ring.insert(rows, policy_versions=batch.policy_version)
            self.nonfinite += refused + batch.experience.nonfinite
            self._by_worker[batch.worker] = self._by_worker.get(batch.worker, 0) + inserted
        return inserted

    def sample(self, batch_size: int, out: Batch | None = None) -> Batch:
        """See :meth:`racer.replay.RingReplayBuffer.sample`."""
        with self._lock:
            return self._ring.sample(batch_size, out)

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Return copies of everything that sampling depends on."""
        with self._lock:
            return self._ring.state_arrays()

    def load_state_arrays(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what :meth:`state_arrays` returned."""
        with self._lock:
            self._ring.load_state_arrays(state)
