"""Whose code runs: a file names code as text, and only a person's word lets it be imported.

A checkpoint or a run's description may come from anywhere. What it names is data until somebody names the same on the
command line, in a config file or in Python (:func:`name_code`). Worlds and agents that are given as
``<module>:<name>`` are imported by :func:`import_named` alone.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from racer.core.errors import UsageError, shown

__all__ = ["import_named", "name_code", "offer_flags", "require_named"]

_named: set[str] = set()
_flags: dict[str, str] = {}


def name_code(*names: str | None) -> None:
    """Trust the code of worlds or agents that a person named in this process; None names nothing."""
    _named.update(name for name in names if isinstance(name, str))


def offer_flags(**flags: str) -> None:
    """Say how a person names code to the program that runs, by kind: ``offer_flags(world="--world")``."""
    _flags.update(flags)


def require_named(kind: str, name: str, what: str) -> None:
    """Raise unless a person named a world or an agent.

    Args:
        kind: "world" or "agent".
        name: of it, whole.
        what: it would run, in words.

    Raises:
        UsageError: saying how to name it, where the program has a way.
    """
    if name in _named:
        return
    flag = _flags.get(kind)
    way = f"if you trust it, name it again: {flag} {name}" if flag else "this program runs built-in ones only"
    raise UsageError(f"{kind} {shown(name)} {what}; {way}")


def import_named(kind: str, name: str, module: str) -> ModuleType:
    """Import the module of a world or an agent that a person named; what is loaded or RACER's own needs no name.

    Raises:
        UsageError: nobody named it.
        ImportError: there is no such module.
    """
    if module in sys.modules:
        return sys.modules[module]
    if module.split(".")[0] != "racer":
        require_named(kind, name, f"runs the code of module {shown(module)}")
    return importlib.import_module(module)
