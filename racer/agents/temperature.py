"""The SAC family's entropy temperature."""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["temperature_loss"]


def temperature_loss(log_temperature: jax.Array, entropy: jax.Array, target_entropy: float) -> jax.Array:
    """Return ``temperature * (entropy - target)`` (Haarnoja et al. 2018, arXiv 1812.05905, eq. 18).

    The gradient reaches the temperature alone: it falls while the policy is more random than the target.
    """
    return jnp.exp(log_temperature) * jax.lax.stop_gradient(entropy - target_entropy)
