"""Numbers for actions by name, as ``{"steering": 0.1}``: how they are written in a configuration and looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from racer.agents.validation import require_range, require_type
from racer.core.errors import UsageError, unknown_name

__all__ = ["initial_shares", "named_numbers", "numbers_by_name"]


def named_numbers(key: str, given: Any) -> tuple[tuple[str, float], ...]:
    """Return numbers by name as sorted pairs, which hash and go through JSON; takes a mapping, pairs or None.

    Raises:
        UsageError: something else was given, or a number that is not finite.
    """
    try:
        pairs = dict(given or ())
    except (TypeError, ValueError) as error:
        raise UsageError(f'{key} must be like {{"steering": 0.1}}, got {given!r}') from error
    for name, number in pairs.items():
        require_type(f"name in {key}", name, str)
        require_range(f"{key} of {name!r}", number)
    return tuple(sorted((name, float(number)) for name, number in pairs.items()))


def numbers_by_name(key: str, given: Any, names: Sequence[str]) -> dict[str, float]:
    """Return pairs as a dictionary after looking every name up in the environment's action names.

    Raises:
        UsageError: the environment names no actions, or not this one.
    """
    numbers: dict[str, float] = dict(given)
    if numbers and not names:
        raise UsageError(f"{key} addresses actions by name, but this environment names none")
    for name in numbers:
        if name not in names:
            raise unknown_name(f"action ({key})", name, names)
    return numbers


def initial_shares(
    initial_action: Any, names: Sequence[str], low: Sequence[float], high: Sequence[float]
) -> tuple[float, ...]:
    """Return where in its range, as a number in (-1, 1), the first policy's mean of each action lies.

    Args:
        initial_action: pairs of names and actions in their own unit; those not named start at the centre.
        names: the environment's action names, may be empty.
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
