"""The losses of clipped PPO as pure functions of rows ``[...]`` (Schulman et al. 2017, arXiv 1707.06347).

Each returns one number a row; :func:`masked_mean` averages them over the rows that are transitions.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = [
    "clipped_surrogate",
    "divergence",
    "lambda_discrepancy",
    "masked_mean",
    "normalized_advantages",
    "value_loss",
]

_EPSILON = 1e-8


def masked_mean(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Return the mean of ``values`` where ``valid`` is 1, whatever the other rows hold; 0 where there are none."""
    return jnp.sum(jnp.where(valid > 0, values, 0.0)) / jnp.maximum(jnp.sum(valid), 1.0)


def normalized_advantages(advantages: jax.Array, valid: jax.Array) -> jax.Array:
    """Shift and scale the valid rows to mean 0 and variance 1; the others become 0."""
    centred = advantages - masked_mean(advantages, valid)
    deviation = jnp.sqrt(masked_mean(jnp.square(centred), valid))
    return jnp.where(valid > 0, centred / (deviation + _EPSILON), 0.0)


def clipped_surrogate(
    log_probs: jax.Array, behaviour_log_probs: jax.Array, advantages: jax.Array, clip_ratio: float | jax.Array
) -> jax.Array:
    """Return minus ``min(rho A, clip(rho, 1 - eps, 1 + eps) A)`` (eq. 7).

    Args:
        log_probs: of the actions under the policy that is trained.
        behaviour_log_probs: under the policy that chose them, as it wrote them down.
        advantages: no gradient reaches them.
        clip_ratio: eps.
    """
    advantages = jax.lax.stop_gradient(advantages)
    ratio = jnp.exp(log_probs - behaviour_log_probs)
    clipped = jnp.clip(ratio, 1.0 - clip_ratio, 1.0 + clip_ratio)
    return -jnp.minimum(ratio * advantages, clipped * advantages)


def value_loss(
    values: jax.Array, old_values: jax.Array, targets: jax.Array, value_clip: float | jax.Array | None
) -> jax.Array:
    """Return half the squared error, or, clipped, the larger of it and that of a value near the old one.

    Args:
        values: of the network that is trained.
        old_values: of the network before the update.
        targets: discounted returns; no gradient reaches them.
        value_clip: greatest change of a value that still lowers the loss; None for no limit.
    """
    targets = jax.lax.stop_gradient(targets)
    error = jnp.square(values - targets)
    if value_clip is not None:
        near = old_values + jnp.clip(values - old_values, -value_clip, value_clip)
        error = jnp.maximum(error, jnp.square(near - targets))
    return 0.5 * error


def lambda_discrepancy(values: jax.Array) -> jax.Array:
    """Return the squared difference of two value heads, ``[..., 2] -> [...]``.

    Heads that learn returns of different lambda agree where an observation (with the memory) tells all that matters;
    where they differ, the state is hidden. Descending the difference makes the memory keep what tells them apart
    (Allen et al. 2024, "Mitigating partial observability in sequential decision processes via the lambda discrepancy").
    """
    return jnp.square(values[..., 0] - values[..., 1])


def divergence(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """Return the non-negative estimate ``(rho - 1) - log rho`` of KL(reference || policy) from the reference's draws.

    Its expectation is the divergence, with less variance than that of ``-log rho`` (Schulman, "Approximating KL
    divergence", 2020, estimator k3).
    """
    log_ratio = log_probs - reference_log_probs
    return jnp.expm1(log_ratio) - log_ratio
