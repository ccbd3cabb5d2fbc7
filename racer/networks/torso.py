"""What a policy or a value has below its heads: encoder, dense layers, memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from racer.core.errors import UsageError, unknown_name
from racer.networks.cores import build_core, core_spec
from racer.networks.encoders import Encoder, Flat, build_encoder, encoder_spec
from racer.networks.fields import MAX_WIDTH, finite, freeze, require, thaw, widths
from racer.networks.layers import ACTIVATIONS, Array, Params, init_dense, mlp, orthogonal, variance_scaling
from racer.networks.memory import Core, Memory, Sequence

__all__ = ["Torso", "build_torso"]

Scale = float | tuple[float, ...] | None


@dataclass(frozen=True)
class Torso:
    """Maps observations to features.

    Attributes:
        shape: of one observation.
        hidden_dims: widths of the dense layers.
        activation: a name in :data:`racer.networks.layers.ACTIVATIONS`.
        observation_scale: factor on the observation: one number, one for each place of the last axis, or None.
        encoder: what the first dense layer reads.
        core: the memory after the last dense layer, or None.

    Raises:
        UsageError: the parts do not fit each other or the observation.
    """

    shape: tuple[int, ...]
    hidden_dims: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    observation_scale: Scale = None
    encoder: Encoder = field(default_factory=Flat)
    core: Core | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.shape, tuple) or not 1 <= len(self.shape) <= 3:
            raise UsageError(f"an observation must be an array such as [D] or [V, F], got the shape {self.shape!r}")
        if any(isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_WIDTH for n in self.shape):
            raise UsageError(f"the shape of an observation must be whole numbers from 1 on, got {list(self.shape)}")
        widths("hidden_dims", self.hidden_dims)
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", str(self.activation), ACTIVATIONS)
        _check_scale(self.observation_scale, self.shape)
        self.encoder.width(self.shape)

    @property
    def width(self) -> int:
        """Numbers in the features, H."""
        if self.core is not None:
            return self.core.width
        return self.trunk_width

    @property
    def trunk_width(self) -> int:
        """Numbers after the last dense layer."""
        return self.hidden_dims[-1] if self.hidden_dims else self.encoder.width(self.shape)

    @property
    def spec(self) -> dict[str, Any]:
        """JSON form; :func:`build_torso` reads it."""
        return {
            "hidden_dims": list(self.hidden_dims),
            "activation": self.activation,
            "observation_scale": thaw(self.observation_scale),
            "encoder": encoder_spec(self.encoder),
            "memory": core_spec(self.core),
        }

    def init(self, key: Any, *, orthogonal_init: bool = False) -> dict[str, Array]:
        """Draw the parameters (JAX): ``encoder/...``, ``trunk/hidden_i/...``, ``memory/...``.

        Args:
            key: random key.
            orthogonal_init: orthogonal dense layers of gain sqrt(2) instead of uniform ones.
        """
        import jax

        encoder_key, trunk_key, core_key = jax.random.split(key, 3)
        params = self.encoder.init(encoder_key, self.shape)
        sizes = (self.encoder.width(self.shape), *self.hidden_dims)
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
        if self.observation_scale is not None:
            observations = observations * self._factors
        encoded = self.encoder.encode(params, observations, self.shape)
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
    return require(Torso, "torso", {"shape": freeze(shape), **values})


def _check_scale(scale: Scale, shape: tuple[int, ...]) -> None:
    if scale is None:
        return
    if isinstance(scale, tuple) and len(scale) != shape[-1]:
        raise UsageError(f"observation_scale has {len(scale)} values, but an observation's last axis has {shape[-1]}")
    for value in scale if isinstance(scale, tuple) else (scale,):
        if finite("observation_scale", value) <= 0.0:
            raise UsageError(f"observation_scale must be above 0, got {value!r}")
