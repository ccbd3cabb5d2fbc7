"""Draws that acting needs, from a NumPy generator (workers, evaluation) or a JAX key (inside ``jit``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from racer.networks.layers import Array

__all__ = ["beta", "gumbel", "normal", "uniform"]


def _is_generator(key: Any) -> bool:
    """Whether ``key`` has the methods of :class:`numpy.random.Generator` (it need not be one)."""
    return hasattr(key, "standard_normal")


def normal(key: Any, shape: tuple[int, ...]) -> Array:
    """Draw standard normal numbers, float32."""
    if _is_generator(key):
        return key.standard_normal(shape, dtype=np.float32)
    import jax

    return jax.random.normal(key, shape)


def uniform(key: Any, shape: tuple[int, ...]) -> Array:
    """Draw numbers in [0, 1), float32."""
    if _is_generator(key):
        return key.random(shape, dtype=np.float32)
    import jax

    return jax.random.uniform(key, shape)


def gumbel(key: Any, shape: tuple[int, ...]) -> Array:
    """Draw Gumbel noise: the place of the largest of logits plus it is a draw from their softmax."""
    if _is_generator(key):
        return key.gumbel(size=shape)
    import jax

    return jax.random.gumbel(key, shape)


def beta(key: Any, alpha: Array, beta: Array) -> Array:
    """Draw from Beta(alpha, beta), element by element."""
    if _is_generator(key):
        return key.beta(alpha, beta)
    import jax

    return jax.random.beta(key, alpha, beta)
