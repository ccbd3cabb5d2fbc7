"""Uniformly random actions: the warm-up of a training run and the yardstick of an evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.core.errors import UsageError
from racer.networks import random
from racer.networks.fields import finite, thaw, whole
from racer.networks.layers import Array, Params, namespace
from racer.networks.memory import Memory

__all__ = ["UniformPolicy", "uniform_policy"]


@dataclass(frozen=True)
class UniformPolicy:
    """Draws each action uniformly from its range, or one of the choices; takes no parameters and remembers nothing.

    Attributes:
        action_low: ``[A]`` finite lower ends; empty for choices.
        action_high: ``[A]`` finite upper ends, above ``action_low``.
        num_choices: how many choices there are; 0 for numbers.
        start: number of the first choice.

    Raises:
        UsageError: the ends are not finite, not of one length, or out of order.
    """

    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    num_choices: int = 0
    start: int = 0

    def __post_init__(self) -> None:
        whole("number of choices", self.num_choices, 0)
        pairs = [(*map(float, self.action_low),), (*map(float, self.action_high),)]
        if bool(self.num_choices) == bool(pairs[0]):
            raise UsageError("random actions need either a range or a number of choices")
        if not all(math.isfinite(value) for ends in pairs for value in ends):
            raise UsageError("random actions need a bounded action range")
        if len(pairs[0]) != len(pairs[1]) or not all(low < high for low, high in zip(*pairs, strict=True)):
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
    finite("number of actions", len(low))
    return UniformPolicy(tuple(low.tolist()), tuple(high.tolist()))
