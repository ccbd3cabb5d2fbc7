"""Descriptions of networks as JSON: a mapping with a ``kind`` and that kind's own fields, checked when it is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from racer.core.errors import UsageError, shown, unknown_name

__all__ = ["Kinds", "build_kind", "described", "freeze", "require", "thaw"]

T = TypeVar("T")

Kinds = Mapping[str, type[Any]]
"""Frozen dataclasses by the name of their kind."""

def build_kind(what: str, kinds: Kinds, given: Any) -> Any:
    """Build the dataclass that ``given`` describes: ``{"kind": name, **fields}``, or a bare name for its defaults.

    Raises:
        UsageError: an unknown kind or field (with the nearest one), a missing field, or what the class itself refuses.
    """
    if isinstance(given, str):
        given = {"kind": given}
    if not isinstance(given, Mapping) or not isinstance(given.get("kind"), str):
        raise UsageError(f'{what} must be like {{"kind": "{next(iter(kinds))}"}}, got {shown(given)}')
    kind = given["kind"]
    if kind not in kinds:
        raise unknown_name(f"{what} kind", kind, kinds)
    return require(kinds[kind], f"{what} {kind!r}", {k: v for k, v in given.items() if k != "kind"})


def require(cls: type[T], what: str, values: Mapping[str, Any]) -> T:
    """Build a dataclass from JSON values; lists become tuples.

    Raises:
        UsageError: an unknown or missing field, or what the class itself refuses.
    """
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise unknown_name(f"key of {what}", str(name), known)
    missing = dataclasses.MISSING
    needed = [n for n, field in known.items() if field.default is field.default_factory is missing and n not in values]
    if needed:
        raise UsageError(f"{what} lacks: {', '.join(needed)}")
    return cls(**{name: freeze(value) for name, value in values.items()})


def described(kinds: Kinds, value: Any) -> dict[str, Any]:
    """Return the JSON form of a dataclass of ``kinds``; :func:`build_kind` reads it."""
    kind = next(name for name, cls in kinds.items() if cls is type(value))
    return {"kind": kind, **thaw(dataclasses.asdict(value))}


def freeze(value: Any) -> Any:
    """Turn lists into tuples, at any depth: what hashes."""
    return tuple(freeze(item) for item in value) if isinstance(value, list | tuple) else value


def thaw(value: Any) -> Any:
    """Turn tuples into lists, at any depth: what JSON gives back."""
    if isinstance(value, Mapping):
        return {str(key): thaw(item) for key, item in value.items()}
    return [thaw(item) for item in value] if isinstance(value, list | tuple) else value
