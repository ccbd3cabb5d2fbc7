"""Configurations are frozen dataclasses, checked once at the door.

Each field carries its sentence (and range) as metadata, so the same declaration serves validation, ``--help`` and the
documentation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from racer.core.errors import UsageError, unknown_name

__all__ = ["check_fields", "from_mapping", "option"]

T = TypeVar("T")


def option(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """Declare a dataclass field with its sentence and its range.

    Args:
        default: the default value.
        doc: what it means, with its unit.
        low: smallest value allowed.
        high: largest value allowed.
        above: the value must be greater than this.
        choices: the only values allowed.
    """
    metadata = {"doc": doc, "low": low, "high": high, "above": above, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def check_fields(config: Any, where: str) -> None:
    """Check every field of a dataclass built with :func:`option`; call it from ``__post_init__``.

    Raises:
        UsageError: naming the field, its value and what it should be.
    """
    for field in dataclasses.fields(config):
        value, rule = getattr(config, field.name), field.metadata
        name = f"{where} {field.name!r}"
        if rule.get("choices") is not None:
            if value not in rule["choices"]:
                raise unknown_name(f"value for {name}:", str(value), map(str, rule["choices"]))
            continue
        bounds = (rule.get("low"), rule.get("high"), rule.get("above"))
        if value is None or all(b is None for b in bounds):
            continue
        _check_number(name, value, *bounds)


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a dataclass from a mapping, refusing keys it does not have.

    Args:
        cls: a dataclass.
        values: keys and values; missing ones keep their defaults.
        where: what the mapping is, for the error ("agent config key").
    """
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise unknown_name(where, key, known)
    plain = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return cls(**plain)


def _check_number(name: str, value: Any, low: float | None, high: float | None, above: float | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{name} must be a finite number, not {value!r}")
    wrong = (
        (low is not None and value < low)
        or (high is not None and value > high)
        or (above is not None and value <= above)
    )
    if wrong:
        parts = []
        if low is not None:
            parts.append(f"at least {low:g}")
        if above is not None:
            parts.append(f"above {above:g}")
        if high is not None:
            parts.append(f"at most {high:g}")
        raise UsageError(f"{name} must be {' and '.join(parts)}, not {value!r}")
