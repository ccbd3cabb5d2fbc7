"""Reading configuration values: each by its key, with an error that names it."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from racer.core.errors import UsageError

__all__ = ["count", "interval", "not_covered", "number"]


def not_covered(key: str, value: object) -> UsageError:
    """Build the error for a setting that the compiled simulator does not reproduce."""
    return UsageError(
        f"config key {key!r} = {value!r} is not covered by the compiled simulator; use the highway-env engine"
    )


def number(config: Mapping[str, Any], key: str, *, positive: bool = False) -> float:
    """Read a real number, at most with a sign condition."""
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isnan(float(value)):
        raise UsageError(f"config key {key!r} must be a number, got {value!r}")
    read = float(value)
    if positive and not read > 0:
        raise UsageError(f"config key {key!r} must be above 0, got {value!r}")
    return read


def count(config: Mapping[str, Any], key: str, least: int) -> int:
    """Read a whole number of at least ``least``."""
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or int(value) < least:
        raise UsageError(f"config key {key!r} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def interval(value: Any, key: str) -> tuple[Any, Any]:
    """Read ``[low, high]``; the numbers keep their types, which decide the arithmetic's precision."""
    try:
        low, high = value
    except (TypeError, ValueError):
        raise UsageError(f"config key {key!r} must be [low, high], got {value!r}") from None
    for bound in (low, high):
        if isinstance(bound, bool) or not isinstance(bound, numbers.Real):
            raise UsageError(f"config key {key!r} must be two numbers, got {value!r}")
    return low, high
