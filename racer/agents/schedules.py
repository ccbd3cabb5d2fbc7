"""How the learners' step sizes fall."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from racer.agents.validation import require_range, require_type
from racer.core.errors import unknown_name

__all__ = ["SCHEDULES", "actor_critic_fraction", "learning_rate_fraction", "require_schedule"]

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


def require_schedule(config: Any) -> None:
    """Raise UsageError unless an actor-critic's ``lr_schedule`` and the keys that belong to it are in order."""
    if config.lr_schedule not in SCHEDULES:
        raise unknown_name("value of lr_schedule", str(config.lr_schedule), SCHEDULES)
    for name, least in (("lr_decay_begin", 0), ("lr_decay_steps", 1)):
        require_type(name, getattr(config, name), int)
        require_range(name, getattr(config, name), least)
    require_range("final_lr_fraction", config.final_lr_fraction, 0.0, 1.0)


def actor_critic_fraction(config: Any, gradient_steps: jax.Array) -> jax.Array:
    """Return the factor on an actor-critic's step sizes after ``gradient_steps``, float32."""
    return learning_rate_fraction(
        config.lr_schedule, gradient_steps, config.lr_decay_steps, config.final_lr_fraction, config.lr_decay_begin
    )
