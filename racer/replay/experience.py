"""What one collection leaves: time-major arrays and the statistics of the episodes that ended in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Batch", "Experience"]

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Experience:
    """Rows of ``T`` steps of ``N`` environments. Every observation stands here once.

    =============  =========  =====  ========  =======
    row            bootstrap  cut    forget    valid
    =============  =========  =====  ========  =======
    inside         1          0      0         1
    terminated     0          1      1         1
    time limit     1          1      1         1
    trial end      0          1      0         1
    off the road   0          1      0         1
    limbo          0          1      0         0
    =============  =========  =====  ========  =======

    "Off the road" is the row in which an ego leaves it while others of its environment drive on; limbo follows.

    Attributes:
        observations: ``[T + 1, N, ...]`` float32, what the policy saw; row ``T`` is what it sees next.
        actions: ``[T, N, A]`` float32, what the world took; ``[T, N]`` int64 where the action space is Discrete.
        rewards: ``[T, N]`` float32.
        bootstrap: ``[T, N]`` bool, whether what follows a row is worth anything: False stops the bootstrap.
        cut: ``[T, N]`` bool, whether a sum over later rows ends here.
        forget: ``[T, N]`` bool, whether the policy's memory is cleared after the row.
        valid: ``[T, N]`` bool. False where a row is no transition: the step that only reset an environment, a step
            whose observation or reward was not finite, or one in limbo. Values in such rows are finite and without
            meaning; the policy's memory after them is the memory before them.
        final_observations: ``[K, ...]`` float32, the successors that are not the next row of ``observations``.
        final_index: ``[K, 2]`` int32, row and environment of each.
        extras: what the policy added to its actions, ``[T, N, ...]`` each (log-probabilities, for instance).
        memory: the policy's memory before the first row, ``[N, ...]`` each.
        episodes: one dict of floats for every episode that ended, ``return`` and ``length`` at least.
        nonfinite: number of rows that were dropped, and of first observations that were replaced, because a value was
            not finite.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    bootstrap: np.ndarray
    cut: np.ndarray
    forget: np.ndarray
    valid: np.ndarray
    final_observations: np.ndarray
    final_index: np.ndarray
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    memory: dict[str, np.ndarray] = field(default_factory=dict)
    episodes: list[dict[str, float]] = field(default_factory=list)
    nonfinite: int = 0

    @property
    def num_transitions(self) -> int:
        """Number of valid rows."""
        return int(np.count_nonzero(self.valid))

    @property
    def next_observations(self) -> np.ndarray:
        """``[T, N, ...]`` float32, the successor of every row; at an episode's end its final observation."""
        if not len(self.final_index):
            return self.observations[1:]
        following = self.observations[1:].copy()
        following[self.final_index[:, 0], self.final_index[:, 1]] = self.final_observations
        return following

    def flat(self) -> Batch:
        """Return the valid transitions in time order, ``[T * N, ...]`` each: views where every row is valid.

        ``actions`` are what the policy chose, where a controller turned that into the world's own.
        """
        fields = {
            "observations": self.observations[:-1],
            "actions": self.extras.get("policy_actions", self.actions),
            "rewards": self.rewards,
            "masks": self.bootstrap.astype(np.float32),
            "dones": self.cut.astype(np.float32),
            "next_observations": self.next_observations,
        }
        if self.valid.all():
            return {name: array.reshape(-1, *array.shape[2:]) for name, array in fields.items()}
        return {name: array[self.valid] for name, array in fields.items()}
