"""The folder of a run: ``policies/<run name>`` with its configuration, metrics and checkpoints."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from racer.core.errors import RacerError, UsageError, shown
from racer.core.files import read_bytes, read_json, remove_temporaries, temporary_of, write_json

__all__ = [
    "HeldRun",
    "check_can_be_made",
    "check_run_name",
    "check_vacant",
    "check_writable",
    "lock_run",
    "open_run",
    "read_json",
    "write_json",
]

log = logging.getLogger(__name__)

LOCK_FILE = ".lock"

# What a start makes before the first number or checkpoint of a run is written.
_BEGINNING = (LOCK_FILE, "run.json", "tensorboard", "wandb_id", "wandb")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def check_run_name(name: str) -> str:
    """Return ``name`` if it can name a folder; it must not climb out of the policies folder."""
    if not _NAME.match(name):
        raise UsageError(f"run name {shown(name)} may hold letters, digits, '.', '_' and '-', a letter or digit first")
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


def check_can_be_made(folder: Path, what: str) -> None:
    """Refuse a folder that cannot be made or written, without making it.

    Raises:
        UsageError: naming the folder and the reason.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not os.path.isdir(there):
        raise UsageError(f"{what} {str(folder)!r} cannot be made: {str(there)!r} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{what} {str(folder)!r} cannot be written: {str(there)!r} is not yours to write in")


def check_vacant(folder: Path) -> None:
    """Refuse a run folder that holds something already.

    A folder whose start was killed before the run had a number or a checkpoint is as good as empty.

    Raises:
        UsageError: naming the folder and the two ways on.
    """
    if os.path.isdir(folder):
        occupied = not all(_begun_only(entry) for entry in folder.iterdir())
    else:
        occupied = os.path.lexists(folder)
    if occupied:
        raise UsageError(f"run folder {str(folder)!r} exists: use --resume {folder}, or another --run_name")


class HeldRun:
    """A run's folder that this process holds, see :func:`lock_run`.

    Args:
        folder: of the run.

    Raises:
        UsageError: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handle = _locked(folder)

    def lost(self) -> bool:
        """Whether somebody deleted the folder, or its lock, since it was taken."""
        try:
            return not os.path.samestat(os.fstat(self._handle), os.stat(self.folder / LOCK_FILE))
        except OSError:
            return True

    def retake(self) -> None:
        """Make the folder again where it was deleted, and hold it.

        Raises:
            RacerError: it cannot be made, or another process took the name.
        """
        try:
            os.makedirs(self.folder, exist_ok=True)
            handle = _locked(self.folder)
        except (OSError, UsageError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RacerError(f"run folder {str(self.folder)!r} was deleted and cannot be resumed: {reason}") from error
        os.close(self._handle)
        self._handle = handle

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._handle)


@contextlib.contextmanager
def lock_run(folder: Path) -> Iterator[HeldRun]:
    """Hold a run's folder for this process, and clear it of what a killed one left half written.

    The system gives the lock back when the process ends, however it ends. Another machine sees it only where the file
    system carries locks.

    Raises:
        UsageError: another process holds it; the message names its process id.
    """
    held = HeldRun(folder)
    try:
        remove_temporaries(folder)
        yield held
    finally:
        held.release()


def open_run(root: Path, name: str, *, resume: bool) -> Path:
    """Return the folder of a run, new or resumed.

    Raises:
        UsageError: if it exists and ``resume`` is off, or does not exist and ``resume`` is on.
    """
    folder = root / check_run_name(name)
    if not resume:
        check_vacant(folder)
    elif not os.path.isdir(folder):
        raise UsageError(f"there is no run to resume at {str(folder)!r}")
    return check_writable(folder, "run folder")


def _begun_only(entry: Path) -> bool:
    if entry.name == "metrics.jsonl":
        return entry.stat().st_size == 0
    return entry.name in _BEGINNING or temporary_of(entry.name) is not None


def _locked(folder: Path) -> int:
    """Return the handle of the locked lock file, which holds this process's id."""
    path = folder / LOCK_FILE
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(f"run folder {str(folder)!r} cannot be locked: {error.strerror or error}") from error
        try:
            _lock(handle, folder)
            # The folder may have been deleted, and made again, between the two calls.
            if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
                break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            log.warning("%s is not guarded against a second run: %s", folder, error.strerror)
            return
        raise UsageError(
            f"run folder {str(folder)!r} is in use by {_holder(folder)}; end it, or use another --run_name"
        ) from error


def _holder(folder: Path) -> str:
    try:
        text = read_bytes(folder / LOCK_FILE, 64).decode("ascii", "replace").strip()
    except UsageError:
        text = ""
    return f"process {text}" if text.isdigit() else "another process"
