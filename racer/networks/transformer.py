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

from racer.networks.fields import whole
from racer.networks.layers import (
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
)
from racer.networks.memory import Memory, Sequence

__all__ = ["Transformer"]

_MASKED = -1e9
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
    """See the module.

    Attributes:
        embed: width of a token, H.
        layers: number of layers.
        heads: attentions side by side in each.
        head_size: width of a key; None takes ``embed / heads``, or ``embed`` where that is no whole number.
        length: tokens remembered, the present one included.
        hidden: width of the perceptron in each layer; None takes ``4 * embed``.
    """

    embed: int = 64
    layers: int = 2
    heads: int = 4
    head_size: int | None = None
    length: int = 128
    hidden: int | None = None

    def __post_init__(self) -> None:
        for name in ("embed", "layers", "heads", "length"):
            whole(f"{name} of memory 'transformer'", getattr(self, name))
        for name in ("head_size", "hidden"):
            if getattr(self, name) is not None:
                whole(f"{name} of memory 'transformer'", getattr(self, name))

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
        cache = (count, self.layers, self.length, self.heads * self._key_size)
        return {
            "keys": np.zeros(cache, np.float32),
            "values": np.zeros(cache, np.float32),
            "position": np.zeros((count,), np.float32),
        }

    def step(self, params: Params, inputs: Array, memory: Memory) -> tuple[Array, dict[str, Array]]:
        xp = namespace(inputs)
        position = memory["position"]
        slots = xp.arange(self.length)
        here = slots == (position % self.length)[:, None]
        # Once the cache has come round, every slot holds one of the last tokens.
        seen = slots <= position[:, None]
        x = dense(params, "memory/embed", inputs) + self._sinusoids(position)
        keys, values = [], []
        for layer in range(self.layers):
            name = f"memory/layer_{layer}"
            query, key, value = self._project(params, name, x)
            keys.append(xp.where(here[..., None], key[:, None], memory["keys"][:, layer]))
            values.append(xp.where(here[..., None], value[:, None], memory["values"][:, layer]))
            scores = self._scores(query[:, None], keys[-1])[:, :, 0]
            mixed = self._mix(_softmax(xp.where(seen[:, None], scores, _MASKED))[:, :, None], values[-1])[:, 0]
            x = self._finish(params, name, x, mixed)
        after = {
            "keys": xp.stack(keys, axis=1),
            "values": xp.stack(values, axis=1),
            "position": position + 1.0,
        }
        return layer_norm(params, "memory/norm", x), after

    def unroll(
        self, params: Params, inputs: Array, memory: Memory, rows: Sequence, peek: Array | None = None
    ) -> tuple[Array, Array | None]:
        import jax.numpy as jnp

        places = _places(memory["position"], rows)
        masks = self._masks(memory["position"], places, places.position, rows.valid, jnp.eye(len(inputs), dtype=bool))
        x = dense(params, "memory/embed", inputs) + self._sinusoids(places.position)
        later, later_masks = None, None
        if peek is not None:
            following = places.position + (rows.valid > 0)
            own = jnp.zeros((len(inputs), len(inputs)), bool)
            later_masks = self._masks(memory["position"], places, following, rows.valid, own)
            later = dense(params, "memory/embed", peek) + self._sinusoids(following)
        for layer in range(self.layers):
            name = f"memory/layer_{layer}"
            cache = (memory["keys"][:, layer], memory["values"][:, layer])
            query, key, value = self._project(params, name, x)
            context = tuple(
                jnp.concatenate([past, jnp.swapaxes(new, 0, 1)], axis=1)
                for past, new in zip(cache, (key, value), strict=True)
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

    def _attend(self, query: Array, context: tuple[Array, ...], mask: Array) -> Array:
        """Return ``[T, N, heads * key]`` for queries ``[T, N, ...]`` over keys and values ``[N, S, ...]``."""
        import jax.numpy as jnp

        scores = self._scores(jnp.swapaxes(query, 0, 1), context[0])
        weights = _softmax(jnp.where(mask[:, None], scores, _MASKED))
        return jnp.swapaxes(self._mix(weights, context[1]), 0, 1)

    def _look(self, params: Params, name: str, x: Array, context: tuple[Array, ...], mask: Any) -> Array:
        """Attend like :meth:`_attend`, each query also to itself, which nobody else reads."""
        import jax.numpy as jnp

        query, key, value = self._project(params, name, x)
        scores = jnp.where(mask[:, None], self._scores(jnp.swapaxes(query, 0, 1), context[0]), _MASKED)
        own = jnp.sum(self._split(query) * self._split(key), axis=-1) / math.sqrt(self._key_size)
        own = jnp.transpose(own, (1, 2, 0))[..., None]
        weights = _softmax(jnp.concatenate([scores, own], axis=-1))
        others = jnp.swapaxes(self._mix(weights[..., :-1], context[1]), 0, 1)
        share = jnp.transpose(weights[..., -1], (2, 0, 1))[..., None]
        return others + (share * self._split(value)).reshape(others.shape)

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
        """Return ``[N, heads, Q, S]`` for ``[N, Q, ...]`` and ``[N, S, ...]``."""
        xp = namespace(query)
        q, k = self._split(query), self._split(keys)
        products = xp.matmul(xp.transpose(q, (0, 2, 1, 3)), xp.transpose(k, (0, 2, 3, 1)))
        return products / math.sqrt(self._key_size)

    def _mix(self, weights: Array, values: Array) -> Array:
        """Return ``[N, Q, heads * key]`` for ``[N, heads, Q, S]`` and ``[N, S, ...]``."""
        xp = namespace(weights)
        mixed = xp.matmul(weights, xp.transpose(self._split(values), (0, 2, 1, 3)))
        mixed = xp.transpose(mixed, (0, 2, 1, 3))
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


def _gate(params: Params, name: str, old: Array, new: Array) -> Array:
    """Join a layer's input ``old`` and output ``new`` as a GRU would (Parisotto et al. 2020, section 3.2)."""
    width = old.shape[-1]
    of_new = matmul(new, params[f"{name}/new/kernel"])
    of_old = matmul(old, params[f"{name}/old/kernel"])
    reset = sigmoid(of_new[..., :width] + of_old[..., :width])
    update = sigmoid(of_new[..., width : 2 * width] + of_old[..., width:] - params[f"{name}/bias"])
    candidate = namespace(old).tanh(of_new[..., 2 * width :] + matmul(reset * old, params[f"{name}/reset/kernel"]))
    return (1.0 - update) * old + update * candidate
