"""Uniform replay in fixed arrays: whole batches in, whole minibatches out, state exact to the bit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from racer.agents.protocol import BATCH_FIELDS
from racer.core.errors import UsageError
from racer.core.memory import memory_limit
from racer.core.random_state import generator_from_array, generator_to_array
from racer.replay.experience import Batch

__all__ = ["RingReplayBuffer"]

_MEMORY_SHARE = 0.75
"""Of the memory there is, what a replay may take so that the rest of a run has room too."""


class RingReplayBuffer:
    """The last ``capacity`` transitions, sampled uniformly with replacement.

    Not thread-safe.

    Args:
        capacity: transitions kept; the oldest is overwritten first.
        observation_shape: shape of one observation.
        action_shape: shape of one action.
        seed: of the buffer's own sampling stream.

    Raises:
        UsageError: capacity is not a positive integer, or more than there is memory for.
    """

    def __init__(
        self, capacity: int, observation_shape: Sequence[int], action_shape: Sequence[int], *, seed: int = 0
    ) -> None:
        if int(capacity) != capacity or capacity < 1:
            raise UsageError(f"replay capacity must be a positive integer, got {capacity!r}")
        self.capacity = int(capacity)
        observation, action = tuple(observation_shape), tuple(action_shape)
        shapes: dict[str, tuple[int, ...]] = {
            "observations": observation,
            "actions": action,
            "rewards": (),
            "masks": (),
            "dones": (),
            "next_observations": observation,
        }
        size = 4 * sum(math.prod(shape) for shape in shapes.values()) + 8
        if self.capacity * size > memory_limit():
            raise UsageError(
                f"a replay of {self.capacity} transitions of {size} bytes does not fit into memory; "
                f"{int(_MEMORY_SHARE * memory_limit() / size)} would (replay_buffer_size)"
            )
        # np.empty leaves the pages untouched, so memory grows with what is stored.
        self._arrays = {name: np.empty((self.capacity, *shapes[name]), np.float32) for name in BATCH_FIELDS}
        self._policy_versions = np.empty(self.capacity, np.int64)
        self._size = 0
        self._cursor = 0
        self._total = 0
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def __len__(self) -> int:
        return self._size

    @property
    def total_inserted(self) -> int:
        """Transitions ever inserted, overwritten ones too."""
        return self._total

    @property
    def policy_versions(self) -> np.ndarray:
        """``[len(self)]`` int64, the policy version that made each stored transition, in storage order."""
        return self._policy_versions[: self._size].copy()

    def insert(self, batch: Mapping[str, np.ndarray], policy_versions: int | np.ndarray = 0) -> int:
        """Append the rows of ``batch`` in order and return how many there were.

        Args:
            batch: the six transition fields, ``[B, ...]`` each; any B, also more than the capacity.
            policy_versions: version that made the rows, one for all or ``[B]``.

        Raises:
            UsageError: a field is missing, or its shape does not fit the buffer.
        """
        rows = self._check(batch)
        skip = max(0, rows - self.capacity)
        kept = rows - skip
        start = (self._cursor + skip) % self.capacity
        head = min(kept, self.capacity - start)
        versions = np.broadcast_to(np.asarray(policy_versions, np.int64), (rows,))
        pairs: list[tuple[np.ndarray, np.ndarray]] = [(self._policy_versions, versions)]
        pairs += [(self._arrays[name], batch[name]) for name in BATCH_FIELDS]
        for target, source in pairs:
            target[start : start + head] = source[skip : skip + head]
            target[: kept - head] = source[skip + head :]
        self._cursor = (self._cursor + rows) % self.capacity
        self._size = min(self.capacity, self._size + rows)
        self._total += rows
        return rows

    def _check(self, batch: Mapping[str, np.ndarray]) -> int:
        rows = -1
        for name in BATCH_FIELDS:
            if name not in batch:
                raise UsageError(f"transition batch has no {name!r}")
            expected, got = self._arrays[name].shape[1:], np.shape(batch[name])
            rows = got[0] if rows < 0 and got else rows
            if got != (rows, *expected):
                raise UsageError(f"transition field {name!r} has shape {got}, the buffer holds {('B', *expected)}")
        return rows

    def sample(self, batch_size: int, out: Batch | None = None) -> Batch:
        """Draw ``batch_size`` rows uniformly with replacement.

        Args:
            batch_size: rows drawn, more than are stored too.
            out: arrays ``[batch_size, ...]`` from an earlier call to write into. Only for a caller who is done with
                them: a device may still read arrays handed to a call that returns before it computes.

        Raises:
            UsageError: the buffer is empty or the size is not positive.
        """
        if batch_size < 1:
            raise UsageError(f"batch size must be positive, got {batch_size}")
        if self._size == 0:
            raise UsageError("cannot sample from an empty replay buffer")
        index = self._rng.integers(0, self._size, size=batch_size)
        if out is None:
            return {name: array.take(index, axis=0) for name, array in self._arrays.items()}
        for name, array in self._arrays.items():
            # Indices are in range by construction; mode "clip" spares NumPy the buffered copy that "raise" needs.
            array.take(index, axis=0, out=out[name], mode="clip")
        return out

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Return copies of everything: stored rows, cursor, total and sampling stream."""
        state = {name: array[: self._size].copy() for name, array in self._arrays.items()}
        state["policy_versions"] = self.policy_versions
        state["position"] = np.array([self.capacity, self._size, self._cursor, self._total], np.int64)
        state["rng"] = generator_to_array(self._rng)
        return state

    def load_state_arrays(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what :meth:`state_arrays` returned; the next sample is the one that would have been drawn.

        Raises:
            UsageError: fields are missing, do not fit this buffer, or contradict each other. The buffer is then
                unchanged.
        """
        missing = {*BATCH_FIELDS, "policy_versions", "position", "rng"} - set(state)
        if missing:
            raise UsageError(f"replay state has no {', '.join(sorted(missing))}")
        if state["position"].shape != (4,):
            raise UsageError(f"replay state's position has shape {state['position'].shape}, expected (4,)")
        capacity, size, cursor, total = (int(value) for value in state["position"])
        if capacity != self.capacity:
            raise UsageError(f"replay state has capacity {capacity}, this buffer {self.capacity}")
        if not (0 <= size <= capacity and 0 <= cursor < capacity and total >= size and cursor == total % capacity):
            raise UsageError(f"replay state's position {[capacity, size, cursor, total]} contradicts itself")
        rng = generator_from_array(state["rng"])
        if self._check(state) != size or state["policy_versions"].shape != (size,):
            raise UsageError(f"replay state holds other than the {size} rows that its position names")
        for name, array in self._arrays.items():
            array[:size] = state[name]
        self._policy_versions[:size] = state["policy_versions"]
        self._size, self._cursor, self._total, self._rng = size, cursor, total, rng
