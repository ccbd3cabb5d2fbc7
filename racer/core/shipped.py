"""Configuration files and policies that come with the code, wherever it is installed.

An installation holds them beside the package's modules; in a checkout they are where a reader looks for them.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from racer.core.checkpoint import latest_valid_checkpoint, list_checkpoints

__all__ = ["find_config", "find_policy", "resolve_checkpoint", "shipped"]

_PACKAGE = Path(__file__).parents[1]
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
    parts = given.parts[1:] if given.parts[:1] == ("policies",) else given.parts
    if os.path.lexists(given) or not parts:
        return given
    here = shipped("policies").get(parts[0])
    return given if here is None else here.joinpath(*parts[1:])


def find_config(path: str) -> str:
    """Return ``path``, or where nothing is there the shipped file that it names, with or without folder and ending."""
    if os.path.lexists(path) or os.path.lexists(path.partition(":")[0]):
        return path
    here = shipped("configs").get(Path(path).name.removesuffix(".py"))
    return path if here is None else str(here)


def resolve_checkpoint(path: str | os.PathLike[str], groups: Collection[str] | None = None) -> Path:
    """Return the checkpoint that ``path`` means: itself, or the newest valid one of a run folder.

    Args:
        path: a checkpoint or a run folder, or a shipped policy's name.
        groups: those that will be read, all by default; only they have to be whole.

    Raises:
        CheckpointError: there is nothing there, or no valid checkpoint in the run.
    """
    found = find_policy(path)
    if found.is_dir() and not (found / "manifest.json").exists() and list_checkpoints(found):
        return latest_valid_checkpoint(found, groups)
    return found
