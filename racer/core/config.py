"""Configurations are frozen dataclasses, checked once at the door.

Each field carries its sentence and range as metadata, its type as an annotation; the same declaration serves
validation, ``--help`` and the documentation. ``option()`` is the only validator: a class calls :func:`check_fields`
in ``__post_init__`` and adds only what concerns several fields at once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from racer.core.errors import UsageError, shown, unknown_name

__all__ = ["NamedNumbers", "check_fields", "from_mapping", "option", "sentences", "swept_names"]

T = TypeVar("T")

NamedNumbers = Mapping[str, float] | tuple[tuple[str, float], ...]
"""Annotation of numbers by name: given as ``{"name": 0.1}`` or pairs, kept as sorted pairs, which hash."""

_WIDTH_LIMIT = 65_536
_LENGTH_LIMIT = 1_024
_TEXT_LIMIT = 4_096
_INTEGER_LIMIT = 2**63 - 1
_DEPTH_LIMIT = 16


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What a field's value may be: the members of its annotation, and the arguments of :func:`option`."""

    members: tuple[Any, ...]
    low: float | None
    high: float | None
    above: float | None
    below: float | None
    choices: tuple[Any, ...] | None
    optional: bool
    empty: bool
    swept: bool


def option(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | None = None,
    optional: bool = False,
    empty: bool = True,
    swept: bool = False,
) -> Any:
    """Declare a dataclass field with its sentence and its range.

    The annotation says what kind of value it is: ``bool``, ``int``, ``float``, ``str``, ``tuple[int, ...]`` (layer
    widths), ``tuple[float, ...]``, :data:`NamedNumbers`, ``Mapping[str, Any]`` (JSON), and unions of them. Numbers are
    finite; a bool is no number. The bounds hold for the number, or for each number of a tuple or mapping.

    Args:
        default: the default value; a dictionary is copied for each instance.
        doc: what it means, with its unit.
        low: smallest value allowed; 1 for layer widths where none is given.
        high: largest value allowed; 65,536 for layer widths where none is given.
        above: the value must be greater than this.
        below: the value must be less than this.
        choices: the only values allowed; in a union with numbers, the only texts.
        optional: whether None is allowed, as it is where the annotation has ``| None``. The word "none" means None
            in a field that takes text, as a command line has no other way to say it.
        empty: whether an empty tuple is allowed.
        swept: whether it is a number on which no shape depends: it may be an array, also a traced one, with one value
            for each member of a population. Those that are NumPy arrays are checked value by value.
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    metadata = {
        "doc": doc,
        **bounds,
        "choices": None if choices is None else tuple(choices),
        "optional": optional,
        "empty": empty,
        "swept": swept,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_fields(config: Any, where: str) -> None:
    """Check every field declared with :func:`option`; call it from ``__post_init__``.

    Values are kept in one form: lists become tuples, NumPy's scalars Python's, whole numbers in a ``float`` field
    floats, numbers by name sorted pairs.

    Args:
        config: a dataclass, frozen or not.
        where: what the fields are, for the error ("learner setting").

    Raises:
        UsageError: naming the field, its value and what it should be.
    """
    for name, rule in _rules(config.__class__).items():
        value = _checked(f"{where} {name!r}", getattr(config, name), rule)
        object.__setattr__(config, name, value)


def swept_names(cls: type) -> tuple[str, ...]:
    """Return the names of the fields that were declared with ``swept=True``, in order."""
    return tuple(name for name, rule in _rules(cls).items() if rule.swept)


def sentences(cls: type) -> dict[str, str]:
    """Return what each field of a dataclass means, by name, in the order of the class."""
    return {field.name: field.metadata.get("doc", "") for field in dataclasses.fields(cls)}


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a dataclass from a mapping, refusing keys it does not have.

    Args:
        cls: a dataclass.
        values: keys and values; missing ones keep their defaults.
        where: what the mapping is, for the error ("agent config key").

    Raises:
        UsageError: no mapping, an unknown key (with the nearest one), or a value that the class refuses.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}s must be given as names with values, not {shown(values)}")
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise unknown_name(where, str(key), known)
    plain = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return cls(**plain)


@functools.cache
def _rules(cls: Hashable) -> dict[str, _Rule]:
    hints = typing.get_type_hints(cls)
    rules = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if "doc" not in field.metadata:
            continue
        members = _members(hints[field.name])
        words = {key: value for key, value in field.metadata.items() if key != "doc"}
        words["optional"] = words["optional"] or type(None) in members
        rules[field.name] = _Rule(members=tuple(m for m in members if m is not type(None)), **words)
    return rules


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(m for part in typing.get_args(hint) for m in _members(part))
    return (hint,)


def _checked(name: str, value: Any, rule: _Rule) -> Any:
    """Return a value in the form that it is kept in, or raise UsageError."""
    if isinstance(value, np.generic):
        value = value.item()
    if rule.optional and (value is None or _says_none(value, rule)):
        return None
    if rule.swept and _is_array(value):
        return _checked_array(name, value, rule)
    if rule.choices is not None and not (_is_number(value) and {int, float} & set(rule.members)):
        return _chosen(name, value, rule)
    for member in rule.members:
        fits, kept = _fit(member, value, rule)
        if fits:
            return kept
    raise UsageError(f"{name} must be {_expected(rule)}, not {shown(value)}")


def _chosen(name: str, value: Any, rule: _Rule) -> Any:
    for choice in rule.choices or ():
        if type(value) is type(choice) and value == choice:
            return choice
    if isinstance(value, str):
        raise unknown_name(f"value for {name}:", value, map(str, rule.choices or ()))
    raise UsageError(f"{name} must be {_expected(rule)}, not {shown(value)}")


def _fit(member: Any, value: Any, rule: _Rule) -> tuple[bool, Any]:
    """Say whether a value is of one member of an annotation, and give the form that it is kept in."""
    origin, arguments = typing.get_origin(member), typing.get_args(member)
    if member is Any:
        return True, value
    if member is bool:
        return isinstance(value, bool), value
    if member in (int, float):
        return _fit_number(member, value, rule)
    if member is str:
        return isinstance(value, str) and len(value) <= _TEXT_LIMIT and "\0" not in value, value
    if _is_named(member):
        return _fit_named(value, rule)
    if origin is tuple:
        return _fit_tuple(arguments, value, rule)
    if _is_mapping(member):
        return _fit_json(value) if isinstance(value, Mapping) else (False, value)
    return isinstance(value, origin or member), value


def _fit_number(kind: type, value: Any, rule: _Rule) -> tuple[bool, Any]:
    if not _is_number(value) or (kind is int and not isinstance(value, int)):
        return False, value
    if not _within(value, rule):
        return False, value
    return True, kind(value)


def _fit_tuple(arguments: tuple[Any, ...], value: Any, rule: _Rule) -> tuple[bool, Any]:
    if not isinstance(value, tuple | list) or len(value) > _LENGTH_LIMIT or (not value and not rule.empty):
        return False, value
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        kinds = (arguments[0],) * len(value)
    else:
        kinds = arguments
    if len(kinds) != len(value):
        return False, value
    rule = _for_widths(rule) if int in kinds else rule
    kept = []
    for kind, item in zip(kinds, value, strict=True):
        fits, form = _fit(kind, item.item() if isinstance(item, np.generic) else item, rule)
        if not fits:
            return False, value
        kept.append(form)
    return True, tuple(kept)


def _fit_named(value: Any, rule: _Rule) -> tuple[bool, Any]:
    pairs = value.items() if isinstance(value, Mapping) else (() if value is None else value)
    if not isinstance(pairs, tuple | list) and not isinstance(value, Mapping):
        return False, value
    kept = {}
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str) or pair[0] in kept:
            return False, value
        fits, number = _fit_number(float, pair[1].item() if isinstance(pair[1], np.generic) else pair[1], rule)
        if not fits:
            return False, value
        kept[pair[0]] = number
    return len(kept) <= _LENGTH_LIMIT, tuple(sorted(kept.items()))


def _fit_json(value: Any, depth: int = 0) -> tuple[bool, Any]:
    """Copy a tree of JSON values, tuples as lists."""
    if depth > _DEPTH_LIMIT:
        return False, value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        parts = {key: _fit_json(item, depth + 1) for key, item in value.items()}
        good = all(isinstance(key, str) for key in parts) and all(fits for fits, _ in parts.values())
        return good, {key: form for key, (_, form) in parts.items()}
    if isinstance(value, tuple | list):
        items = [_fit_json(item, depth + 1) for item in value]
        return len(items) <= _LENGTH_LIMIT and all(fits for fits, _ in items), [form for _, form in items]
    return value is None or isinstance(value, bool | str) or _is_number(value), value


def _is_number(value: Any) -> bool:
    """Whether it is a finite number of at most 63 bits; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _INTEGER_LIMIT if isinstance(value, int) else math.isfinite(value)


def _within(value: float, rule: _Rule) -> bool:
    return not (
        (rule.low is not None and value < rule.low)
        or (rule.high is not None and value > rule.high)
        or (rule.above is not None and value <= rule.above)
        or (rule.below is not None and value >= rule.below)
    )


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _checked_array(name: str, value: Any, rule: _Rule) -> Any:
    """Check the values of a NumPy array; those of any other kind are not known while it is traced."""
    if isinstance(value, np.ndarray):
        kinds = "iu" if float not in rule.members else "iuf"
        good = value.dtype.kind in kinds and all(_is_number(v) and _within(v, rule) for v in value.ravel().tolist())
        if not good:
            raise UsageError(f"each value of {name} must be {_expected(rule)}, not {shown(value)}")
    return value


def _says_none(value: Any, rule: _Rule) -> bool:
    return isinstance(value, str) and value == "none" and str in rule.members and "none" not in (rule.choices or ())


def _is_mapping(member: Any) -> bool:
    origin = typing.get_origin(member) or member
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_named(member: Any) -> bool:
    if typing.get_origin(member) is tuple:
        return typing.get_origin(typing.get_args(member)[0]) is tuple
    return _is_mapping(member) and typing.get_args(member) == (str, float)


def _for_widths(rule: _Rule) -> _Rule:
    low = 1 if rule.low is None and rule.above is None else rule.low
    high = _WIDTH_LIMIT if rule.high is None and rule.below is None else rule.high
    return dataclasses.replace(rule, low=low, high=high)


def _expected(rule: _Rule) -> str:
    """Say in words what a rule allows."""
    parts: list[str] = []
    for member in rule.members:
        phrase = _phrase(member, rule)
        if phrase not in parts:
            parts.append(phrase)
    if rule.optional:
        parts.append("None")
    return " or ".join(parts)


def _phrase(member: Any, rule: _Rule) -> str:
    if member in (int, float) and not (rule.choices and str not in rule.members):
        kind = "a whole number" if member is int else "a finite number"
        return f"{kind}{_range(rule)}"
    if rule.choices is not None:
        return f"one of {', '.join(map(str, rule.choices))}"
    if member is bool:
        return "True or False"
    if member is str:
        return "text"
    if _is_named(member):
        return f'finite numbers{_range(rule)} by name, such as {{"a": 0.1}}'
    if typing.get_origin(member) is tuple:
        if str in typing.get_args(member):
            return 'a tuple of texts, such as ("a", "b")'
        whole = int in typing.get_args(member)
        filled = "" if rule.empty else "at least one of "
        kind, bounds = ("whole", _for_widths(rule)) if whole else ("finite", rule)
        return f"a tuple of {filled}{kind} numbers, each{_range(bounds) or ' of any size'}"
    if _is_mapping(member):
        return "a mapping of names to JSON values"
    return getattr(member, "__name__", str(member))


def _range(rule: _Rule) -> str:
    bounds = (("at least", rule.low), ("above", rule.above), ("at most", rule.high), ("below", rule.below))
    parts = [f"{words} {b if isinstance(b, int) else format(b, 'g')}" for words, b in bounds if b is not None]
    return f" {' and '.join(parts)}" if parts else ""
