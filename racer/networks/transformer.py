"""A gated transformer whose memory is a cache of keys and values.

Layers are normalised before attention and before the perceptron, and joined by gates instead of sums (Parisotto et al.
2020, "Stabilizing transformers for reinforcement learning", arXiv 1910.06764, section 3.2). Positions are sinusoids
(Vaswani et al. 2017, section 3.5) that restart with every episode. The cache holds the last ``length`` tokens of the
episode; what was written there with earlier parameters is read as it is, and no gradient reaches it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from racer.core.config import check_fields, option
from racer.networks.layers import (
    MAX_WIDTH,
    Array,
    Params,
    dense,
    init_dense,
    init_norm,
    layer_norm,
    matmul,
    namespace,
    orthogonal,
    relu,
    sigmoid,
    variance_scaling,
    weights,
    writable,
    written,
)
from racer.networks.memory import Memory, Sequence

__all__ = ["Transformer"]

_MASKED = -1e9
_BLOCK = 128
"""Slots of a cache that acting reads at once."""

_GATE_BIAS = 2.0
"""A gate begins almost closed: at first a layer hands its input on."""


class _Places(NamedTuple):
    """Where the rows of a sequence stand in their episodes, ``[T, N]`` each.

    Attributes:
        position: tokens of the same episode before the row.
        segment: episodes that ended before the row, within the sequence.
    """

    position: Array
    segment: Array


@dataclass(frozen=True)
class Transformer:
    """See the module."""

    embed: int = option(64, "width of a token, H", low=1, high=MAX_WIDTH)
    layers: int = option(2, "number of layers", low=1, high=64)
    heads: int = option(4, "attentions side by side in each layer", low=1, high=1024)
    head_size: int | None = option(
        None, "width of a key; None: embed / heads, or embed where that is no whole number", low=1, high=MAX_WIDTH
    )
    length: int = option(128, "tokens remembered, the present one included", low=1, high=MAX_WIDTH)
    hidden: int | None = option(
        None, "width of the perceptron in each layer; None: 4 embed", low=1, high=MAX_WIDTH
    )

    def __post_init__(self) -> None:
        check_fields(self, "key of memory 'transformer'")

    @property
    def width(self) -> int:
        return self.embed

    @property
    def _key_size(self) -> int:
        if self.head_size is not None:
            return self.head_size
        return self.embed // self.heads if self.embed % self.heads == 0 else self.embed

    def init(self, key: Any, inputs: int) -> dict[str, Array]:
        import jax

        embed_key, *keys = jax.random.split(key, 1 + self.layers)
        params = init_dense(embed_key, "memory/embed", inputs, self.embed, variance_scaling(1.0))
        for layer, part in enumerate(keys):
            params |= self._init_layer(part, f"memory/layer_{layer}")
        return params | init_norm("memory/norm", self.embed)

    def _init_layer(self, key: Any, name: str) -> dict[str, Array]:
        import jax

        wide, hidden = self.heads * self._key_size, self.hidden or 4 * self.embed
        keys = jax.random.split(key, 10)
        init = variance_scaling(1.0)
        return {
            **init_norm(f"{name}/norm_0", self.embed),
            **init_dense(keys[0], f"{name}/query", self.embed, wide, init),
            **init_dense(keys[1], f"{name}/key", self.embed, wide, init),
            **init_dense(keys[2], f"{name}/value", self.embed, wide, init),
            **init_dense(keys[3], f"{name}/out", wide, self.embed, init),
            **self._init_gate(keys[4], f"{name}/gate_0"),
            **init_norm(f"{name}/norm_1", self.embed),
            **init_dense(keys[5], f"{name}/hidden", self.embed, hidden, init),
            **init_dense(keys[6], f"{name}/project", hidden, self.embed, init),
            **self._init_gate(keys[7], f"{name}/gate_1"),
        }

    def _init_gate(self, key: Any, name: str) -> dict[str, Array]:
        import jax
        import jax.numpy as jnp

        keys, init, width = jax.random.split(key, 3), orthogonal(1.0), self.embed
        return {
            f"{name}/new/kernel": init(keys[0], (width, 3 * width)),
            f"{name}/old/kernel": init(keys[1], (width, 2 * width)),
            f"{name}/reset/kernel": init(keys[2], (width, width)),
            f"{name}/bias": jnp.full((width,), _GATE_BIAS),
        }

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        lead, length, size = (count, self.layers, self.heads), self.length, self._key_size
        # Each lies in memory as the products of attention read it.
        return {
            "keys": np.zeros((*lead, size, length), np.float32),
            "values": np.zeros((*lead, length, size), np.float32),
            "position": np.zeros((count,), np.float32),
        }

    def step(self, params: Params, inputs: Array, memory: Memory) -> tuple[Array, dict[str, Array]]:
        outputs, after, _ = self._read(params, inputs, memory)
        return outputs, after

    def attention(self, params: Params, inputs: Array, memory: Memory) -> Array:
        """Return how much of each slot :meth:`step` reads, ``[N, layers, heads, length]``; a row sums to 1.

        The token that is read itself stands in slot ``position % length``.
        """
        xp = namespace(inputs)
        layers = [xp.concatenate(shares, axis=-1)[:, :, 0] for shares in self._read(params, inputs, memory)[2]]
        read = xp.stack(layers, axis=1)
        rest = self.length - read.shape[-1]
        return xp.concatenate([read, xp.zeros((*read.shape[:-1], rest), read.dtype)], axis=-1)

    def _filled(self, position: Array) -> list[slice]:
        """Return the blocks of slots that are to be read.

        Acting reads as far as the fullest of its rows. A row's bits do not depend on how far that is: what a block
        holds is summed by itself, and blocks that a row has not reached add zeros.
        """
        if not isinstance(position, np.ndarray):
            return [slice(0, self.length)]
        end = min(self.length, int(position.max(initial=0.0)) + 1)
        return [slice(start, min(start + _BLOCK, self.length)) for start in range(0, end, _BLOCK)]

    def _read(
        self, params: Params, inputs: Array, memory: Memory
    ) -> tuple[Array, dict[str, Array], list[list[Array]]]:
        """Return outputs, the memory after them, and every layer's weights, ``[N, heads, 1, slots]`` a block.

        NumPy arrays of ``memory`` are written into: its next slot, which nothing reads before it is written again.
        """
        xp = namespace(inputs)
        position = memory["position"]
        slot = (position % self.length).astype(int)
        blocks = self._filled(position)
        # Once the cache has come round, every slot holds one of the last tokens.
        unseen = [(xp.arange(b.start, b.stop) > position[:, None])[:, None, None] for b in blocks]
        x = dense(params, "memory/embed", inputs, self.embed) + self._sinusoids(position)
        rows, keys, values = xp.arange(inputs.shape[0]), writable(memory["keys"]), writable(memory["values"])
        read = []
        for layer in range(self.layers):
            name = f"memory/layer_{layer}"
            query, key, value = (self._split(part) for part in self._project(params, name, x))
            keys = written(keys, (rows, layer, slice(None), slice(None), slot), key)
            values = written(values, (rows, layer, slice(None), slot), value)
            query = query[:, :, None] / math.sqrt(self._key_size)
            scores = [xp.matmul(query, keys[:, layer, :, :, block]) for block in blocks]
            shares = _block_softmax([xp.where(mask, _MASKED, part) for mask, part in zip(unseen, scores, strict=True)])
            read.append(shares)
            mixed = sum(xp.matmul(part, values[:, layer, :, b]) for b, part in zip(blocks, shares, strict=True))
            x = self._finish(params, name, x, mixed.reshape(inputs.shape[0], -1))
        after = {"keys": keys, "values": values, "position": position + 1.0}
        return layer_norm(params, "memory/norm", x), after, read

    def unroll(
        self, params: Params, inputs: Array, memory: Memory, rows: Sequence, peek: Array | None = None
    ) -> tuple[Array, Array | None]:
        import jax.numpy as jnp

        places = _places(memory["position"], rows)
        masks = self._masks(memory["position"], places, places.position, rows.valid, jnp.eye(len(inputs), dtype=bool))
        x = dense(params, "memory/embed", inputs, self.embed) + self._sinusoids(places.position)
        later, later_masks = None, None
        if peek is not None:
            following = places.position + (rows.valid > 0)
            own = jnp.zeros((len(inputs), len(inputs)), bool)
            later_masks = self._masks(memory["position"], places, following, rows.valid, own)
            later = dense(params, "memory/embed", peek, self.embed) + self._sinusoids(following)
        for layer in range(self.layers):
            name = f"memory/layer_{layer}"
            query, key, value = self._project(params, name, x)
            context = (
                jnp.concatenate([memory["keys"][:, layer], jnp.transpose(self._split(key), (1, 2, 3, 0))], axis=-1),
                jnp.concatenate([memory["values"][:, layer], jnp.transpose(self._split(value), (1, 2, 0, 3))], axis=-2),
            )
            if later is not None:
                later = self._finish(params, name, later, self._look(params, name, later, context, later_masks))
            x = self._finish(params, name, x, self._attend(query, context, masks))
        outputs = layer_norm(params, "memory/norm", x)
        return outputs, None if later is None else layer_norm(params, "memory/norm", later)

    def _masks(self, start: Array, places: _Places, position: Array, valid: Array, own: Array) -> Array:
        """Return what each query may read, ``[N, T, length + T]``: the cache, then the rows of the sequence.

        Args:
            start: tokens in the episode before the sequence, ``[N]``.
            places: of the rows.
            position: of the queries, ``[T, N]``, in the segment of the row of the same number.
            valid: ``[T, N]``.
            own: ``[T, T]``, which rows a query reads even where they are no transition (itself).
        """
        import jax.numpy as jnp

        # The newest token before the sequence whose slot this is; -1 and below where nothing was written yet.
        slots = jnp.arange(self.length)
        newest = start[:, None] - 1.0 - jnp.mod(start[:, None] - 1.0 - slots, self.length)
        near = position.T[:, :, None] - newest[:, None, :] < self.length
        cache = near & (newest[:, None, :] >= 0.0) & (places.segment.T[:, :, None] == 0.0)
        same = places.segment.T[:, :, None] == places.segment.T[:, None, :]
        causal = jnp.tril(jnp.ones(own.shape, bool))
        near = position.T[:, :, None] - places.position.T[:, None, :] < self.length
        readable = (valid.T[:, None, :] > 0) | own
        return jnp.concatenate([cache, same & causal & near & readable], axis=-1)

    def _attend(self, query: Array, context: tuple[Array, Array], mask: Array) -> Array:
        """Return ``[T, N, heads * key]`` for such queries over ``[N, heads, key, S]`` and ``[N, heads, S, key]``."""
        import jax.numpy as jnp

        scores = jnp.where(mask[:, None], self._scores(query, context[0]), _MASKED)
        return self._mix(_softmax(scores), context[1])

    def _look(self, params: Params, name: str, x: Array, context: tuple[Array, Array], mask: Any) -> Array:
        """Attend like :meth:`_attend`, each query also to itself, which nobody else reads."""
        import jax.numpy as jnp

        query, key, value = self._project(params, name, x)
        scores = jnp.where(mask[:, None], self._scores(query, context[0]), _MASKED)
        own = jnp.sum(self._split(query) * self._split(key), axis=-1) / math.sqrt(self._key_size)
        own = jnp.transpose(own, (1, 2, 0))[..., None]
        weights = _softmax(jnp.concatenate([scores, own], axis=-1))
        share = jnp.transpose(weights[..., -1], (2, 0, 1))[..., None]
        return self._mix(weights[..., :-1], context[1]) + (share * self._split(value)).reshape(*x.shape[:2], -1)

    def _project(self, params: Params, name: str, x: Array) -> tuple[Array, Array, Array]:
        normal = layer_norm(params, f"{name}/norm_0", x)
        query, key, value = (dense(params, f"{name}/{part}", normal) for part in ("query", "key", "value"))
        return query, key, value

    def _finish(self, params: Params, name: str, x: Array, mixed: Array) -> Array:
        """Gate the attention's result in, then the perceptron's."""
        x = _gate(params, f"{name}/gate_0", x, relu(dense(params, f"{name}/out", mixed)))
        hidden = relu(dense(params, f"{name}/hidden", layer_norm(params, f"{name}/norm_1", x)))
        return _gate(params, f"{name}/gate_1", x, relu(dense(params, f"{name}/project", hidden)))

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.heads, self._key_size)

    def _scores(self, query: Array, keys: Array) -> Array:
        """Return ``[N, heads, T, S]`` for ``[T, N, heads * key]`` and ``[N, heads, key, S]``."""
        xp = namespace(query)
        return xp.matmul(xp.transpose(self._split(query), (1, 2, 0, 3)), keys) / math.sqrt(self._key_size)

    def _mix(self, weights: Array, values: Array) -> Array:
        """Return ``[T, N, heads * key]`` for ``[N, heads, T, S]`` and ``[N, heads, S, key]``."""
        xp = namespace(weights)
        mixed = xp.transpose(xp.matmul(weights, values), (2, 0, 1, 3))
        return mixed.reshape(*mixed.shape[:2], -1)

    def _sinusoids(self, position: Array) -> Array:
        """Return ``[..., embed]`` for positions ``[...]``."""
        xp = namespace(position)
        half = -(-self.embed // 2)
        rates = np.float32(10_000.0) ** (-np.arange(half, dtype=np.float32) / np.float32(half))
        angle = position[..., None] * xp.asarray(rates)
        return xp.concatenate([xp.sin(angle), xp.cos(angle)], axis=-1)[..., : self.embed]


def _places(start: Array, rows: Sequence) -> _Places:
    """Return where the rows ``[T, N]`` stand, the first after ``start`` ``[N]`` tokens."""
    import jax

    def body(carry: tuple[Array, Array], row: tuple[Array, Array]) -> tuple[tuple[Array, Array], _Places]:
        position, segment = carry
        forget, valid = row
        after = (position + (valid > 0)) * (1.0 - forget)
        return (after, segment + forget), _Places(position, segment)

    _, places = jax.lax.scan(body, (start, start * 0.0), (rows.forget, rows.valid))
    return places


def _softmax(scores: Array) -> Array:
    xp = namespace(scores)
    weights = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def _block_softmax(blocks: list[Array]) -> list[Array]:
    """Return the softmax over all blocks ``[..., S]`` together, each summed by itself."""
    xp = namespace(blocks[0])
    largest = xp.max(blocks[0], axis=-1, keepdims=True)
    for block in blocks[1:]:
        largest = xp.maximum(largest, xp.max(block, axis=-1, keepdims=True))
    weights = [xp.exp(block - largest) for block in blocks]
    total = sum(xp.sum(block, axis=-1, keepdims=True) for block in weights)
    return [block / total for block in weights]


def _gate(params: Params, name: str, old: Array, new: Array) -> Array:
    """Join a layer's input ``old`` and output ``new`` as a GRU would (Parisotto et al. 2020, section 3.2)."""
    width = old.shape[-1]
    of_new = matmul(new, weights(params, f"{name}/new/kernel", new.shape[-1], 3 * width))
    of_old = matmul(old, weights(params, f"{name}/old/kernel", width, 2 * width))
    reset = sigmoid(of_new[..., :width] + of_old[..., :width])
    bias, kernel = weights(params, f"{name}/bias", width), weights(params, f"{name}/reset/kernel", width, width)
    update = sigmoid(of_new[..., width : 2 * width] + of_old[..., width:] - bias)
    candidate = namespace(old).tanh(of_new[..., 2 * width :] + matmul(reset * old, kernel))
    return (1.0 - update) * old + update * candidate
