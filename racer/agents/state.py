"""An agent's state as named arrays and back, and the optimizer step that refuses non-finite gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from racer.core.errors import UsageError

__all__ = [
    "QUICK_TO_COMPILE",
    "Trainable",
    "adamw",
    "flatten_state",
    "flax_params",
    "restore_state",
    "strong",
    "trainable",
    "tree_is_finite",
]

S = TypeVar("S")

# For functions that run once: optimizing them takes longer than they will ever run.
QUICK_TO_COMPILE: dict[str, bool | int | str] = {"xla_backend_optimization_level": 0}


class Trainable(NamedTuple):
    """Parameters and the state of their optimizer."""

    params: Any
    opt_state: Any

    def step(self, optimizer: optax.GradientTransformation, grads: Any, accept: jax.Array) -> Trainable:
        """Return the state after one optimizer step, or this state unchanged where ``accept`` is False."""
        updates, opt_state = optimizer.update(grads, self.opt_state, self.params)
        stepped = Trainable(optax.apply_updates(self.params, updates), opt_state)
        return jax.tree.map(lambda new, old: jnp.where(accept, new, old), stepped, self)


def trainable(optimizer: optax.GradientTransformation, params: Any) -> Trainable:
    """Return fresh optimizer state around ``params``."""
    return Trainable(params, optimizer.init(params))


def adamw(learning_rate: float | jax.Array, weight_decay: float | None) -> optax.GradientTransformation:
    """Adam, with decoupled weight decay (Loshchilov & Hutter 2019) on everything but biases and norms."""
    if not weight_decay:
        return optax.adam(learning_rate)
    return optax.adamw(learning_rate, weight_decay=weight_decay, mask=_decayed)


def _decayed(params: Any) -> Any:
    def decays(path: tuple[Any, ...], _: jax.Array) -> bool:
        name = str(getattr(path[-1], "key", path[-1]))
        return not (name.endswith("bias") or "norm" in name)

    return jax.tree_util.tree_map_with_path(decays, params)


def tree_is_finite(tree: Any) -> jax.Array:
    """Return whether every number in ``tree`` is finite, as a boolean scalar.

    A sum of squares is finite only where all of its terms are, and a dot product is the fastest reduction
    there is on a CPU; gradients beyond 1e19, whose squares overflow, count as non-finite too.
    """
    total = jnp.float32(0.0)
    for leaf in jax.tree.leaves(tree):
        flat = leaf.reshape(-1)
        total += jnp.dot(flat, flat)
    return jnp.isfinite(total)


def strong(tree: S) -> S:
    """Strip weak types: a weakly typed leaf makes the second call of a jitted function compile again."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.asarray(leaf).dtype), tree)


def _named(state: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def flatten_state(state: Any) -> dict[str, np.ndarray]:
    """Return every leaf of ``state`` under its ``a/b/c`` path.

    The arrays are copies: a view of a JAX buffer would change when a later update is given that buffer.
    """
    return {name: np.array(leaf, copy=True) for name, leaf in _named(state).items()}


def restore_state(template: S, arrays: Mapping[str, np.ndarray]) -> S:
    """Return ``template`` with every leaf replaced by the array of its path.

    Raises:
        UsageError: lists each field that is missing, unknown, or of another shape or dtype.
    """
    named = _named(template)
    wrong = [f"{name}: missing" for name in named if name not in arrays]
    wrong += [f"{name}: not part of this agent" for name in arrays if name not in named]
    for name, leaf in named.items():
        if name in arrays:
            found = np.asarray(arrays[name])
            if found.shape != leaf.shape or found.dtype != leaf.dtype:
                wrong.append(f"{name}: {found.dtype}{list(found.shape)} instead of {leaf.dtype}{list(leaf.shape)}")
    if wrong:
        raise UsageError("the saved agent does not fit this one: " + "; ".join(sorted(wrong)))
    leaves = [jnp.array(np.asarray(arrays[name]), copy=True) for name in named]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def flax_params(params: Any) -> dict[str, np.ndarray]:
    """Return flax parameters under ``module/parameter`` names, as float32 copies."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return {name: np.array(leaf, dtype=np.float32, copy=True) for name, leaf in flat.items()}
