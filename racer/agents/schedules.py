"""How step sizes and deviations fall."""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["SCHEDULES", "falling_fraction", "progress"]

SCHEDULES = ("constant", "linear", "cosine")


def progress(done: jax.Array, length: float | jax.Array, begin: float | jax.Array = 0.0) -> jax.Array:
    """Return how far ``done`` has come from ``begin`` on along ``length``, in [0, 1], float32."""
    return jnp.clip((done.astype(jnp.float32) - begin) / length, 0.0, 1.0)


def falling_fraction(
    schedule: str,
    done: jax.Array,
    length: float | jax.Array,
    final: float | jax.Array,
    begin: float | jax.Array = 0.0,
) -> jax.Array:
    """Return the factor on the step sizes, float32.

    Args:
        schedule: "constant"; "linear": from 1 to ``final``, where it stays; "cosine": the same along half a cosine,
            slow at both ends (Loshchilov & Hutter 2017, arXiv 1608.03983).
        done: what counts, transitions or gradient steps.
        length: how many of them the fall takes.
        final: factor in the end, in [0, 1].
        begin: how many of them come before the fall.
    """
    if schedule == "constant":
        return jnp.float32(1.0)
    share = progress(done, length, begin)
    if schedule == "cosine":
        share = 0.5 - 0.5 * jnp.cos(jnp.pi * share)
    return 1.0 - (1.0 - final) * share
