"""Errors written for the person who typed the wrong thing.

A :class:`UsageError` is always somebody's input: an unknown key, a value out of range, a file that is not
there. Programs turn it into one line on standard error and exit code 2; everything else is a defect of
the program and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["RacerError", "UsageError", "nearest", "unknown_name"]


class RacerError(Exception):
    """Base of every error that RACER raises on purpose."""


class UsageError(RacerError, ValueError):
    """Wrong input: the message names the thing, where it stands, and the nearest right value."""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice closest to ``name``, or None where nothing is close."""
    found = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return found[0] if found else None


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UsageError:
    """Build the error for a name that is none of ``choices``.

    Args:
        kind: what the name is meant to be, in words ("environment config key").
        name: what was typed.
        choices: every name that would have been right.
    """
    choices = sorted(choices)
    guess = nearest(name, choices)
    hint = f"did you mean {guess!r}?" if guess else f"choose one of: {', '.join(choices)}"
    return UsageError(f"unknown {kind} {name!r}; {hint}")
