"""Attention over what a query may read, block by block (JAX): the training form of a cache of keys and values.

Who may read what is told by *stamps*, numbers that grow by one with every token written: a query reads the keys with
``floor <= stamp < ceiling`` and its own token besides. Queries and keys are cut into blocks, and only pairs of blocks
in which some query reads some key are computed, so the cost follows what is read, not the length of the sequence. The
softmax is summed up from block to block and computed again for the gradient (Dao et al. 2022, "FlashAttention", arXiv
2205.14135, algorithms 1 and 4): no matrix of all scores is ever held.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

__all__ = ["UNREADABLE", "Reading", "Tokens", "attend", "attend_blocks", "attend_masked", "readable", "reading"]

UNREADABLE = -1e9
"""Stamp of a key that nobody reads."""

_MASKED = -1e30
_BLOCK = 64
"""Queries and keys in a block."""


class Tokens(NamedTuple):
    """What is attended to.

    Attributes:
        query: ``[N, H, T, D]``, scaled.
        keys: ``[N, H, S, D]``.
        values: ``[N, H, S, D]``.
        own_keys: of each query's own token, ``[N, H, T, D]``.
        own_values: ``[N, H, T, D]``.
    """

    query: jax.Array
    keys: jax.Array
    values: jax.Array
    own_keys: jax.Array
    own_values: jax.Array


class Reading(NamedTuple):
    """Which keys each query reads.

    Attributes:
        floor: ``[N, T]``, lowest stamp that a query reads.
        ceiling: ``[N, T]``, the stamp above the highest.
        stamps: ``[N, S]``, of the keys.
        pairs: ``[3, P]``, the pairs of blocks with something to read: row, block of queries, block of keys.
        active: how many of ``pairs`` there are; others may follow.
    """

    floor: jax.Array
    ceiling: jax.Array
    stamps: jax.Array
    pairs: jax.Array
    active: jax.Array


def reading(floor: jax.Array, ceiling: jax.Array, stamps: jax.Array) -> Reading:
    """Return the reading of queries ``[N, T]`` from keys ``[N, S]``."""
    lowest = jnp.min(_blocks(floor, math.inf), axis=-1)
    highest = jnp.max(_blocks(ceiling, -math.inf), axis=-1)
    keys = _blocks(stamps, UNREADABLE)[:, None]
    read = (keys >= lowest[:, :, None, None]) & (keys < highest[:, :, None, None])
    some = jnp.any(read, axis=-1)
    pairs = jnp.stack(jnp.nonzero(some, size=some.size, fill_value=0))
    return Reading(floor, ceiling, stamps, pairs, jnp.sum(some))


def attend(tokens: Tokens, reads: Reading) -> jax.Array:
    """Return the mixture ``[N, H, T, D]`` of the values that each query reads, its own among them."""
    # Devices that do much at once lose more by taking pairs in turn than they save.
    return attend_blocks(tokens, reads) if jax.default_backend() == "cpu" else attend_masked(tokens, reads)


def attend_masked(tokens: Tokens, reads: Reading) -> jax.Array:
    """Return what :func:`attend` does, from the matrix of all scores."""
    query, keys, values, own_keys, own_values = tokens
    mask = readable(reads.floor, reads.ceiling, reads.stamps)[:, None]
    scores = jnp.where(mask, query @ jnp.swapaxes(keys, 2, 3), _MASKED)
    own = jnp.sum(query * own_keys, axis=-1, keepdims=True)
    weights = jax.nn.softmax(jnp.concatenate([scores, own], axis=-1), axis=-1)
    return weights[..., :-1] @ values + weights[..., -1:] * own_values


@jax.custom_vjp
def attend_blocks(tokens: Tokens, reads: Reading) -> jax.Array:
    """Return what :func:`attend` does, from the pairs of blocks in turn."""
    return _forwards(tokens, reads)[0]


def _forwards(tokens: Tokens, reads: Reading) -> tuple[jax.Array, Any]:
    mixed, total = _mix(tokens, reads)
    return mixed, (tokens, reads, mixed, total)


def _backwards(kept: Any, slope: jax.Array) -> tuple[Tokens, None]:
    tokens, reads, mixed, total = kept
    # The gradient of a softmax's score is weight * (slope . value - slope . mixture).
    common = jnp.sum(slope * mixed, axis=-1)
    to_query, to_keys, to_values = _slopes(tokens, reads, slope, common, total)
    weight = jnp.exp(jnp.sum(tokens.query * tokens.own_keys, axis=-1) - total)
    score = (weight * (jnp.sum(slope * tokens.own_values, axis=-1) - common))[..., None]
    to_query += score * tokens.own_keys
    return Tokens(to_query, to_keys, to_values, score * tokens.query, weight[..., None] * slope), None


attend_blocks.defvjp(_forwards, _backwards)


@sequential_vmap
def _mix(tokens: Tokens, reads: Reading) -> tuple[jax.Array, jax.Array]:
    """Return the mixture ``[N, H, T, D]`` and the logarithm of the sum of all weights ``[N, H, T]``.

    Members of a population are taken in turn here and in :func:`_slopes`: each has pairs of its own.
    """
    length = tokens.query.shape[2]
    query, keys, values = map(_padded, (tokens.query, tokens.keys, tokens.values))
    limits = _limits(reads)

    def body(number: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        row, at, to = pair = reads.pairs[:, number]
        scores = _scores(query, keys, limits, pair)
        mixed, total, largest = (_block(x, row, at) for x in state)
        higher = jnp.maximum(largest, jnp.max(scores, axis=-1))
        weights, shrink = jnp.exp(scores - higher[..., None]), jnp.exp(largest - higher)
        total = shrink * total + jnp.sum(weights, axis=-1)
        mixed = shrink[..., None] * mixed + jnp.matmul(weights, _block(values, row, to))
        return tuple(_put(x, new, row, at) for x, new in zip(state, (mixed, total, higher), strict=True))

    # A query's own token comes first, so there is always a largest score.
    own = _padded(jnp.sum(tokens.query * tokens.own_keys, axis=-1))
    start = (_padded(tokens.own_values), jnp.ones_like(own), own)
    mixed, total, largest = jax.lax.fori_loop(0, reads.active, body, start)
    return (mixed / total[..., None])[:, :, :length], (jnp.log(total) + largest)[:, :, :length]


@sequential_vmap
def _slopes(
    tokens: Tokens, reads: Reading, slope: jax.Array, common: jax.Array, total: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the gradients of queries, keys and values."""
    length, many = tokens.query.shape[2], tokens.keys.shape[2]
    query, keys, values, slope, common, total = map(_padded, (*tokens[:3], slope, common, total))
    limits = _limits(reads)

    def body(number: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        row, at, to = pair = reads.pairs[:, number]
        scores = _scores(query, keys, limits, pair)
        weights, above = jnp.exp(scores - _block(total, row, at)[..., None]), _block(slope, row, at)
        score = jnp.einsum("hqd,hkd->hqk", above, _block(values, row, to)) - _block(common, row, at)[..., None]
        score = weights * score
        parts = (
            jnp.matmul(score, _block(keys, row, to)),
            jnp.einsum("hqk,hqd->hkd", score, _block(query, row, at)),
            jnp.einsum("hqk,hqd->hkd", weights, above),
        )
        places = zip(state, parts, (at, to, to), strict=True)
        return tuple(_put(x, _block(x, row, place) + part, row, place) for x, part, place in places)

    start = jax.tree.map(jnp.zeros_like, (query, keys, values))
    to_query, to_keys, to_values = jax.lax.fori_loop(0, reads.active, body, start)
    return to_query[:, :, :length], to_keys[:, :, :many], to_values[:, :, :many]


def _scores(query: jax.Array, keys: jax.Array, limits: tuple[jax.Array, ...], pair: jax.Array) -> jax.Array:
    """Return the scores ``[H, _BLOCK, _BLOCK]`` of a pair of blocks."""
    row, at, to = pair
    floor, ceiling, stamps = limits
    scores = jnp.einsum("hqd,hkd->hqk", _block(query, row, at), _block(keys, row, to))
    return jnp.where(readable(floor[row, at], ceiling[row, at], stamps[row, to]), scores, _MASKED)


def readable(floor: jax.Array, ceiling: jax.Array, stamps: jax.Array) -> jax.Array:
    """Return which keys each query reads, ``[..., T, S]``."""
    stamps = stamps[..., None, :]
    return (stamps >= floor[..., None]) & (stamps < ceiling[..., None])


def _limits(reads: Reading) -> tuple[jax.Array, ...]:
    """Return floor, ceiling and stamps by block."""
    return (
        _blocks(reads.floor, math.inf),
        _blocks(reads.ceiling, -math.inf),
        _blocks(reads.stamps, UNREADABLE),
    )


def _blocks(rows: jax.Array, filling: float) -> jax.Array:
    """``[N, T] -> [N, blocks, _BLOCK]``, the last filled up."""
    return _padded(rows[:, None], filling).reshape(rows.shape[0], -1, _BLOCK)


def _padded(x: jax.Array, filling: float = 0.0) -> jax.Array:
    """Return ``[N, H, T, ...]`` with T filled up to whole blocks."""
    missing = -x.shape[2] % _BLOCK
    return jnp.pad(x, [(0, 0), (0, 0), (0, missing), *[(0, 0)] * (x.ndim - 3)], constant_values=filling)


def _block(x: jax.Array, row: jax.Array, number: jax.Array) -> jax.Array:
    """Return the block ``[H, _BLOCK, ...]`` of ``[N, H, T, ...]``."""
    start: list[Any] = [row, 0, number * _BLOCK, *[0] * (x.ndim - 3)]
    return jax.lax.dynamic_slice(x, start, (1, x.shape[1], _BLOCK, *x.shape[3:]))[0]


def _put(x: jax.Array, block: jax.Array, row: jax.Array, number: jax.Array) -> jax.Array:
    """Return ``[N, H, T, ...]`` with another block."""
    start: list[Any] = [row, 0, number * _BLOCK, *[0] * (x.ndim - 3)]
    return jax.lax.dynamic_update_slice(x, block[None], start)
