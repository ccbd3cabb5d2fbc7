"""Recurrent cores: a memory that is one vector, rewritten at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.core.config import check_fields, option
from racer.networks.layers import (
    MAX_WIDTH,
    Array,
    Params,
    dense,
    init_dense,
    namespace,
    orthogonal,
    sigmoid,
    variance_scaling,
)
from racer.networks.memory import Memory, Sequence

__all__ = ["Gru"]


@dataclass(frozen=True)
class Gru:
    """A gated recurrent unit (Cho et al. 2014, arXiv 1406.1078, eq. 5-8, the reset gate on the product)."""

    size: int = option(128, "numbers remembered, H", low=1, high=MAX_WIDTH)

    def __post_init__(self) -> None:
        check_fields(self, "key of memory 'gru'")

    @property
    def width(self) -> int:
        return self.size

    def init(self, key: Any, inputs: int) -> dict[str, Array]:
        import jax

        first, second = jax.random.split(key)
        return {
            **init_dense(first, "memory/input", inputs, 3 * self.size, variance_scaling(1.0)),
            **init_dense(second, "memory/hidden", self.size, 3 * self.size, orthogonal(1.0)),
        }

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        return {"hidden": np.zeros((count, self.size), np.float32)}

    def step(self, params: Params, inputs: Array, memory: Memory) -> tuple[Array, dict[str, Array]]:
        hidden = self._next(params, dense(params, "memory/input", inputs, 3 * self.size), memory["hidden"])
        return hidden, {"hidden": hidden}

    def unroll(
        self, params: Params, inputs: Array, memory: Memory, rows: Sequence, peek: Array | None = None
    ) -> tuple[Array, Array | None]:
        import jax
        import jax.numpy as jnp

        def body(hidden: Array, row: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            gates, forget, valid = row
            output = self._next(params, gates, hidden)
            after = jnp.where(valid[:, None] > 0, output, hidden)
            return after * (1.0 - forget[:, None]), (output, after)

        gates = dense(params, "memory/input", inputs, 3 * self.size)
        _, (outputs, afters) = jax.lax.scan(body, memory["hidden"], (gates, rows.forget, rows.valid))
        if peek is None:
            return outputs, None
        return outputs, self._next(params, dense(params, "memory/input", peek, 3 * self.size), afters)

    def _next(self, params: Params, gates: Array, hidden: Array) -> Array:
        """Return the next hidden state ``[..., H]`` from the input's share of the gates ``[..., 3 H]``."""
        own = dense(params, "memory/hidden", hidden, 3 * self.size)
        size = self.size
        reset = sigmoid(gates[..., :size] + own[..., :size])
        update = sigmoid(gates[..., size : 2 * size] + own[..., size : 2 * size])
        candidate = namespace(gates).tanh(gates[..., 2 * size :] + reset * own[..., 2 * size :])
        return (1.0 - update) * candidate + update * hidden
