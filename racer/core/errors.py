"""Errors written for the person who typed the wrong thing.

A :class:`UsageError` is always somebody's input: an unknown key, a value out of range, a file that is not
there. Programs turn it into one line on standard error and exit code 2; everything else is a defect of
the program and keeps its traceback.
"""

from __future__ import annotations

import difflib
import os
import sysconfig
import traceback
from collections.abc import Iterable
from typing import Any

__all__ = [
    "SYNONYMS", "EnvironmentFault", "RacerError", "UsageError", "nearest", "place_in", "shown", "unknown_name",
]  # fmt: skip

_SHOWN = 80
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INSTALLED = tuple(sysconfig.get_path(kind) + os.sep for kind in ("stdlib", "purelib", "platlib"))

SYNONYMS: dict[str, tuple[str, ...]] = {
    "batch_size": ("num_minibatches",),
    "clip_range": ("clip_ratio",),
    "ent_coef": ("entropy_coef", "init_temperature"),
    "gamma": ("discount",),
    "lam": ("gae_lambda",),
    "learning_rate": ("actor_lr", "critic_lr"),
    "lr": ("actor_lr", "critic_lr"),
    "n_epochs": ("num_epochs",),
    "n_steps": ("rollout_length",),
    "num_steps": ("rollout_length",),
    "vf_coef": ("value_coef",),
}
"""What other programs of the field call a thing, and its names here."""


class RacerError(Exception):
    """Base of every error that RACER raises on purpose."""


class UsageError(RacerError, ValueError):
    """Wrong input: the message names the thing, where it stands, and the nearest right value."""


class EnvironmentFault(RacerError):
    """An environment raised in ``step`` or ``reset``; the message has its id and the line of code.

    Attributes:
        row: which of the environments side by side it is, None where that is not known.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


def place_in(error: BaseException) -> str:
    """Return ``file.py:line`` where an error came from: in a person's own code, if any of that was under way."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((_PACKAGE, *_INSTALLED))]
    frame = (own or frames)[-1]
    return f"{os.path.basename(frame.filename)}:{frame.lineno}"


def nearest(name: str, choices: Iterable[str], likeness: float = 0.5) -> str | None:
    """Return the choice closest to ``name``, or None where nothing is close: 1 are equal, 0 have nothing in common."""
    if len(name) > _SHOWN:
        return None
    found = difflib.get_close_matches(name, list(choices), n=1, cutoff=likeness)
    return found[0] if found else None


def shown(value: Any) -> str:
    """Return a value as it is shown in an error: on one line, cut where it is long."""
    try:
        text = " ".join(repr(value[: 2 * _SHOWN + 1] if isinstance(value, str) else value).split())
    except Exception:  # noqa: BLE001 - a repr may raise anything; an integer of 5,000 digits raises ValueError
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]}..."


def unknown_name(kind: str, name: object, choices: Iterable[str]) -> UsageError:
    """Build the error for a name that is none of ``choices``.

    Args:
        kind: what the name is meant to be, in words ("environment config key").
        name: what was typed.
        choices: every name that would have been right.
    """
    choices = sorted(choices)
    guesses = [synonym for synonym in SYNONYMS.get(str(name), ()) if synonym in choices]
    if not guesses and isinstance(name, str):
        guesses = [guess for guess in [nearest(name, choices)] if guess]
    hint = f"did you mean {' or '.join(map(repr, guesses))}?" if guesses else f"choose one of: {', '.join(choices)}"
    return UsageError(f"unknown {kind} {shown(name)}; {hint}")
