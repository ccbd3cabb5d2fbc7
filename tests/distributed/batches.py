"""Batches made by hand, for the tests of learner and messages."""

from __future__ import annotations

import numpy as np

from racer.distributed.pool import WorkerBatch
from racer.replay import Experience


def make_batch(number: int, *, steps: int = 2, envs: int = 3, version: int = 1, worker: int = 0) -> WorkerBatch:
    """Return ``steps`` rows of ``envs`` environments, in which one episode ends, that say ``number``."""
    shape = (steps, envs)
    ended = np.zeros(shape, bool)
    ended[0, 1] = True
    experience = Experience(
        observations=np.full((steps + 1, envs, 4), number, np.float32),
        actions=np.zeros((*shape, 1), np.float32),
        rewards=np.full(shape, number, np.float32),
        bootstrap=np.ones(shape, bool),
        cut=ended,
        forget=ended,
        valid=np.ones(shape, bool),
        final_observations=np.full((1, 4), number + 0.5, np.float32),
        final_index=np.array([[0, 1]], np.int32),
        extras={"log_probs": np.full(shape, -0.5, np.float32)},
        memory={"core": np.ones((envs, 2), np.float32)},
        episodes=[{"return": 1.5, "time_to_collision": float("inf")}],
        nonfinite=2,
    )
    return WorkerBatch(experience, worker, 3, version, 6, {"rng": np.arange(6, dtype=np.uint64)})
