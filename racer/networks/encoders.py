"""Observation encoders: what the first dense layer of a trunk reads instead of the raw observation.

An encoder is one class here: its fields are its part of a policy's description, ``width`` is what it hands on, ``init``
draws its parameters (JAX), ``encode`` reads an observation of either array library. Agents name it by the
configuration key ``encoder``; nothing else has to know of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from racer.core.config import check_fields, option
from racer.core.errors import UsageError
from racer.networks.fields import build_kind, described
from racer.networks.layers import MAX_WIDTH, Array, Params, dense, init_dense, matmul, mlp, namespace, relu, weights

__all__ = ["ENCODERS", "Attention", "Encoder", "Flat", "PointNet", "build_encoder", "encoder_spec"]


class Encoder(Protocol):
    """Reads observations of a given shape."""

    def width(self, shape: tuple[int, ...]) -> int:
        """Return D for observations of ``shape``.

        Raises:
            UsageError: the encoder cannot read observations of this shape.
        """
        ...

    def init(self, key: Any, shape: tuple[int, ...]) -> dict[str, Array]:
        """Draw the parameters, named ``encoder/...``."""
        ...

    def encode(self, params: Params, observations: Array, shape: tuple[int, ...]) -> Array:
        """Map ``[..., *shape]`` to ``[..., D]``."""
        ...


@dataclass(frozen=True)
class Flat:
    """All numbers of the observation, side by side."""

    def width(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape)

    def init(self, key: Any, shape: tuple[int, ...]) -> dict[str, Array]:
        return {}

    def encode(self, params: Params, observations: Array, shape: tuple[int, ...]) -> Array:
        lead = observations.shape[: observations.ndim - len(shape)]
        return observations.reshape(*lead, math.prod(shape))


@dataclass(frozen=True)
class PointNet:
    """The largest value of each learnt feature over the rows (Qi et al. 2017, eq. 1), beside row 0 itself.

    Row 0 is the observer's own. It is handed on unpooled beside the pooled rows, so the output does not depend on the
    order of the *other* rows and still tells the observer from them.
    """

    widths: tuple[int, ...] = option((32, 64), "widths of the layers that every row goes through", empty=False)

    def __post_init__(self) -> None:
        check_fields(self, "key of encoder 'pointnet'")

    def width(self, shape: tuple[int, ...]) -> int:
        return _row_shape("pointnet", shape)[1] + self.widths[-1]

    def init(self, key: Any, shape: tuple[int, ...]) -> dict[str, Array]:
        import jax

        sizes = (_row_shape("pointnet", shape)[1], *self.widths)
        params: dict[str, Array] = {}
        for index, part in enumerate(jax.random.split(key, len(self.widths))):
            init = jax.nn.initializers.lecun_normal()
            params |= init_dense(part, f"encoder/row_{index}", sizes[index], sizes[index + 1], init)
        return params

    def encode(self, params: Params, observations: Array, shape: tuple[int, ...]) -> Array:
        last = len(self.widths) - 1
        below = mlp(params, "encoder/row", last, "relu", observations)
        kernel = weights(params, f"encoder/row_{last}/kernel", below.shape[-1], self.widths[-1])
        rows = matmul(below, kernel)
        # Bias and rectifier keep the order of numbers, so they may follow the maximum, where there is less to do.
        pooled = relu(_largest_row(rows) + weights(params, f"encoder/row_{last}/bias", self.widths[-1]))
        return namespace(pooled).concatenate([observations[..., 0, :], pooled], axis=-1)


@dataclass(frozen=True)
class Attention:
    """Multi-head attention over the rows with row 0 as the query (Vaswani et al. 2017, eq. 1), beside row 0 itself.

    Rows that are all zeros are empty and are not attended to; row 0 always is.
    """

    embed: int = option(64, "width of the rows' embedding", low=1, high=MAX_WIDTH)
    heads: int = option(4, "parallel attentions, which divide the embedding", low=1, high=MAX_WIDTH)

    def __post_init__(self) -> None:
        check_fields(self, "key of encoder 'attention'")
        if self.embed % self.heads:
            raise UsageError(f"encoder 'attention': embed {self.embed} does not divide into {self.heads} heads")

    def width(self, shape: tuple[int, ...]) -> int:
        return _row_shape("attention", shape)[1] + self.embed

    def init(self, key: Any, shape: tuple[int, ...]) -> dict[str, Array]:
        import jax

        row = _row_shape("attention", shape)[1]
        keys = jax.random.split(key, 5)
        init = jax.nn.initializers.lecun_normal()
        params = init_dense(keys[0], "encoder/embed", row, self.embed, init)
        for name, part in zip(("query", "key", "value", "out"), keys[1:], strict=True):
            params |= init_dense(part, f"encoder/{name}", self.embed, self.embed, init)
        return params

    def encode(self, params: Params, observations: Array, shape: tuple[int, ...]) -> Array:
        # One query asks all rows, so keys and values need not be computed: q . (K x) = (K^T q) . x, and a mean of
        # values is the value of a mean: two products a head in the place of two a row. The keys' bias adds the same to
        # the scores of all rows, which the softmax does not see.
        xp = namespace(observations)
        rows = relu(dense(params, "encoder/embed", observations))
        query = dense(params, "encoder/query", rows[..., 0, :])
        keys, values = (weights(params, f"encoder/{name}/kernel", self.embed, self.embed) for name in ("key", "value"))
        size = self.embed // self.heads
        heads = [slice(start, start + size) for start in range(0, self.embed, size)]
        asked = xp.stack([matmul(query[..., head], keys[:, head].T) for head in heads], axis=-2)
        scores = asked @ xp.swapaxes(rows, -1, -2) / math.sqrt(size)
        present = xp.any(observations != 0.0, axis=-1)
        present = present | (xp.arange(present.shape[-1]) == 0)
        scores = xp.where(present[..., None, :], scores, -1e9)
        share = xp.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = share / xp.sum(share, axis=-1, keepdims=True) @ rows
        seen = xp.concatenate([matmul(mixed[..., n, :], values[:, head]) for n, head in enumerate(heads)], axis=-1)
        seen = seen + weights(params, "encoder/value/bias", self.embed)
        return xp.concatenate([observations[..., 0, :], dense(params, "encoder/out", seen)], axis=-1)


ENCODERS: dict[str, type[Any]] = {"flat": Flat, "pointnet": PointNet, "attention": Attention}


def build_encoder(given: Any) -> Encoder:
    """Build an encoder from its description, ``{"kind": "pointnet", "widths": [32, 64]}``, or its bare name.

    Raises:
        UsageError: an unknown kind or field, or a value out of range.
    """
    encoder: Encoder = build_kind("encoder", ENCODERS, given)
    return encoder


def encoder_spec(encoder: Encoder) -> dict[str, Any]:
    """Return the JSON form of an encoder."""
    return described(ENCODERS, encoder)


def _largest_row(rows: Array) -> Array:
    if isinstance(rows, np.ndarray):
        return rows.max(axis=-2)
    from racer.networks.pooling import largest_row

    return largest_row(rows)


def _row_shape(kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2:
        raise UsageError(f"encoder {kind!r} reads observations in rows [V, F], these have the shape {list(shape)}")
    return shape[0], shape[1]
