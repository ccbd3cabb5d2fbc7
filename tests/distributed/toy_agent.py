"""A small agent without JAX: a mean that drifts with every batch, so that two runs can be compared to the bit."""

from __future__ import annotations

import time

import numpy as np

from racer.networks.uniform import UniformPolicy

ACTION_SIZE = 1


POLICY = UniformPolicy((-1.0,) * ACTION_SIZE, (1.0,) * ACTION_SIZE)
"""The policy that workers run in these tests: uniform actions; its parameters do not matter to it."""


class ToyAgent:
    """Counts what it gets and keeps a digest of it.

    Args:
        update_seconds: how long an update takes.
        fail_from: number of the update from which on losses are not finite.
    """

    def __init__(self, update_seconds: float = 0.0, fail_from: int | None = None) -> None:
        self.update_seconds, self.fail_from = update_seconds, fail_from
        self.calls: list[tuple[int, int]] = []
        self.digest = np.zeros(8, np.float64)

    policy = POLICY

    @property
    def policy_params(self) -> dict[str, np.ndarray]:
        return {"digest": self.digest.astype(np.float32)}

    def update(self, batch, utd_ratio):
        time.sleep(self.update_seconds)
        self.calls.append((len(batch["rewards"]), utd_ratio))
        assert all(np.isfinite(value).all() for value in batch.values())
        weights = np.arange(len(batch["rewards"])) % 97
        for i, value in enumerate(batch.values()):
            self.digest[i] = np.sin(self.digest[i] + (value.reshape(len(value), -1).sum(axis=1) * weights).sum())
        bad = self.fail_from is not None and len(self.calls) >= self.fail_from
        return self, {"loss": np.float32("nan" if bad else 0.5), "nonfinite_updates": np.int32(bad * utd_ratio)}


class RolloutAgent(ToyAgent):
    """Learns from rollouts: hands each update's to ``seen``, and keeps a digest of them."""

    def __init__(self, seen=None) -> None:
        super().__init__()
        self.seen = seen or (lambda rollouts: None)

    def update(self, data, utd_ratio=1):
        self.seen(data)
        self.digest[0] = np.sin(self.digest[0] + data["rewards"].sum() + data["observations"].sum())
        return self, {"loss": np.float32(0.5), "minibatches": np.int32(3)}
