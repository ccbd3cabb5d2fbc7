"""The folder of a run: ``policies/<run name>`` with its configuration, metrics and checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from racer.core.errors import UsageError

__all__ = [
    "check_run_name",
    "check_vacant",
    "check_writable",
    "fsync_folder",
    "open_run",
    "read_json",
    "strict",
    "write_json",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def check_run_name(name: str) -> str:
    """Return ``name`` if it can name a folder; it must not climb out of the policies folder."""
    if not _NAME.match(name):
        raise UsageError(f"run name {name!r} may hold letters, digits, '.', '_' and '-', a letter or digit first")
    return name


def check_writable(folder: Path, what: str) -> Path:
    """Make ``folder`` and prove that files can be written there, before any work is done.

    Raises:
        UsageError: naming the folder and the system's reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{what} {str(folder)!r} cannot be written: {error.strerror or error}") from error
    return folder


def check_vacant(folder: Path) -> None:
    """Refuse a run folder that holds something already.

    Raises:
        UsageError: naming the folder and the two ways on.
    """
    occupied = any(folder.iterdir()) if folder.is_dir() else folder.exists()
    if occupied:
        raise UsageError(f"run folder {str(folder)!r} exists: use --resume {folder}, or another --run_name")


def open_run(root: Path, name: str, *, resume: bool) -> Path:
    """Return the folder of a run, new or resumed.

    Raises:
        UsageError: if it exists and ``resume`` is off, or does not exist and ``resume`` is on.
    """
    folder = root / check_run_name(name)
    if not resume:
        check_vacant(folder)
    elif not folder.is_dir():
        raise UsageError(f"there is no run to resume at {str(folder)!r}")
    return check_writable(folder, "run folder")


def strict(value: Any) -> Any:
    """Make a value fit for strict JSON: NumPy scalars become Python's, NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    if hasattr(value, "tolist"):
        return strict(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON so that a reader never sees half a file."""
    text = json.dumps(strict(value), indent=2, allow_nan=False) + "\n"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UsageError: naming the file, if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as JSON: {error}") from error


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
