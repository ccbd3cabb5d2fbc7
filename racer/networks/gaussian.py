"""Tanh-squashed diagonal Gaussian policy with an action range of its own for every action.

Haarnoja et al. 2018 (arXiv 1812.05905), appendix C: ``a = centre + half_width * tanh(u)``, ``u ~ N(mean,
std)``. The range is an argument rather than a constant because it may itself be learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from racer.networks.flax_encoders import Encoder, EncoderSpec
from racer.networks.mlp import MLP

__all__ = ["LOG_STD_MAX", "LOG_STD_MIN", "ActionSample", "GaussianActor", "sample_squashed", "squash"]

LOG_STD_MIN = -20.0
LOG_STD_MAX = 2.0
_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_LOG_TWO = math.log(2.0)


class ActionSample(NamedTuple):
    """One draw from the policy.

    Attributes:
        raw: ``[..., A]`` the Gaussian draw before squashing.
        actions: ``[..., A]`` inside the action range.
        log_probs: ``[...]`` density of ``actions``.
    """

    raw: jax.Array
    actions: jax.Array
    log_probs: jax.Array


class GaussianActor(nn.Module):
    """Trunk with two linear heads: mean and logarithm of the standard deviation of the Gaussian.

    Attributes:
        hidden_dims: widths of the trunk.
        action_dim: A.
        encoder: what happens to the observation first.
        activation: a name in :data:`racer.networks.mlp.ACTIVATIONS`.
        initial_mean: first mean of every action in (-1, 1), the whole of its range; empty for the centre.
    """

    hidden_dims: Sequence[int]
    action_dim: int
    encoder: EncoderSpec = EncoderSpec()
    activation: str = "relu"
    initial_mean: Sequence[float] = ()

    @nn.compact
    def __call__(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return mean and log standard deviation, both ``[..., A]``, for ``[..., D]`` observations."""
        encoded = Encoder(self.encoder, name="encoder")(observations)
        hidden = MLP(self.hidden_dims, self.activation, name="trunk")(encoded)
        # Small heads: the first policy is the same everywhere, whatever the observations' scale.
        head = nn.initializers.variance_scaling(0.01, "fan_avg", "uniform")
        centre = np.arctanh(np.array(self.initial_mean or (0.0,) * self.action_dim, np.float32))
        first = nn.initializers.constant(centre)
        mean = nn.Dense(self.action_dim, kernel_init=head, bias_init=first, name="mean")(hidden)
        log_std = nn.Dense(self.action_dim, kernel_init=head, name="log_std")(hidden)
        return mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)


def squash(raw: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Map unbounded ``[..., A]`` into ``[low, high]`` (each ``[A]``) by the hyperbolic tangent."""
    return 0.5 * (high + low) + 0.5 * (high - low) * jnp.tanh(raw)


def sample_squashed(
    mean: jax.Array, log_std: jax.Array, noise: jax.Array, low: jax.Array, high: jax.Array
) -> ActionSample:
    """Draw actions from standard normal ``noise`` by reparametrisation, with their log-density.

    ``log(1 - tanh(u)^2)`` is written as ``2 (log 2 - u - softplus(-2u))``, which stays finite where the
    tangent saturates.

    Args:
        mean, log_std, noise: ``[..., A]``.
        low, high: ``[A]``, the action range.
    """
    raw = mean + jnp.exp(log_std) * noise
    gaussian = -0.5 * jnp.square(noise) - log_std - _HALF_LOG_TWO_PI
    log_slope = 2.0 * (_LOG_TWO - raw - jax.nn.softplus(-2.0 * raw)) + jnp.log(0.5 * (high - low))
    log_probs = jnp.sum(gaussian - log_slope, axis=-1)
    return ActionSample(raw, squash(raw, low, high), log_probs)
