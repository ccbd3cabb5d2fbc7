"""Returns relative to their running mean and deviation (PopArt, van Hasselt et al. 2016, arXiv 1602.07714)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["ValueScale", "followed", "initial_value_scale", "rescaled"]

# Share that one rollout's returns have in the running moments.
_RATE = 0.1
_LEAST_DEVIATION = 1e-2


class ValueScale(NamedTuple):
    """What a normalized value means.

    Attributes:
        mean: of the returns.
        deviation: standard deviation of the returns, at least 0.01.
        first: running first moment, not yet divided by ``weight``.
        second: running second moment, likewise.
        weight: sum of the weights in the running moments, 0 before the first rollout and 1 in the end.
    """

    mean: jax.Array
    deviation: jax.Array
    first: jax.Array
    second: jax.Array
    weight: jax.Array

    def raw(self, normal: jax.Array) -> jax.Array:
        """Return values in units of the reward."""
        return self.mean + self.deviation * normal

    def normal(self, raw: jax.Array) -> jax.Array:
        """Inverse of :meth:`raw`."""
        return (raw - self.mean) / self.deviation


def initial_value_scale() -> ValueScale:
    """Return the scale on which normalized values are values."""
    zero = jnp.zeros((), jnp.float32)
    return ValueScale(zero, jnp.ones((), jnp.float32), zero, zero, zero)


def followed(scale: ValueScale, targets: jax.Array, valid: jax.Array) -> ValueScale:
    """Return the scale moved towards the valid ``targets``; unchanged where their moments are not finite."""
    count = jnp.sum(valid)
    counted = jnp.where(valid > 0, targets, 0.0)
    first = jnp.sum(counted) / jnp.maximum(count, 1.0)
    second = jnp.sum(jnp.square(counted)) / jnp.maximum(count, 1.0)
    usable = jnp.isfinite(first) & jnp.isfinite(second) & (count > 0)
    rate = jnp.where(usable, jnp.float32(_RATE), 0.0)
    weight = scale.weight + rate * (1.0 - scale.weight)
    moved_first = scale.first + rate * (jnp.where(usable, first, 0.0) - scale.first)
    moved_second = scale.second + rate * (jnp.where(usable, second, 0.0) - scale.second)
    share = jnp.maximum(weight, 1e-12)
    mean = moved_first / share
    deviation = jnp.sqrt(jnp.maximum(moved_second / share - jnp.square(mean), _LEAST_DEVIATION**2))
    moved = ValueScale(mean, deviation, moved_first, moved_second, weight)
    return jax.tree.map(lambda new, old: jnp.where(usable, new, old), moved, scale)


def rescaled(critic_params: Any, old: ValueScale, new: ValueScale) -> Any:
    """Return the value network's parameters such that its values, in units of the reward, stay what they were."""
    kernel = critic_params["value/kernel"] * (old.deviation / new.deviation)
    bias = (old.deviation * critic_params["value/bias"] + old.mean - new.mean) / new.deviation
    return {**critic_params, "value/kernel": kernel, "value/bias": bias}
