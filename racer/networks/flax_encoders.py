"""Observation encoders: what the trunks of actor and critic read instead of the raw observation.

:class:`EncoderSpec` is the one description of an encoder; the NumPy policy of the workers is built from the
same fields, so that both sides read an observation alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

__all__ = ["Encoder", "EncoderSpec", "EnsembleEncoder", "scale_observations"]


@dataclass(frozen=True)
class EncoderSpec:
    """What happens to an observation before the first dense layer of a trunk.

    Attributes:
        observation_scale: factor on the observation: one number, or one for each vehicle feature (repeated
            over the rows), or None for no scaling.
        pointnet_dims: widths of the per-row perceptron of a PointNet; empty for no PointNet.
        vehicle_features: numbers in one vehicle row, F; the observation is ``[N * F]`` row by row.
    """

    observation_scale: float | tuple[float, ...] | None = None
    pointnet_dims: tuple[int, ...] = ()
    vehicle_features: int = 6

    def output_dim(self, observation_dim: int) -> int:
        """Return the width of the encoded observation."""
        if not self.pointnet_dims:
            return observation_dim
        return self.vehicle_features + self.pointnet_dims[-1]


def scale_observations(spec: EncoderSpec, observations: jax.Array) -> jax.Array:
    """Multiply ``[..., N * F]`` by the factors of ``spec``."""
    if spec.observation_scale is None:
        return observations
    factors = np.asarray(spec.observation_scale, dtype=np.float32)
    if factors.ndim == 1:
        factors = np.tile(factors, observations.shape[-1] // factors.size)
    return observations * factors


class Encoder(nn.Module):
    """PointNet over vehicle rows (Qi et al. 2017, eq. 1): the largest value of each feature over the rows.

    Row 0 is the ego vehicle. It is handed on unpooled beside the pooled rows, so the output does not depend
    on the order of the *other* rows and still tells the ego from them. Without ``pointnet_dims`` the
    observation passes through.
    """

    spec: EncoderSpec

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        """Map ``[..., N * F]`` to ``[..., F + pointnet_dims[-1]]`` (or scaled observations unchanged)."""
        spec = self.spec
        scaled = scale_observations(spec, observations)
        if not spec.pointnet_dims:
            return scaled
        rows = scaled.reshape(*scaled.shape[:-1], -1, spec.vehicle_features)
        hidden = rows
        for index, width in enumerate(spec.pointnet_dims):
            hidden = nn.relu(nn.Dense(width, name=f"row_{index}")(hidden))
        return jnp.concatenate([rows[..., 0, :], jnp.max(hidden, axis=-2)], axis=-1)


class EnsembleEncoder(nn.Module):
    """One :class:`Encoder` a member, so that ensemble members stay independent.

    Maps ``[B, D]`` to ``[E, B, D']``; without a PointNet there is nothing to learn and the result is the
    shared ``[B, D]``.
    """

    num_members: int
    spec: EncoderSpec

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        if not self.spec.pointnet_dims:
            return scale_observations(self.spec, observations)
        stacked = nn.vmap(
            Encoder,
            in_axes=None,
            out_axes=0,
            axis_size=self.num_members,
            variable_axes={"params": 0},
            split_rngs={"params": True},
        )
        return stacked(self.spec, name="member")(observations)
