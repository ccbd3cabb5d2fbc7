"""How the learners' step sizes fall."""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["SCHEDULES", "learning_rate_fraction"]

SCHEDULES = ("constant", "linear")


def learning_rate_fraction(schedule: str, done: jax.Array, decay: int, final: float, begin: int = 0) -> jax.Array:
    """Return the factor on the step sizes, float32.

    Args:
        schedule: "constant", or "linear": from 1 to ``final``, where it stays.
        done: what counts, transitions or gradient steps.
        decay: how many of them the fall takes.
        final: factor in the end, in [0, 1].
        begin: how many of them come before the fall.
    """
    if schedule == "constant":
        return jnp.float32(1.0)
    progress = jnp.clip((done - begin).astype(jnp.float32) / decay, 0.0, 1.0)
    return 1.0 - (1.0 - final) * progress
