"""An agent's state as named arrays and back, and the optimizer step that refuses non-finite gradients."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from racer.core.errors import UsageError, unknown_name

__all__ = [
    "Trainable",
    "adam",
    "flatten_state",
    "replaced_components",
    "restore_state",
    "strong",
    "trainable",
    "tree_is_finite",
]

S = TypeVar("S")


class Trainable(NamedTuple):
    """Parameters and the state of their optimizer.

    Attributes:
        params: what is trained.
        opt_state: of its optimizer.
        average: mean of ``params`` over training steps, where one is kept; else None.
    """

    params: Any
    opt_state: Any
    average: Any = None

    @property
    def kept(self) -> Any:
        """What is used once trained: the mean of the parameters, where one is kept."""
        return self.params if self.average is None else self.average

    def step(
        self,
        optimizer: optax.GradientTransformation,
        grads: Any,
        rate: jax.Array,
        accept: jax.Array,
        decay: jax.Array | None = None,
    ) -> Trainable:
        """Return the state after one optimizer step, or this state unchanged where ``accept`` is False.

        Args:
            optimizer: turns gradients into directions; the step size is not its business.
            grads: gradients of the parameters.
            rate: step size.
            accept: whether to take the step.
            decay: decoupled weight decay (Loshchilov & Hutter 2019) of everything but biases and norms; None for none.
        """
        directions, opt_state = optimizer.update(grads, self.opt_state, self.params)
        if decay is not None:
            decayed = _decayed(self.params)
            directions = jax.tree.map(lambda d, p, yes: d + decay * p if yes else d, directions, self.params, decayed)
        params = jax.tree.map(lambda p, d: p - rate * d, self.params, directions)
        stepped = self._replace(params=params, opt_state=opt_state)
        return jax.tree.map(lambda new, old: jnp.where(accept, new, old), stepped, self)

    def averaged(self, share: jax.Array) -> Trainable:
        """Return this with ``share`` (in [0, 1]) of the way from the mean to the parameters gone.

        With shares 1, 1/2, 1/3, ... it is the plain mean of what the parameters were at each call.
        """
        average = jax.tree.map(lambda mean, new: mean + share * (new - mean), self.average, self.params)
        return self._replace(average=average)


def trainable(optimizer: optax.GradientTransformation, params: Any, *, average: bool = False) -> Trainable:
    """Return fresh optimizer state around ``params``, with their mean beside them if ``average``."""
    return Trainable(params, optimizer.init(params), jax.tree.map(jnp.copy, params) if average else None)


adam = optax.chain(optax.scale_by_adam())
"""Adam's directions (Kingma & Ba 2015), with its usual constants."""


def _decayed(params: Any) -> Any:
    def decays(path: tuple[Any, ...], _: jax.Array) -> bool:
        name = str(getattr(path[-1], "key", path[-1]))
        return not (name.endswith(("bias", "frozen")) or "norm" in name)

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


def replaced_components(state: Any, fresh: Any, components: Collection[str], exclude: Collection[str] = ()) -> Any:
    """Return ``state`` with every component taken from ``fresh`` except those in ``exclude``.

    Arrays are copied, so that donating the result leaves ``state`` usable.

    Raises:
        UsageError: ``exclude`` is a bare string or names an unknown component.
    """
    if isinstance(exclude, str):
        raise UsageError(f"exclude takes a collection of component names, got the string {exclude!r}")
    for name in exclude:
        if name not in components:
            raise unknown_name("agent component (exclude)", name, components)
    taken = {name: getattr(fresh, name) for name in components if name not in exclude}
    return jax.tree.map(jnp.copy, state._replace(**taken))


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
