"""The policy over choices of on-policy agents, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.agents.policy.base import checked_fields
from racer.agents.policy.trunk import Trunk, dense

__all__ = ["CategoricalPolicy"]


@dataclass(frozen=True)
class CategoricalPolicy:
    """One of ``num_choices`` actions with probability ``softmax(logits(s))``; deterministically the likeliest.

    Attributes:
        trunk: encoder and hidden layers.
        num_choices: C.
        start: number of the first choice, as in ``gymnasium.spaces.Discrete``.
    """

    trunk: Trunk
    num_choices: int
    start: int = 0

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> CategoricalPolicy:
        """Build from a specification without its ``kind``.

        Raises:
            UsageError: an unknown or missing key.
        """
        checked_fields("categorical", fields, {"trunk", "num_choices"}, {"start"})
        trunk = Trunk.from_fields("categorical", fields["trunk"])
        return cls(trunk, int(fields["num_choices"]), int(fields.get("start", 0)))

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`racer.agents.policy.base.Policy`."""
        return {
            "kind": "categorical",
            "trunk": self.trunk.fields,
            "num_choices": self.num_choices,
            "start": self.start,
        }

    def act(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool = False,
    ) -> np.ndarray:
        """Return actions ``[N]`` int64 in ``[start, start + num_choices)``."""
        return self.act_with_extras(params, observations, rng, deterministic)[0]

    def act_with_extras(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """As :meth:`act`, with ``log_probs`` ``[N]``, logarithms of the probabilities of the choices made."""
        logits = dense(params, "logits", self.trunk.forward(params, observations))
        logits -= logits.max(axis=-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        # The largest of logits plus Gumbel noise is a draw from the softmax.
        scores = logits if deterministic else logits + rng.gumbel(size=logits.shape)
        chosen = np.argmax(scores, axis=-1)
        log_probs = np.take_along_axis(logits, chosen[:, None], axis=-1)[:, 0]
        return chosen + self.start, {"log_probs": log_probs}
