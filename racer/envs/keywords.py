"""Constructors that take a world's keys in one mapping, and say so to who passes one beside it."""

from __future__ import annotations

import functools
import inspect
from typing import Any, TypeVar

from racer.core.errors import UsageError, shown

__all__ = ["keys_in_config"]

T = TypeVar("T", bound=type)


def keys_in_config(cls: T) -> T:
    """Make an environment's class, which has an argument ``config``, answer a key that is passed beside it.

    Raises:
        UsageError: when an environment is made, an argument that the constructor does not have.
    """
    begin: Any = cls.__init__  # type: ignore[misc]
    known = inspect.signature(begin).parameters

    @functools.wraps(begin)
    def checked(self: Any, *arguments: Any, **keywords: Any) -> None:
        for name, value in keywords.items():
            if name not in known:
                way = f"config={{{name!r}: {shown(value)}}}"
                raise UsageError(f"{cls.__name__} has no argument {name!r}; keys of its world go into config: {way}")
        begin(self, *arguments, **keywords)

    cls.__init__ = checked  # type: ignore[misc]
    return cls
