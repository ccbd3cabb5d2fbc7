"""How step sizes and deviations fall."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from racer.core.errors import UsageError

__all__ = ["SCHEDULES", "falling_fraction", "filled", "need_lengths", "progress"]

SCHEDULES = ("constant", "linear", "cosine")

T = TypeVar("T")


def filled(config: T, lengths: dict[str, int]) -> T:
    """Return a configuration whose keys of ``lengths`` that are None have taken these values, at least 1."""
    missing = {name: max(value, 1) for name, value in lengths.items() if getattr(config, name) is None}
    return dataclasses.replace(config, **missing)  # type: ignore[type-var]


def need_lengths(config: Any, key: str, names: tuple[str, ...]) -> None:
    """Raise UsageError where a schedule (``key``) is on and its lengths (``names``) are still None."""
    for name in names:
        if getattr(config, name) is None:
            raise UsageError(
                f"{key} is {getattr(config, key)!r}, so {name} must be a number: only a training program knows a "
                "run's length"
            )


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
