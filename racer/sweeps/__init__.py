"""Many trainings as one thing: from a hyperparameter file to a table that can be recomputed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from racer.sweeps.reader import Marked

__all__ = ["jobs", "vmapped"]


def jobs(*values: Any, only_if: Mapping[str, Any] | None = None) -> Marked:
    """Mark values of a hyperparameter file that become a job each.

    Hyperparameter files are read and not executed; these functions are there for editors and linters, and for files
    that somebody runs nevertheless.

    Args:
        values: of the key; a single list counts as its items.
        only_if: other keys with a value, or a list of values: the key is there only where they have it.
    """
    return _marked("jobs", values, only_if)


def vmapped(*values: Any, only_if: Mapping[str, Any] | None = None) -> Marked:
    """Mark values that are trained side by side in one process; see :func:`jobs`."""
    return _marked("vmapped", values, only_if)


def _marked(kind: str, values: tuple[Any, ...], only_if: Mapping[str, Any] | None) -> Marked:
    if len(values) == 1 and isinstance(values[0], list):
        values = tuple(values[0])
    pairs = tuple((key, tuple(v) if isinstance(v, list) else (v,)) for key, v in (only_if or {}).items())
    return Marked(kind, values, pairs)
