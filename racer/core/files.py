"""The one reader of what lies on a disk, and the one way to replace a file.

A file that somebody else may have written is regular, of a bounded size and checked before anything is built from it:
a FIFO or a device does not hang a program, a forged size does not take its memory, and JSON that no writer of ours
makes (NaN, integers of a thousand digits, a thousand brackets) is an error of one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from racer.core.errors import UsageError, shown

__all__ = [
    "cache_home",
    "fsync_folder",
    "open_regular",
    "parse_json",
    "private_folder",
    "read_bytes",
    "read_json",
    "remove_temporaries",
    "replace_file",
    "strict",
    "summed",
    "temporary_of",
    "unsummed",
    "write_json",
]

JSON_BYTES = 1 << 26
_DEPTH = 64
_DIGITS = 20

# ".<name>.<eight characters of mkstemp>", for the names that are written here.
_TEMPORARY = re.compile(r"\.([^/]+\.jsonl?)\.[a-z0-9_]{8}\Z")


@contextlib.contextmanager
def open_regular(path: Path | str, limit: int) -> Iterator[tuple[io.BufferedReader, os.stat_result]]:
    """Open a regular file of at most ``limit`` bytes for reading.

    Raises:
        UsageError: naming the file, if it is missing, of another kind, too large or not to be read.
    """
    try:
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:
        raise UsageError(f"{shown(str(path))} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    with file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise UsageError(f"{shown(str(path))} cannot be read: it is not a regular file")
        if info.st_size > limit:
            raise UsageError(f"{shown(str(path))} cannot be read: it has {info.st_size} bytes, more than {limit}")
        try:
            yield file, info
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or "not enough memory"
            raise UsageError(f"{shown(str(path))} cannot be read: {reason}") from error


def read_bytes(path: Path | str, limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
        UsageError: as :func:`open_regular`.
    """
    with open_regular(path, limit) as (file, info):
        chunks, missing = [], info.st_size
        # What a file gains while it is read is not asked for.
        while missing and (chunk := file.read(missing)):
            chunks.append(chunk)
            missing -= len(chunk)
        return b"".join(chunks)


def parse_json(data: bytes | str) -> Any:
    """Parse JSON that our writers could have made: finite numbers, integers of 64 bits, at most 64 levels deep.

    Raises:
        ValueError: saying what is wrong with it.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_constant)
    except RecursionError as error:
        raise ValueError(f"more than {_DEPTH} levels deep") from error
    _check_depth(value)
    return value


def read_json(path: Path, limit: int = JSON_BYTES) -> Any:
    """Read a JSON file of at most ``limit`` bytes.

    Raises:
        UsageError: naming the file, if it is missing, no regular file, too large or not JSON.
    """
    data = read_bytes(path, limit)
    try:
        return parse_json(data)
    except ValueError as error:
        raise UsageError(f"{shown(str(path))} cannot be read as JSON: {' '.join(str(error).split())}") from error


def strict(value: Any) -> Any:
    """Make a value fit for strict JSON: NumPy scalars become Python's, NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    if hasattr(value, "tolist"):
        return strict(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON so that a reader never sees half a file."""
    replace_file(path, (json.dumps(strict(value), indent=2, allow_nan=False) + "\n").encode())


def replace_file(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, sync it and rename it: a reader sees the old one or the new one.

    Raises:
        OSError: the old file, if any, is untouched.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def temporary_of(name: str) -> str | None:
    """Return the name of the file that a killed :func:`replace_file` left ``name`` of, or None."""
    found = _TEMPORARY.match(name)
    return found[1] if found else None


def remove_temporaries(folder: Path) -> list[Path]:
    """Delete what killed calls of :func:`replace_file` left in a folder that nobody else writes to; return it."""
    left = [entry for entry in sorted(folder.iterdir()) if temporary_of(entry.name) and entry.is_file()]
    for path in left:
        with contextlib.suppress(OSError):
            path.unlink()
    return left


def cache_home() -> Path:
    """Return where the user's caches of this package lie: ``XDG_CACHE_HOME/racer``, below ``~/.cache`` by default."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")) / "racer"


def summed(data: bytes) -> bytes:
    """Return data behind its SHA-256."""
    return hashlib.sha256(data).digest() + data


def unsummed(stored: bytes) -> bytes | None:
    """Return what :func:`summed` was given, or None where the sum is not that of what follows."""
    size = hashlib.sha256().digest_size
    data = stored[size:]
    return data if hashlib.sha256(data).digest() == stored[:size] else None


def private_folder(folder: Path) -> str | None:
    """Make a folder that nobody but its owner may write to; returns what is wrong with it, None if nothing is."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except (OSError, ValueError) as error:
        return f"cannot be made: {getattr(error, 'strerror', None) or error}"
    if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o022:
        return "can be written by others: make it yours alone, chmod 700"
    return None if os.access(folder, os.W_OK | os.X_OK) else "cannot be written"


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for the other end of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {shown(text)} is out of range")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEPTH):
        level = [
            item
            for part in level
            if isinstance(part, dict | list)
            for item in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return
    raise ValueError(f"more than {_DEPTH} levels deep")
