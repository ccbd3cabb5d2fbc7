"""Uniformly random actions: the warm-up of a training run and the yardstick of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from racer.agents.policy.base import checked_fields
from racer.core.errors import UsageError

__all__ = ["UniformRandomPolicy"]


class UniformRandomPolicy:
    """Draw each action uniformly from its range; takes no parameters.

    Args:
        action_low: ``[A]`` finite lower ends.
        action_high: ``[A]`` finite upper ends, above ``action_low``.

    Raises:
        UsageError: the ends are not finite, not of one length, or out of order.
    """

    def __init__(self, action_low: Any, action_high: Any) -> None:
        self._low = np.asarray(action_low, dtype=np.float32).reshape(-1)
        self._high = np.asarray(action_high, dtype=np.float32).reshape(-1)
        if self._low.shape != self._high.shape or not np.all(self._low < self._high):
            raise UsageError("action_low must lie below action_high, one value for each action")
        if not (np.all(np.isfinite(self._low)) and np.all(np.isfinite(self._high))):
            raise UsageError("random actions need a bounded action range")

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> UniformRandomPolicy:
        """Build from a specification without its ``kind``."""
        checked_fields("uniform", fields, {"action_low", "action_high"}, set())
        return cls(fields["action_low"], fields["action_high"])

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`racer.agents.policy.base.Policy`."""
        return {"kind": "uniform", "action_low": self._low.tolist(), "action_high": self._high.tolist()}

    def act(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool = False,
    ) -> np.ndarray:
        """Return ``[N, A]`` actions; the deterministic ones are the centre of the range."""
        count = len(observations)
        if deterministic:
            return np.tile(0.5 * (self._low + self._high), (count, 1))
        unit = rng.random((count, self._low.size), dtype=np.float32)
        return np.minimum(self._low + unit * (self._high - self._low), self._high)

    def act_with_extras(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """As :meth:`act`, with no extras."""
        return self.act(params, observations, rng, deterministic), {}
