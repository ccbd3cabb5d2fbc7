"""Log-densities, entropies and draws of the policies' action distributions, in JAX.

Every density is that of the *action*, the change of variables included, and is computed from the draw before
squashing: nothing is inverted, so the density of an action near the edge of its range is exact. The workers
compute the same in NumPy (:mod:`racer.agents.policy`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln, digamma

from racer.networks.gaussian import squash

__all__ = ["Bounds", "deterministic", "draw", "entropies", "log_probs"]

Bounds = tuple[jax.Array, jax.Array]
"""Lower and upper end of the action range, ``[A]`` each; not used for choices."""

Params = Mapping[str, jax.Array]

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_LOG_TWO = math.log(2.0)
_UNIT_EDGE = 1e-6


def _log_slope(raw: jax.Array, bounds: Bounds) -> jax.Array:
    """``log da/du`` of ``a = centre + half_width * tanh(u)``, finite where the tangent saturates."""
    return 2.0 * (_LOG_TWO - raw - jax.nn.softplus(-2.0 * raw)) + jnp.log(0.5 * (bounds[1] - bounds[0]))


def log_probs(distribution: str, params: Params, drawn: jax.Array, bounds: Bounds) -> jax.Array:
    """Return the log-density ``[...]`` of actions (for choices: the log-probability).

    Args:
        distribution: one of :data:`racer.networks.actor_critic.DISTRIBUTIONS`.
        params: what the policy network returned.
        drawn: ``[..., A]`` before squashing (tanh_gaussian), in the unit interval (beta); or ``[...]`` indices.
        bounds: the action range.
    """
    if distribution == "categorical":
        logits = jax.nn.log_softmax(params["logits"])
        return jnp.take_along_axis(logits, drawn[..., None], axis=-1)[..., 0]
    if distribution == "beta":
        alpha, beta = params["alpha"], params["beta"]
        density = (alpha - 1.0) * jnp.log(drawn) + (beta - 1.0) * jnp.log1p(-drawn) - betaln(alpha, beta)
        return jnp.sum(density - jnp.log(bounds[1] - bounds[0]), axis=-1)
    noise = (drawn - params["mean"]) * jnp.exp(-params["log_std"])
    density = -0.5 * jnp.square(noise) - params["log_std"] - _HALF_LOG_TWO_PI
    return jnp.sum(density - _log_slope(drawn, bounds), axis=-1)


def entropies(distribution: str, params: Params, noise: jax.Array, bounds: Bounds) -> jax.Array:
    """Return the differential entropy ``[...]`` of the action distribution, nats.

    Exact for choices and beta. The tanh-Gaussian's has no closed form: the Gaussian's own is exact, the mean
    log-slope is estimated from one draw, through which the gradient goes.

    Args:
        distribution: one of :data:`racer.networks.actor_critic.DISTRIBUTIONS`.
        params: what the policy network returned.
        noise: ``[..., A]`` standard normal; used by the tanh-Gaussian alone.
        bounds: the action range.
    """
    if distribution == "categorical":
        logits = jax.nn.log_softmax(params["logits"])
        return -jnp.sum(jnp.exp(logits) * logits, axis=-1)
    if distribution == "beta":
        alpha, beta = params["alpha"], params["beta"]
        total = alpha + beta
        unit = betaln(alpha, beta) - (alpha - 1.0) * digamma(alpha) - (beta - 1.0) * digamma(beta)
        unit += (total - 2.0) * digamma(total)
        return jnp.sum(unit + jnp.log(bounds[1] - bounds[0]), axis=-1)
    raw = params["mean"] + jnp.exp(params["log_std"]) * noise
    gaussian = params["log_std"] + 0.5 + _HALF_LOG_TWO_PI
    return jnp.sum(gaussian + _log_slope(raw, bounds), axis=-1)


def draw(distribution: str, params: Params, key: jax.Array, bounds: Bounds) -> jax.Array:
    """Draw actions ``[..., A]`` inside the range, or choices ``[...]``."""
    if distribution == "categorical":
        return jax.random.categorical(key, params["logits"])
    if distribution == "beta":
        unit = jnp.clip(jax.random.beta(key, params["alpha"], params["beta"]), _UNIT_EDGE, 1.0 - _UNIT_EDGE)
        return bounds[0] + (bounds[1] - bounds[0]) * unit
    raw = params["mean"] + jnp.exp(params["log_std"]) * jax.random.normal(key, params["mean"].shape)
    return squash(raw, *bounds)


def deterministic(distribution: str, params: Params, bounds: Bounds) -> jax.Array:
    """Return the squashed mean, the beta distribution's mean, or the likeliest choice."""
    if distribution == "categorical":
        return jnp.argmax(params["logits"], axis=-1)
    if distribution == "beta":
        return bounds[0] + (bounds[1] - bounds[0]) * params["alpha"] / (params["alpha"] + params["beta"])
    return squash(params["mean"], *bounds)
