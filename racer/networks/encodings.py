"""Positional encodings of the rows of an observation, before whatever reads them.

Rows have no order of their own: row 0 is the observer's, the others stand around it. An encoding tells a network where
a row stands: by its rank in the list, or by its distance ``d`` from row 0, ``u = d / max_distance`` clipped to [0, 1].
"Attention is all you need" (Vaswani et al. 2017, section 3.5) has the sinusoids, RoFormer (Su et al. 2021, section 3.2)
the rotations.

``variant`` "corrected" measures distances in metres from row 0 and leaves empty rows empty. "as_run" is what a
published study ran under these names: distances on the numbers as they are observed, with row 0's own position taken
off rows that are relative to it already, empty rows treated as full ones, and sinusoids where it says rotary.

Written over the array namespace: NumPy arrays in workers, JAX arrays in the learner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from racer.core.config import check_fields, option
from racer.core.errors import UsageError
from racer.networks.fields import build_kind, described
from racer.networks.layers import Array, Params, namespace

__all__ = [
    "ENCODINGS",
    "VARIANTS",
    "Distance",
    "Placement",
    "PositionalEncoding",
    "Rank",
    "Rotary",
    "build_encoding",
    "encoding_spec",
]

VARIANTS = ("corrected", "as_run")

TABLE = "encoder/rank_frozen"
"""Name of the rank table among the parameters: drawn with them, saved with them, never trained."""

_MOST = 1024


class PositionalEncoding(Protocol):
    """Maps rows to rows."""

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of encoded observations of ``shape``.

        Raises:
            UsageError: observations that are not in rows, or lack a column.
        """
        ...

    def init(self, key: Any, shape: tuple[int, ...]) -> dict[str, Array]:
        """Draw what the encoding keeps with the parameters."""
        ...

    def encode(self, params: Params, observations: Array, rows: Array) -> Array:
        """Encode rows.

        Args:
            params: from :meth:`init`.
            observations: ``[..., V, F]``, as observed.
            rows: ``[..., V, F]``, the same scaled for the network.
        """
        ...


@dataclass(frozen=True)
class Placement:
    """Where positions and presence stand in a row. A world fills this in (``World.row_layout``)."""

    x: int | None = option(None, "column of the forward position", low=0, high=_MOST)
    y: int | None = option(None, "column of the sideways position", low=0, high=_MOST)
    presence: int | None = option(
        None, "column that is 0 in empty rows; None: rows of zeros are empty", low=0, high=_MOST
    )
    metres: tuple[float, float] = option((1.0, 1.0), "what 1 in the columns x and y is worth (m)", above=0.0)
    absolute: bool = option(False, "whether positions are the road's rather than relative to row 0")
    variant: str = option("corrected", "how distances are measured", choices=VARIANTS)

    def __post_init__(self) -> None:
        check_fields(self, "key of a positional encoding")

    def _rows(self, shape: tuple[int, ...]) -> tuple[int, int]:
        if len(shape) != 2:
            raise UsageError(f"a positional encoding reads observations in rows [V, F], these have {list(shape)}")
        for name in ("x", "y", "presence"):
            column = getattr(self, name)
            if column is None and name != "presence" and not isinstance(self, Rank):
                raise UsageError(f"a positional encoding by distance needs the columns x and y; {name!r} is not given")
            if column is not None and column >= shape[1]:
                raise UsageError(f"a positional encoding's column {name} is {column}, but rows have {shape[1]} columns")
        return shape[0], shape[1]

    def present(self, observations: Array) -> Array:
        """Return which rows are there, bool ``[..., V]``; row 0 always is."""
        xp = namespace(observations)
        if self.variant == "as_run":
            return xp.ones(observations.shape[:-1], dtype=bool)
        if self.presence is not None:
            found = observations[..., self.presence] != 0.0
        else:
            found = xp.any(observations != 0.0, axis=-1)
        return found | (xp.arange(observations.shape[-2]) == 0)

    def nearness(self, observations: Array, max_distance: float) -> Array:
        """Return ``u`` of every row, ``[..., V]`` in [0, 1]; 0 for row 0."""
        xp = namespace(observations)
        x, y = observations[..., self.x], observations[..., self.y]
        if self.variant == "as_run":
            dx, dy = x - x[..., :1], y - y[..., :1]
        elif self.absolute:
            dx, dy = (x - x[..., :1]) * self.metres[0], (y - y[..., :1]) * self.metres[1]
        else:
            dx, dy = x * self.metres[0], y * self.metres[1]
        distance = xp.sqrt(dx * dx + dy * dy)
        if self.variant == "corrected":
            distance = xp.where(xp.arange(observations.shape[-2]) == 0, 0.0, distance)
        return xp.clip(distance / max_distance, 0.0, 1.0).astype(observations.dtype)


@dataclass(frozen=True)
class Rank(Placement):
    """``tanh(T[i])`` beside row i, from a table ``T`` ``[V, dim]`` drawn once, uniform in [-0.05, 0.05]."""

    dim: int = option(8, "numbers added to each row", low=1, high=_MOST)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        rows, columns = self._rows(shape)
        return rows, columns + self.dim

    def init(self, key: Any, shape: tuple[int, ...]) -> dict[str, Array]:
        import jax

        return {TABLE: jax.random.uniform(key, (shape[0], self.dim), minval=-0.05, maxval=0.05)}

    def encode(self, params: Params, observations: Array, rows: Array) -> Array:
        xp, table = namespace(rows), params[TABLE]
        if not isinstance(table, np.ndarray):
            import jax

            table = jax.lax.stop_gradient(table)
        code = xp.broadcast_to(xp.tanh(table), (*rows.shape[:-1], self.dim))
        return _beside(xp, rows, code, self.present(observations))


@dataclass(frozen=True)
class Distance(Placement):
    """``sin(2 pi u f_k)`` for all k, then ``cos``, beside each row, with ``f_k = base^(-2k / dim)``."""

    dim: int = option(8, "numbers added to each row, even", low=2, high=_MOST)
    base: float = option(10_000.0, "ratio of the fastest frequency to the slowest", above=1.0)
    max_distance: float = option(100.0, "distance (m) from which on rows look equally far", above=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % 2:
            raise UsageError(f"positional encoding 'distance': dim must be even, not {self.dim}")

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        rows, columns = self._rows(shape)
        return rows, columns + self.dim

    def init(self, key: Any, shape: tuple[int, ...]) -> dict[str, Array]:
        return {}

    def encode(self, params: Params, observations: Array, rows: Array) -> Array:
        xp = namespace(rows)
        code = _sinusoids(xp, self.nearness(observations, self.max_distance), self.dim, self.base)
        return _beside(xp, rows, code, self.present(observations))


@dataclass(frozen=True)
class Rotary(Placement):
    """Consecutive pairs of a row's numbers rotated by ``2 pi u base^(-p / P)``, pair p of P; an odd last one stays."""

    base: float = option(10_000.0, "ratio of the fastest rotation to the slowest", above=1.0)
    max_distance: float = option(100.0, "distance (m) from which on rows look equally far", above=0.0)
    dim: int = option(8, 'numbers added to each row where the variant is "as_run", even', low=2, high=_MOST)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        rows, columns = self._rows(shape)
        return (rows, columns + self.dim) if self.variant == "as_run" else (rows, columns)

    def init(self, key: Any, shape: tuple[int, ...]) -> dict[str, Array]:
        return {}

    def encode(self, params: Params, observations: Array, rows: Array) -> Array:
        xp = namespace(rows)
        near = self.nearness(observations, self.max_distance)
        if self.variant == "as_run":
            return _beside(xp, rows, _sinusoids(xp, near, self.dim, self.base), self.present(observations))
        pairs = rows.shape[-1] // 2
        turns = np.asarray([2.0 * math.pi * self.base ** (-p / pairs) for p in range(pairs)], np.float32)
        angle = near[..., None] * turns
        sine, cosine = xp.sin(angle), xp.cos(angle)
        first, second = rows[..., 0 : 2 * pairs : 2], rows[..., 1 : 2 * pairs : 2]
        turned = xp.stack([first * cosine - second * sine, first * sine + second * cosine], axis=-1)
        turned = turned.reshape(*rows.shape[:-1], 2 * pairs)
        return turned if rows.shape[-1] == 2 * pairs else xp.concatenate([turned, rows[..., 2 * pairs :]], axis=-1)


ENCODINGS: dict[str, type[Any]] = {"rank": Rank, "distance": Distance, "rotary": Rotary}


def build_encoding(given: Any) -> PositionalEncoding | None:
    """Build an encoding from its description, ``{"kind": "rotary", "x": 1, "y": 2}``, or its bare name; None for None.

    Raises:
        UsageError: an unknown kind or field, or a value out of range.
    """
    if given is None:
        return None
    encoding: PositionalEncoding = build_kind("positional encoding", ENCODINGS, given)
    return encoding


def encoding_spec(encoding: PositionalEncoding | None) -> dict[str, Any] | None:
    """Return the JSON form of an encoding."""
    return None if encoding is None else described(ENCODINGS, encoding)


def _sinusoids(xp: Any, near: Array, dim: int, base: float) -> Array:
    frequencies = np.asarray([2.0 * math.pi * base ** (-2.0 * k / dim) for k in range(dim // 2)], np.float32)
    angle = near[..., None] * frequencies
    return xp.concatenate([xp.sin(angle), xp.cos(angle)], axis=-1)


def _beside(xp: Any, rows: Array, code: Array, present: Array) -> Array:
    """Put a code beside rows that are there; what is empty stays a row of zeros."""
    kept = xp.where(present[..., None], code, 0.0).astype(rows.dtype)
    return xp.concatenate([rows, kept], axis=-1)
