"""Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["generalized_advantages"]


def generalized_advantages(
    rewards: jax.Array,
    bootstrap: jax.Array,
    cut: jax.Array,
    valid: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    discount: float | jax.Array,
    gae_lambda: float | jax.Array,
) -> jax.Array:
    """Return ``A_t = delta_t + discount * lambda * A_{t+1}`` along the first axis (eq. 16), ``[T, N]``.

    ``delta_t = r_t + discount * bootstrap_t * V(next_t) - V(s_t)``: a terminated episode has no future (bootstrap 0),
    one that ran out of time is worth what its *final* observation is. The sum over later residuals ends where a row is
    cut, at a row that is no transition, and at the end of the rollout.

    Args:
        rewards: ``[T, N]``.
        bootstrap: ``[T, N]``, 1 where what follows a row is worth anything.
        cut: ``[T, N]``, 1 where the sum ends after a row.
        valid: ``[T, N]``, 0 where a row is no transition; its advantage is 0, whatever stands in it.
        values: ``[T, N]`` of the observations.
        next_values: ``[T, N]`` of the successors; at an episode's end of its final observation, not of the next
            episode's first.
        discount: in (0, 1].
        gae_lambda: in [0, 1].
    """
    residuals = jnp.where(valid > 0, rewards + discount * bootstrap * next_values - values, 0.0)
    carried = discount * gae_lambda * (1.0 - cut) * valid

    def backwards(later: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        residual, carry = row
        advantage = residual + carry * later
        return advantage, advantage

    _, advantages = jax.lax.scan(backwards, jnp.zeros_like(residuals[0]), (residuals, carried), reverse=True)
    return advantages
