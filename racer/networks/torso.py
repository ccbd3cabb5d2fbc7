"""What a policy or a value has below its heads: positions of rows, encoder, dense layers, memory."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from racer.core.config import check_fields, option
from racer.core.errors import UsageError
from racer.networks.cores import build_core, core_spec
from racer.networks.encoders import Encoder, Flat, build_encoder, encoder_spec
from racer.networks.encodings import PositionalEncoding, build_encoding, encoding_spec
from racer.networks.fields import freeze, require, thaw
from racer.networks.layers import ACTIVATIONS, Array, Params, init_dense, mlp, orthogonal, variance_scaling
from racer.networks.memory import Core, Memory, Sequence

__all__ = ["Torso", "build_torso"]

@dataclass(frozen=True)
class Torso:
    """Maps observations to features.

    Attributes:
        encoder: what the first dense layer reads.
        core: the memory after the last dense layer, or None.
        positions: what tells the encoder where an observation's rows stand, or None.

    Raises:
        UsageError: a value out of range, or parts that do not fit each other or the observation.
    """

    shape: tuple[int, ...] = option(MISSING, "shape of one observation", empty=False)
    hidden_dims: tuple[int, ...] = option((256, 256), "widths of the dense layers")
    activation: str = option("relu", "after each dense layer", choices=tuple(ACTIVATIONS))
    observation_scale: float | tuple[float, ...] | None = option(
        None, "factor on the observation: one number, one for each place of its last axis, or None", above=0.0
    )
    encoder: Encoder = field(default_factory=Flat)
    core: Core | None = None
    positions: PositionalEncoding | None = None

    def __post_init__(self) -> None:
        check_fields(self, "key of a torso")
        scale = self.observation_scale
        if isinstance(scale, tuple) and len(scale) != self.shape[-1]:
            raise UsageError(f"observation_scale has {len(scale)} values, an observation's last axis {self.shape[-1]}")
        self.encoder.width(self.encoded_shape)

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """Shape of what the encoder reads."""
        return self.shape if self.positions is None else self.positions.shape(self.shape)

    @property
    def width(self) -> int:
        """Numbers in the features, H."""
        if self.core is not None:
            return self.core.width
        return self.trunk_width

    @property
    def trunk_width(self) -> int:
        """Numbers after the last dense layer."""
        return self.hidden_dims[-1] if self.hidden_dims else self.encoder.width(self.encoded_shape)

    @property
    def spec(self) -> dict[str, Any]:
        """JSON form; :func:`build_torso` reads it."""
        return {
            "hidden_dims": list(self.hidden_dims),
            "activation": self.activation,
            "observation_scale": thaw(self.observation_scale),
            "encoder": encoder_spec(self.encoder),
            "memory": core_spec(self.core),
            **({} if self.positions is None else {"positions": encoding_spec(self.positions)}),
        }

    def init(self, key: Any, *, orthogonal_init: bool = False) -> dict[str, Array]:
        """Draw the parameters (JAX): ``encoder/...``, ``trunk/hidden_i/...``, ``memory/...``.

        Args:
            key: random key.
            orthogonal_init: orthogonal dense layers of gain sqrt(2) instead of uniform ones.
        """
        import jax

        encoder_key, trunk_key, core_key = jax.random.split(key, 3)
        params = self.encoder.init(encoder_key, self.encoded_shape)
        if self.positions is not None:
            params |= self.positions.init(jax.random.fold_in(encoder_key, 0), self.shape)
        sizes = (self.encoder.width(self.encoded_shape), *self.hidden_dims)
        init = orthogonal() if orthogonal_init else variance_scaling(1.0)
        for index in range(len(self.hidden_dims)):
            part = jax.random.fold_in(trunk_key, index)
            params |= init_dense(part, f"trunk/hidden_{index}", sizes[index], sizes[index + 1], init)
        return params if self.core is None else params | self.core.init(core_key, sizes[-1])

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        """Return the memory of ``count`` episodes that begin; empty without a core."""
        return {} if self.core is None else self.core.initial_memory(count)

    def before_memory(self, params: Params, observations: Array) -> Array:
        """Map ``[..., *shape]`` to what the core reads, ``[..., trunk_width]``."""
        rows = observations if self.observation_scale is None else observations * self._factors
        if self.positions is not None:
            rows = self.positions.encode(params, observations, rows)
        encoded = self.encoder.encode(params, rows, self.encoded_shape)
        return mlp(params, "trunk/hidden", len(self.hidden_dims), self.activation, encoded)

    @cached_property
    def _factors(self) -> np.ndarray:
        return np.asarray(self.observation_scale, np.float32)

    def step(self, params: Params, observations: Array, memory: Memory) -> tuple[Array, dict[str, Array]]:
        """Map ``[N, *shape]`` to features ``[N, H]`` and the memory after them."""
        features = self.before_memory(params, observations)
        return (features, {}) if self.core is None else self.core.step(params, features, memory)

    def unroll(
        self, params: Params, observations: Array, memory: Memory, rows: Sequence, peek: Array | None = None
    ) -> tuple[Array, Array | None]:
        """Map a sequence ``[T, N, *shape]`` to features; see :meth:`racer.networks.memory.Core.unroll`."""
        features = self.before_memory(params, observations)
        later = None if peek is None else self.before_memory(params, peek)
        return (features, later) if self.core is None else self.core.unroll(params, features, memory, rows, later)


def build_torso(shape: tuple[int, ...], fields: Any) -> Torso:
    """Build a torso for observations of ``shape`` from its JSON form, :attr:`Torso.spec`.

    Raises:
        UsageError: an unknown or missing field, or a value out of range.
    """
    values = dict(fields)
    values["encoder"] = build_encoder(values.get("encoder", "flat"))
    values["core"] = build_core(values.pop("memory", None))
    values["positions"] = build_encoding(values.get("positions"))
    return require(Torso, "torso", {"shape": freeze(shape), **values})
