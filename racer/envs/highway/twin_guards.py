"""Containers of highway-env's scene that can be read as ever and that report every attempt to write."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Guard", "GuardedArray", "GuardedDict", "GuardedList"]

# is called with what is about to be written: it raises, or returns when the scene has become writable
Guard = Callable[[str], None]


def _guarded(name: str) -> Callable[..., Any]:
    """Build a method that asks the guard first and then does what the built-in class's does."""

    def method(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if self.guard is not None:
            self.guard(self.what)
        target = super(type(self), self) if self.owner is None else self.owner()
        return getattr(target, name)(*arguments, **keywords)

    method.__name__ = name
    return method


class GuardedList(list):
    """A list of the scene, ``what`` in words; open for writing once ``guard`` is None."""

    owner = None

    def __init__(self, values: Any, what: str, guard: Guard | None) -> None:
        super().__init__(values)
        self.what, self.guard = what, guard

    for _name in (
        "append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse",
        "__setitem__", "__delitem__", "__iadd__", "__imul__",
    ):  # fmt: skip
        locals()[_name] = _guarded(_name)
    del _name

    def __reduce_ex__(self, protocol: Any) -> Any:
        return list, (), None, iter(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> list:
        copied: list = []
        memo[id(self)] = copied
        copied.extend(copy.deepcopy(value, memo) for value in self)
        return copied


class GuardedDict(dict):
    """A dictionary of the scene, ``what`` in words; open for writing once ``guard`` is None.

    Where it was made for one reading, ``owner`` returns the dictionary that has taken its place when it may be written.
    """

    def __init__(self, values: Any, what: str, guard: Guard | None, owner: Callable[[], dict] | None = None) -> None:
        super().__init__(values)
        self.what, self.guard, self.owner = what, guard, owner

    for _name in ("__setitem__", "__delitem__", "update", "pop", "popitem", "clear", "setdefault", "__ior__"):
        locals()[_name] = _guarded(_name)
    del _name

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (), None, None, iter(self.items())

    def __deepcopy__(self, memo: dict[int, Any]) -> dict:
        copied: dict = {}
        memo[id(self)] = copied
        copied.update({key: copy.deepcopy(value, memo) for key, value in self.items()})
        return copied


class GuardedArray(np.ndarray):
    """An array read from ``owner.<name>``; writing into it asks the guard, and then writes into the owner's array.

    Every result of arithmetic and every copy is a plain array.
    """

    owner: Any
    name: str
    guard: Guard

    @classmethod
    def of(cls, values: np.ndarray, owner: Any, name: str, guard: Guard) -> GuardedArray:
        array = np.array(values).view(cls)
        array.owner, array.name, array.guard = owner, name, guard
        # parts and plain views of it cannot be written either, if with NumPy's own error
        array.flags.writeable = False
        return array

    def __array_finalize__(self, source: Any) -> None:
        self.owner = getattr(source, "owner", None)
        self.name = getattr(source, "name", "")
        self.guard = getattr(source, "guard", None)  # type: ignore[assignment]

    def __array_wrap__(self, array: np.ndarray, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else np.asarray(array)

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._open()
        getattr(self.owner, self.name)[key] = value

    def _open(self) -> None:
        if self.guard is not None:
            self.guard(f"a vehicle's {self.name}")

    def __iadd__(self, other: Any) -> Any:  # type: ignore[misc]
        self._open()
        return np.asarray(self) + other

    def __isub__(self, other: Any) -> Any:  # type: ignore[misc]
        self._open()
        return np.asarray(self) - other

    def __imul__(self, other: Any) -> Any:  # type: ignore[misc]
        self._open()
        return np.asarray(self) * other

    def __itruediv__(self, other: Any) -> Any:  # type: ignore[misc]
        self._open()
        return np.asarray(self) / other

    def fill(self, value: Any) -> None:
        self._open()
        getattr(self.owner, self.name).fill(value)

    def copy(self, order: Any = "C") -> Any:
        return np.array(self)

    def __copy__(self) -> Any:
        return np.array(self)

    def __deepcopy__(self, memo: dict[int, Any] | None) -> Any:
        return np.array(self)

    def __reduce__(self) -> Any:
        return np.array(self).__reduce__()
