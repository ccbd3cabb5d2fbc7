"""A configuration in two parts: what a compiled function is specialised on, and what it takes as an argument.

Widths, counts, flags and kinds decide shapes and the structure of a program; they are :class:`Fixed`, part of the key
under which it is compiled. Step sizes, coefficients, the discount and the like are numbers in it; they are
:class:`Hyper`, a pytree, so agents that differ in nothing else share one compilation and are trained side by side
under ``jax.vmap``. A field says which it is by ``option(..., swept=True)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp

from racer.core.config import swept_names

__all__ = ["Fixed", "Hyper", "split"]


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Values of a configuration by name, as attributes; hashable.

    Attributes:
        items: names and values.
        swept: names of the fields that are not here.
    """

    items: tuple[tuple[str, Any], ...]
    swept: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and name not in ("items", "swept"):
            for key, value in self.items:
                if key == name:
                    return value
            if name in self.swept:
                raise AttributeError(f"{name!r} is swept: read it from the hyperparameters, which are an argument")
        raise AttributeError(f"the configuration has no fixed field {name!r}")


@jax.tree_util.register_pytree_with_keys_class
class Hyper:
    """Numbers by name, as attributes: float32 scalars, or ``[P]`` for a population of P; None stays None.

    Whether a field is None is part of the tree's structure, and so of the key under which functions are compiled.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"there is no hyperparameter {name!r}")
        return self._values[name]

    def replace(self, **changes: Any) -> Self:
        """Return these hyperparameters with some changed."""
        for name in changes:
            getattr(self, name)
        return type(self)(self._values | {name: _number(value) for name, value in changes.items()})

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any], ...], tuple[str, ...]]:
        """See :func:`jax.tree_util.register_pytree_with_keys_class`."""
        names = tuple(self._values)
        return tuple((jax.tree_util.GetAttrKey(name), self._values[name]) for name in names), names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: tuple[Any, ...]) -> Self:
        """See :func:`jax.tree_util.register_pytree_with_keys_class`."""
        return cls(dict(zip(names, values, strict=True)))


def split(config: Any) -> tuple[Fixed, Hyper]:
    """Take a configuration apart.

    A swept field that holds a word instead of a number (the name of a field whose value it takes) counts as None, and
    stands among the fixed ones.
    """
    swept = swept_names(type(config))
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    words = [name for name in swept if isinstance(values[name], str)]
    numbers = {name: None if name in words else _number(values[name]) for name in swept}
    fixed = tuple((name, _hashable(value)) for name, value in values.items() if name not in swept or name in words)
    return Fixed(fixed, swept), Hyper(numbers)


def _number(value: Any) -> jax.Array | None:
    return None if value is None else jnp.asarray(value, jnp.float32)


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple((key, _hashable(item)) for key, item in sorted(value.items()))
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value
