"""``python -m racer list``: the policies, config files, worlds and agents that come along, a line each."""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

from racer.agents.registry import agents_described
from racer.core.checkpoint import list_checkpoints
from racer.core.errors import unknown_name
from racer.core.manifest import read_manifest
from racer.core.shipped import shipped
from racer.envs.registry import DEFAULT_WORLD, worlds_described

__all__ = ["add_arguments", "show"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command line of ``list``."""
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"{', '.join(_KINDS)} (default: all of them)")


def show(arguments: argparse.Namespace) -> list[Path]:
    """Print what there is.

    Raises:
        UsageError: there is no such kind.
    """
    if arguments.kind is not None and arguments.kind not in _KINDS:
        raise unknown_name("kind of things to list", arguments.kind, _KINDS)
    parts = []
    for kind in [arguments.kind] if arguments.kind else _KINDS:
        use, found = _KINDS[kind]
        lines = found()
        width = max(map(len, lines), default=0)
        parts.append("\n".join([f"{kind} ({use})", *(f"  {name:{width}}  {about}" for name, about in lines.items())]))
    sys.stdout.write("\n\n".join(parts) + "\n")
    return []


def _policies() -> dict[str, str]:
    return {name: _of_policy(folder) for name, folder in shipped("policies").items()}


def _of_policy(folder: Path) -> str:
    manifest = read_manifest(list_checkpoints(folder)[-1])
    metadata = manifest["metadata"]
    return f"{metadata['agent_name']} in world {metadata.get('world', DEFAULT_WORLD)}, {manifest['step']:,} transitions"


def _configs() -> dict[str, str]:
    return {name: _first_line(path) for name, path in shipped("configs").items()}


def _first_line(path: Path) -> str:
    """Return the first line of a file's docstring; the file is not run."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


_KINDS = {
    "policies": ("racer evaluate NAME", _policies),
    "configs": ("racer train --config NAME", _configs),
    "worlds": ("racer train --world NAME --agent ...", worlds_described),
    "agents": ("racer train --agent NAME --world ...", agents_described),
}
"""How a thing of each kind is used, and what gives their names with a line each."""
