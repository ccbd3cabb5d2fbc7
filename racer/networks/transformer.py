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
from racer.networks.gate import joined
from racer.networks.layers import (
    MAX_WIDTH,
    Array,
    Params,
    dense,
    init_dense,
    init_norm,
    layer_norm,
    namespace,
    orthogonal,
    relu,
    variance_scaling,
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
        stamp: tokens of the sequence before the row, whatever their episode.
    """

    position: Array
    stamp: Array


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

        from racer.networks.blockwise import UNREADABLE

        places = _places(memory["position"], rows)
        tokens = jnp.where(rows.valid > 0, places.stamp, UNREADABLE).T
        stamps = jnp.concatenate([tokens, self._cache_stamps(memory["position"])], axis=-1)
        x = dense(params, "memory/embed", inputs, self.embed) + self._sinusoids(places.position)
        reads, later, later_reads = self._reading(places, stamps), None, None
        if peek is not None:
            following = _Places(*(part + (rows.valid > 0) for part in places))
            later_reads = self._reading(following, stamps)
            later = dense(params, "memory/embed", peek, self.embed) + self._sinusoids(following.position)
        for layer in range(self.layers):
            name = f"memory/layer_{layer}"
            query, *present = self._heads(params, name, x)
            cache = (jnp.swapaxes(memory["keys"][:, layer], -1, -2), memory["values"][:, layer])
            # The rows come first: so their keys' blocks are those of the queries.
            context = [jnp.concatenate(pair, axis=2) for pair in zip(present, cache, strict=True)]
            if later is not None:
                asked, *own = self._heads(params, name, later)
                later = self._finish(params, name, later, self._mixed(asked, context, own, later_reads))
            x = self._finish(params, name, x, self._mixed(query, context, present, reads))
        outputs = layer_norm(params, "memory/norm", x)
        return outputs, None if later is None else layer_norm(params, "memory/norm", later)

    def _cache_stamps(self, start: Array) -> Array:
        """Return the stamps ``[N, length]`` of the cache's tokens: -1 for the newest before the sequence."""
        import jax.numpy as jnp

        from racer.networks.blockwise import UNREADABLE

        # The newest token whose slot this is; below 0 where nothing was written yet.
        newest = start[:, None] - 1.0 - jnp.mod(start[:, None] - 1.0 - jnp.arange(self.length), self.length)
        return jnp.where(newest >= 0.0, newest - start[:, None], UNREADABLE)

    def _reading(self, places: _Places, stamps: Array) -> Any:
        """Return what queries at such places read besides themselves: their episode's last ``length - 1`` tokens."""
        import jax.numpy as jnp

        from racer.networks.blockwise import reading

        floor = places.stamp - jnp.minimum(places.position, self.length - 1.0)
        return reading(floor.T, places.stamp.T, stamps)

    def _heads(self, params: Params, name: str, x: Array) -> list[Array]:
        """Return query (scaled), key and value ``[N, heads, T, key]`` of ``[T, N, embed]``."""
        import jax.numpy as jnp

        query, key, value = self._project(params, name, x)
        parts = (query / math.sqrt(self._key_size), key, value)
        return [jnp.transpose(self._split(part), (1, 2, 0, 3)) for part in parts]

    def _mixed(self, query: Array, context: list[Array], own: list[Array], reads: Any) -> Array:
        """Return what queries read ``[T, N, heads * key]``, themselves included."""
        import jax.numpy as jnp

        from racer.networks.blockwise import Tokens, attend

        mixed = jnp.transpose(attend(Tokens(query, *context, *own), reads), (2, 0, 1, 3))
        return mixed.reshape(*mixed.shape[:2], -1)

    def _project(self, params: Params, name: str, x: Array) -> tuple[Array, Array, Array]:
        normal = layer_norm(params, f"{name}/norm_0", x)
        query, key, value = (dense(params, f"{name}/{part}", normal) for part in ("query", "key", "value"))
        return query, key, value

    def _finish(self, params: Params, name: str, x: Array, mixed: Array) -> Array:
        """Gate the attention's result in, then the perceptron's."""
        x = joined(params, f"{name}/gate_0", x, relu(dense(params, f"{name}/out", mixed)))
        hidden = relu(dense(params, f"{name}/hidden", layer_norm(params, f"{name}/norm_1", x)))
        return joined(params, f"{name}/gate_1", x, relu(dense(params, f"{name}/project", hidden)))

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.heads, self._key_size)

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
        position, stamp = carry
        forget, valid = row
        after = (position + (valid > 0)) * (1.0 - forget)
        return (after, stamp + (valid > 0)), _Places(position, stamp)

    _, places = jax.lax.scan(body, (start, start * 0.0), (rows.forget, rows.valid))
    return places


def _block_softmax(blocks: list[Array]) -> list[Array]:
    """Return the softmax over all blocks ``[..., S]`` together, each summed by itself."""
    xp = namespace(blocks[0])
    largest = xp.max(blocks[0], axis=-1, keepdims=True)
    for block in blocks[1:]:
        largest = xp.maximum(largest, xp.max(block, axis=-1, keepdims=True))
    weights = [xp.exp(block - largest) for block in blocks]
    total = sum(xp.sum(block, axis=-1, keepdims=True) for block in weights)
    return [block / total for block in weights]
