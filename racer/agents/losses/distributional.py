"""The losses of RACER as pure functions (Stachowicz & Levine 2024, arXiv 2405.04714).

Letters in shapes: E critics, K action sets, B rows of a minibatch, A actions, n atoms.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from racer.networks.categorical import Support, bellman_projection, cvar

__all__ = [
    "CriticTerms",
    "critic_loss",
    "critic_target",
    "lagrange_loss",
    "mixture_cvar",
    "policy_objective",
]


class CriticTerms(NamedTuple):
    """What the critic's loss is made of, scalars in nats.

    Attributes:
        cross_entropy: of the predicted against the target distribution.
        data_entropy: entropy of the critic on replayed actions.
        ood_entropy: entropy of the critic on out-of-distribution actions.
    """

    cross_entropy: jax.Array
    data_entropy: jax.Array
    ood_entropy: jax.Array


def critic_target(
    support: Support,
    next_logits: jax.Array,
    rewards: jax.Array,
    masks: jax.Array,
    discount: float | jax.Array,
    taps: int,
    independent_ensemble: bool,
) -> jax.Array:
    """Return the target distribution of each critic, ``[E, B, n]`` or ``[1, B, n]``.

    The distributional Bellman backup ``r + mask * discount * Z(s', a')`` projected onto the atoms (Bellemare
    et al. 2017, eq. 7). Independent members back up their own target, which is what makes their disagreement
    a measure of epistemic uncertainty; otherwise all learn the mixture of the targets.

    Args:
        support: the atoms.
        next_logits: ``[E, B, n]`` of the target critics at the next observation and the policy's action.
        rewards: ``[B]`` (entropy bonus included, where the backup carries one).
        masks: ``[B]``, 0 where the episode terminated.
        discount: in (0, 1].
        taps: see :func:`racer.networks.categorical.projection_taps`.
        independent_ensemble: whether each member keeps its own target.
    """
    probs = jax.nn.softmax(next_logits, axis=-1)
    if not independent_ensemble:
        probs = jnp.mean(probs, axis=0, keepdims=True)
    return jax.lax.stop_gradient(bellman_projection(support, probs, rewards, masks, discount, taps))


@jax.custom_vjp
def critic_loss(logits: jax.Array, target_probs: jax.Array, lagrange: jax.Array) -> tuple[jax.Array, CriticTerms]:
    """Return cross-entropy plus the critic-entropy penalty, and both parts.

    ``CE(target, Z(s, a)) + lagrange * (H[Z(s, a)] - H[Z(s, a_ood)])``: with a positive multiplier the critic
    is pushed to stay uncertain about actions the data does not cover. Entropies are taken from
    ``log_softmax``, so a probability that underflows to 0 contributes 0 rather than NaN.

    The derivative with respect to the logits is written out, ``p - target`` for the cross-entropy and
    ``-p (log p + H)`` for the entropy, so that one softmax serves loss and gradient. Targets and multiplier
    are constants of this loss.

    Args:
        logits: ``[E, K, B, n]``; K = 1 (replayed actions) or 2 (replayed, out-of-distribution).
        target_probs: ``[E, B, n]`` or ``[1, B, n]``, rows sum to 1.
        lagrange: scalar multiplier.
    """
    return _critic_loss_forward(logits, target_probs, lagrange)[0]


_Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def _critic_loss_forward(
    logits: jax.Array, target_probs: jax.Array, lagrange: jax.Array
) -> tuple[tuple[jax.Array, CriticTerms], _Residuals]:
    shifted = logits - jnp.max(logits, axis=-1, keepdims=True)
    masses = jnp.exp(shifted)
    total = jnp.sum(masses, axis=-1, keepdims=True)
    log_probs, probs = shifted - jnp.log(total), masses / total
    cross_entropy = -jnp.mean(jnp.sum(target_probs * log_probs[:, 0], axis=-1))
    entropies = -jnp.sum(probs * log_probs, axis=-1)
    means = jnp.mean(entropies, axis=(0, 2))
    terms = CriticTerms(cross_entropy, means[0], means[-1])
    loss = cross_entropy
    if logits.shape[1] > 1:
        loss = cross_entropy + lagrange * (terms.data_entropy - terms.ood_entropy)
    return (loss, terms), (probs, log_probs, entropies, target_probs, lagrange)


def _critic_loss_backward(
    residuals: _Residuals, slopes: tuple[jax.Array, CriticTerms]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    probs, log_probs, entropies, target_probs, lagrange = residuals
    per_row = slopes[0] / (probs.shape[0] * probs.shape[2])
    of_cross_entropy = probs[:, 0] - target_probs
    if probs.shape[1] == 1:
        of_logits = of_cross_entropy[:, None]
    else:
        of_entropy = -lagrange * probs * (log_probs + entropies[..., None])
        of_logits = jnp.stack([of_cross_entropy + of_entropy[:, 0], -of_entropy[:, 1]], axis=1)
    return per_row * of_logits, jnp.zeros_like(target_probs), jnp.zeros_like(lagrange)


critic_loss.defvjp(_critic_loss_forward, _critic_loss_backward)


def mixture_cvar(support: Support, logits: jax.Array, risk: float | jax.Array) -> jax.Array:
    """Return the CVaR of the ensemble's mixture, ``[E, B, n] -> [B]``.

    The CVaR of the mixture, not the mean of the members' CVaRs: one member that foresees a crash puts its
    mass into the tail that counts.
    """
    return cvar(support, jnp.mean(jax.nn.softmax(logits, axis=-1), axis=0), risk)


def policy_objective(values: jax.Array, log_probs: jax.Array, temperature: jax.Array) -> jax.Array:
    """Return the loss ``mean(temperature * log pi - CVaR)`` that actor and limit descend, from ``[B]`` each."""
    return jnp.mean(temperature * log_probs - values)


def lagrange_loss(log_lagrange: jax.Array, entropy_difference: jax.Array, target_difference: jax.Array) -> jax.Array:
    """Return ``lagrange * (target - (H_data - H_ood))``: the multiplier grows while the constraint is violated."""
    return jnp.exp(log_lagrange) * jax.lax.stop_gradient(target_difference - entropy_difference)
