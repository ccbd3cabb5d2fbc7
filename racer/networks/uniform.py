"""Uniformly random actions: the warm-up of a training run and the yardstick of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.core.config import check_fields, option
from racer.core.errors import UsageError
from racer.networks import random
from racer.networks.fields import thaw
from racer.networks.layers import Array, Params, namespace
from racer.networks.memory import Memory

__all__ = ["UniformPolicy", "uniform_policy"]


@dataclass(frozen=True)
class UniformPolicy:
    """Draws each action uniformly from its range, or one of the choices; takes no parameters and remembers nothing.

    Raises:
        UsageError: the ends are not finite, not of one length, or out of order.
    """

    action_low: tuple[float, ...] = option((), "finite lower ends, [A]; empty for choices")
    action_high: tuple[float, ...] = option((), "finite upper ends, [A], above the lower ones")
    num_choices: int = option(0, "how many choices there are; 0 for numbers", low=0)
    start: int = option(0, "number of the first choice")

    def __post_init__(self) -> None:
        low, high = (np.asarray(ends, np.float64) for ends in (self.action_low, self.action_high))
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise UsageError("random actions need a bounded action range")
        check_fields(self, "key of policy 'uniform'")
        if bool(self.num_choices) == bool(self.action_low):
            raise UsageError("random actions need either a range or a number of choices")
        if low.shape != high.shape or not (low < high).all():
            raise UsageError("action_low must lie below action_high, one value for each action")

    observation_shape = None
    """Any observation will do."""

    has_memory = False

    @property
    def discrete(self) -> bool:
        """Whether an action is a choice."""
        return self.num_choices > 0

    @property
    def size(self) -> int:
        """Numbers in an action, or how many choices there are."""
        return self.num_choices or len(self.action_low)

    @property
    def spec(self) -> dict[str, Any]:
        """See :attr:`racer.networks.policy.Policy.spec`."""
        if self.discrete:
            return {"kind": "uniform", "num_choices": self.num_choices, "start": self.start}
        return {"kind": "uniform", "action_low": thaw(self.action_low), "action_high": thaw(self.action_high)}

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        """Return nothing."""
        return {}

    def act(
        self, params: Params, observations: Array, memory: Memory, key: Any, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """See :meth:`racer.networks.policy.Policy.act`; the deterministic action is the centre, or the first choice."""
        xp, count = namespace(observations), len(observations)
        if self.discrete:
            unit = xp.zeros((count,)) if deterministic else random.uniform(key, (count,))
            chosen = xp.minimum((unit * self.num_choices).astype(int), self.num_choices - 1)
            return chosen + self.start, {}, {}
        low, high = (xp.asarray(np.array(ends, np.float32)) for ends in (self.action_low, self.action_high))
        if deterministic:
            return xp.tile(0.5 * (low + high), (count, 1)), {}, {}
        unit = random.uniform(key, (count, low.size))
        return xp.minimum(low + unit * (high - low), high), {}, {}


def uniform_policy(space: Any) -> UniformPolicy:
    """Return the policy that knows nothing in an action space: a bounded Box, or Discrete.

    Raises:
        UsageError: the space is neither.
    """
    if hasattr(space, "n"):
        return UniformPolicy(num_choices=int(space.n), start=int(space.start))
    if not hasattr(space, "low"):
        raise UsageError(f"there are no uniformly random actions in {space}")
    low, high = (np.asarray(ends, np.float64).reshape(-1) for ends in (space.low, space.high))
    return UniformPolicy(tuple(low.tolist()), tuple(high.tolist()))
