"""Rollouts side by side, as an agent that learns from sequences takes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from racer.agents.protocol import ROW_FLAGS
from racer.core.errors import UsageError
from racer.replay.experience import Experience

__all__ = ["join_rollouts"]


def join_rollouts(experiences: Sequence[Experience]) -> dict[str, np.ndarray]:
    """Put collections of equal length side by side.

    Args:
        experiences: of ``T`` steps of ``N_i`` environments each, with the same extras and memory.

    Returns:
        Arrays by name, ``N = sum N_i``: ``observations`` ``[T + 1, N, ...]``; ``actions``, ``rewards``,
        ``bootstrap``, ``cut``, ``forget``, ``valid`` and the policy's extras ``[T, N, ...]``; the memory before the
        first row as ``memory/<name>`` ``[N, ...]``; ``final_observations`` ``[K, ...]`` and ``final_index`` ``[K, 2]``,
        where K is the power of two from ``T * N / 4`` on, or four times it where more episodes ended (a
        learner compiles anew for each K), and the rows that fill it up point at ``(T, 0)``, one past the end.

    Raises:
        UsageError: there are none, or their lengths, extras or memories differ.
    """
    if not experiences:
        raise UsageError("there are no rollouts to join")
    first = experiences[0]
    for other in experiences[1:]:
        if _form(other) != _form(first):
            raise UsageError(f"rollouts of {_form(first)} do not go together with {_form(other)}")
    fields = ("observations", "actions", "rewards", *ROW_FLAGS)
    joined = {name: _beside([getattr(e, name) for e in experiences], axis=1) for name in fields}
    joined |= {name: _beside([e.extras[name] for e in experiences], axis=1) for name in first.extras}
    joined |= {f"memory/{name}": _beside([e.memory[name] for e in experiences], axis=0) for name in first.memory}
    return joined | _finals(experiences)


def _form(experience: Experience) -> str:
    names = [*sorted(experience.extras), *sorted(experience.memory)]
    return f"{len(experience.rewards)} steps with {names}"


def _beside(arrays: list[np.ndarray], axis: int) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=axis)


def _finals(experiences: Sequence[Experience]) -> dict[str, np.ndarray]:
    """Join the final observations, each shifted to its environments, and fill up."""
    steps = len(experiences[0].rewards)
    count = sum(len(e.final_index) for e in experiences)
    rows = sum(e.rewards.size for e in experiences)
    size = 1 << (max(rows // 4, 1) - 1).bit_length()
    while size < count:
        size *= 4
    observations = np.zeros((size, *experiences[0].observations.shape[2:]), np.float32)
    index = np.tile(np.array([steps, 0], np.int32), (size, 1))
    row = before = 0
    for e in experiences:
        found = len(e.final_index)
        observations[row : row + found] = e.final_observations
        index[row : row + found] = e.final_index + np.array([0, before], np.int32)
        row, before = row + found, before + e.rewards.shape[1]
    return {"final_observations": observations, "final_index": index}
