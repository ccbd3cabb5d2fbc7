"""The losses of soft actor-critic as pure functions (Haarnoja et al. 2018, arXiv 1812.05905).

Letters in shapes: E critics, M critics of the target's minimum, B rows of a minibatch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["actor_loss", "critic_loss", "critic_target", "temperature_loss"]


def critic_target(
    next_values: jax.Array,
    rewards: jax.Array,
    masks: jax.Array,
    discount: float | jax.Array,
    entropy_bonus: jax.Array | float = 0.0,
) -> jax.Array:
    """Return ``r + mask * discount * (min_m Q_m(s', a') + bonus)``, ``[B]`` (eq. 5 with clipped double Q).

    Args:
        next_values: ``[M, B]`` of the target critics.
        rewards: ``[B]``.
        masks: ``[B]``, 0 where the episode terminated.
        discount: in (0, 1].
        entropy_bonus: ``[B]``, minus temperature times the log-density of ``a'``; 0 leaves it out.
    """
    return jax.lax.stop_gradient(rewards + discount * masks * (jnp.min(next_values, axis=0) + entropy_bonus))


def critic_loss(values: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean squared Bellman error of all critics, from ``[E, B]`` and ``[B]``."""
    return jnp.mean(jnp.square(values - targets))


def actor_loss(values: jax.Array, log_probs: jax.Array, temperature: jax.Array) -> jax.Array:
    """Return ``mean(temperature * log pi - mean_e Q_e)`` (eq. 9), from ``[E, B]`` and ``[B]``."""
    return jnp.mean(temperature * log_probs - jnp.mean(values, axis=0))


def temperature_loss(log_temperature: jax.Array, entropy: jax.Array, target_entropy: float | jax.Array) -> jax.Array:
    """Return ``temperature * (entropy - target)`` (eq. 18).

    The gradient reaches the temperature alone: it falls while the policy is more random than the target.
    """
    return jnp.exp(log_temperature) * jax.lax.stop_gradient(entropy - target_entropy)
