"""Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["generalized_advantages"]


def generalized_advantages(
    rewards: jax.Array,
    masks: jax.Array,
    dones: jax.Array,
    valid: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    discount: float,
    gae_lambda: float,
) -> jax.Array:
    """Return ``A_t = delta_t + discount * lambda * A_{t+1}`` along the first axis (eq. 16), ``[T, N]``.

    ``delta_t = r_t + discount * mask_t * V(next_t) - V(s_t)``: a terminated episode has no future (mask 0), while a
    truncated one bootstraps with the value of its *final* observation. The sum over later residuals ends at an
    episode's end of either kind, at a row that is no transition, and at the end of the rollout.

    Args:
        rewards: ``[T, N]``.
        masks: ``[T, N]``, ``1 - terminated``.
        dones: ``[T, N]``, ``terminated | truncated``.
        valid: ``[T, N]``, 0 where a row is no transition; its advantage is 0.
        values: ``[T, N]`` of the observations.
        next_values: ``[T, N]`` of the successors; at an episode's end of its final observation, not of the next
            episode's first.
        discount: in (0, 1].
        gae_lambda: in [0, 1].
    """
    residuals = rewards + discount * masks * next_values - values
    carried = discount * gae_lambda * (1.0 - dones)

    def backwards(later: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        residual, carry, is_valid = row
        advantage = is_valid * (residual + carry * later)
        return advantage, advantage

    _, advantages = jax.lax.scan(backwards, jnp.zeros_like(rewards[0]), (residuals, carried, valid), reverse=True)
    return advantages
