"""Numbers for actions by name, as ``{"acceleration": 0.1}``, looked up among a world's actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from racer.core.errors import UsageError, unknown_name

__all__ = ["initial_shares", "named_index", "numbers_by_name"]


def named_index(key: str, name: str, names: Sequence[str]) -> int:
    """Return which action is called ``name``.

    Raises:
        UsageError: no names are known, or not this one.
    """
    if not names:
        raise UsageError(f"{key} addresses the action {name!r} by name, but these actions have none")
    if name not in names:
        raise unknown_name(f"action ({key})", name, names)
    return list(names).index(name)


def numbers_by_name(key: str, given: Any, names: Sequence[str]) -> dict[str, float]:
    """Return pairs as a dictionary after looking every name up among the actions' names.

    Raises:
        UsageError: the actions have no names, or not this one.
    """
    numbers: dict[str, float] = dict(given)
    for name in numbers:
        named_index(key, name, names)
    return numbers


def initial_shares(
    initial_action: Any, names: Sequence[str], low: Sequence[float], high: Sequence[float]
) -> tuple[float, ...]:
    """Return where in its range, as a number in (-1, 1), the first policy's mean of each action lies.

    Args:
        initial_action: pairs of names and actions in their own unit; those not named start at the centre.
        names: the actions' names, may be empty.
        low: lower end of each action's range as the policy uses it.
        high: upper end.

    Raises:
        UsageError: an unknown name, or a first action outside the range.
    """
    starts = numbers_by_name("initial_action", initial_action, names)
    shares = []
    for name, least, greatest in zip(names or ("",) * len(low), low, high, strict=True):
        centre, half = 0.5 * (least + greatest), 0.5 * (greatest - least)
        share = (starts.get(name, centre) - centre) / half
        if not -1.0 < share < 1.0:
            raise UsageError(
                f"initial_action of {name!r} must lie between {least:g} and {greatest:g}, got {starts[name]:g}"
            )
        shares.append(share)
    return tuple(shares)
