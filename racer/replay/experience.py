"""What one collection leaves: time-major arrays and the statistics of the episodes that ended in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["BATCH_FIELDS", "Batch", "Experience"]

Batch = dict[str, np.ndarray]

BATCH_FIELDS = ("observations", "actions", "rewards", "masks", "dones", "next_observations")
"""Fields of a transition batch, in the order in which they are stored and sent."""


@dataclass(frozen=True)
class Experience:
    """Transitions of ``T`` steps of ``N`` environments.

    Attributes:
        observations: ``[T, N, ...]`` float32, what the policy saw.
        actions: ``[T, N, A]`` float32, what it did; ``[T, N]`` int64 where the action space is Discrete.
        rewards: ``[T, N]`` float32.
        masks: ``[T, N]`` float32, ``1 - terminated``: zero stops the bootstrap.
        dones: ``[T, N]`` float32, ``terminated | truncated``: one ends the episode.
        next_observations: ``[T, N, ...]`` float32; at an episode's end its final observation.
        valid: ``[T, N]`` bool. False where a row is no transition: the step that only reset an environment, or a
            step whose observation or reward was not finite. Values in such rows are finite and without meaning;
            a sequence must not be carried across them.
        extras: what the policy added to its actions, ``[T, N, ...]`` each (log-probabilities, for instance).
        episodes: one dict of floats for every episode that ended, ``return`` and ``length`` at least.
        nonfinite: number of rows that were dropped, and of first observations that were replaced, because a value was
            not finite.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    masks: np.ndarray
    dones: np.ndarray
    next_observations: np.ndarray
    valid: np.ndarray
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    episodes: list[dict[str, float]] = field(default_factory=list)
    nonfinite: int = 0

    @property
    def num_transitions(self) -> int:
        """Number of valid rows."""
        return int(np.count_nonzero(self.valid))

    def flat(self) -> Batch:
        """Return the valid transitions in time order, ``[T * N, ...]`` each: views where every row is valid."""
        batch: Batch = {}
        whole = bool(self.valid.all())
        for name in BATCH_FIELDS:
            array: np.ndarray = getattr(self, name)
            batch[name] = array.reshape(-1, *array.shape[2:]) if whole else array[self.valid]
        return batch
