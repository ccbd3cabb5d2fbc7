"""Configuration files and policies that come with the code, wherever it is installed.

An installation holds them beside the package's modules; in a checkout they are where a reader looks for them.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from racer.core.checkpoint import CheckpointError, latest_valid_checkpoint, list_checkpoints
from racer.core.errors import UsageError, nearest

__all__ = ["find_config", "find_policy", "resolve_checkpoint", "shipped"]

_PACKAGE = Path(__file__).parents[1]
_LIKENESS = 0.75
"""Of a name to that of a shipped thing for which it is taken: people's own files have names as well."""
_IN_CHECKOUT = {"configs": Path("scripts/sim/configs"), "policies": Path("policies")}


def shipped(kind: str) -> dict[str, Path]:
    """Return the shipped "configs" (files) or "policies" (folders), by name.

    A policy is shipped if it has a card, ``README.md``: the runs of a checkout have none.
    """
    installed = _PACKAGE / "shipped" / kind
    folder = installed if installed.is_dir() else _PACKAGE.parent / _IN_CHECKOUT[kind]
    found = folder.glob("*.py") if kind == "configs" else (card.parent for card in folder.glob("*/README.md"))
    return {path.stem if kind == "configs" else path.name: path for path in sorted(found)}


def find_policy(path: str | os.PathLike[str]) -> Path:
    """Return ``path``, or where nothing is there the shipped policy that it names: ``NAME`` or ``policies/NAME``."""
    given = Path(os.path.normpath(path))
    parts = _below_policies(given)
    if os.path.lexists(given) or not parts:
        return given
    here = shipped("policies").get(parts[0])
    return given if here is None else here.joinpath(*parts[1:])


def _below_policies(path: Path) -> tuple[str, ...]:
    return path.parts[1:] if path.parts[:1] == ("policies",) else path.parts


def find_config(path: str) -> str:
    """Return ``path``, or where nothing is there the shipped file that it names, with or without folder and ending.

    What follows a colon is the file's own matter, and stays.

    Raises:
        UsageError: it is nearly a shipped file's name.
    """
    file, colon, argument = path.partition(":")
    if os.path.lexists(path) or os.path.lexists(file):
        return path
    known, name = shipped("configs"), Path(file).name.removesuffix(".py")
    if name in known:
        return f"{known[name]}{colon}{argument}"
    guess = nearest(name, known, _LIKENESS)
    if guess is not None:
        raise UsageError(f"there is no config file {path!r} (did you mean {guess!r}, which comes along?)")
    return path


def resolve_checkpoint(path: str | os.PathLike[str], groups: Collection[str] | None = None) -> Path:
    """Return the checkpoint that ``path`` means: itself, or the newest valid one of a run folder.

    Args:
        path: a checkpoint or a run folder, or a shipped policy's name.
        groups: those that will be read, all by default; only they have to be whole.

    Raises:
        CheckpointError: there is nothing there, or no valid checkpoint in the run.
    """
    found = find_policy(path)
    if not os.path.lexists(found):
        guess = nearest("".join(_below_policies(found)[:1]), shipped("policies"), _LIKENESS)
        if guess is not None:
            words = f"there is no checkpoint at {str(found)!r} (did you mean {guess!r}, which comes along?)"
            raise CheckpointError(words)
    if found.is_dir() and not (found / "manifest.json").exists() and list_checkpoints(found):
        return latest_valid_checkpoint(found, groups)
    return found
