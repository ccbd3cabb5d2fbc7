"""What is done to files, disks, processes and connections."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from racer.faults.processes import Found

__all__ = ["FILLER", "NotPossible", "connections", "fill", "flip", "half_open", "paused", "small_disk", "truncate"]

FILLER = "filler"
_COMMAND_SECONDS = 30.0
_TURN, _BREATH = 0.3, 0.1
_PIDFD_GETFD = 438
"""The system call's number, the same on every architecture; it has no name in Python."""
_ESTABLISHED = "01"


class NotPossible(Exception):
    """A fault that cannot be injected here; the message says why."""


def flip(file: Path, place: float = 0.5) -> None:
    """Flip the lowest bit of the byte at ``place`` in [0, 1) of a file."""
    with file.open("r+b") as handle:
        at = int(place * file.stat().st_size)
        handle.seek(at)
        byte = handle.read(1)
        handle.seek(at)
        handle.write(bytes([byte[0] ^ 1]))


def truncate(file: Path, place: float = 0.5) -> None:
    """Cut a file off at ``place`` in [0, 1)."""
    os.truncate(file, int(place * file.stat().st_size))


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of some megabytes in memory on a folder.

    Raises:
        NotPossible: there is no mount program, or no right to use it.
    """
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None:
        raise NotPossible("there is no mount program, so no small file system to fill")
    folder.mkdir(exist_ok=True)
    words = [mount, "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS)
    if result.returncode != 0:
        raise NotPossible(f"no small file system may be mounted here: {' '.join(result.stderr.split())}")
    try:
        yield folder
    finally:
        subprocess.run([unmount, "--lazy", str(folder)], check=True, timeout=_COMMAND_SECONDS)


def fill(folder: Path) -> Path:
    """Fill the file system of a folder to its last page; returns the file that does, to be deleted."""
    path = folder / FILLER
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(b"\1" * 4096) == 4096:
            pass
    return path


def paused(process: Found, seconds: float, *, turns: bool = False) -> bool:
    """Stop a process and continue it some seconds later; returns whether it lived when it was stopped first.

    Args:
        process: is continued in any case.
        seconds: in all.
        turns: let it breathe now and then, so that it is slow rather than silent.
    """
    deadline, met = time.monotonic() + seconds, False
    try:
        while (left := deadline - time.monotonic()) > 0 and process.signal(signal.SIGSTOP):
            met = True
            time.sleep(min(_TURN, left) if turns else left)
            process.signal(signal.SIGCONT)
            if turns:
                time.sleep(_BREATH)
    finally:
        process.signal(signal.SIGCONT)
    return met


def connections(process: Found) -> list[int]:
    """Return the descriptors of a process that are established TCP connections."""
    folder = Path("/proc") / str(process.pid)
    established = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (folder / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _ESTABLISHED:
                    established.add(fields[9])
    found = []
    with contextlib.suppress(OSError):
        for entry in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                inode = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry))
                if inode and inode[1] in established:
                    found.append(int(entry.name))
    return sorted(found)


def half_open(process: Found) -> list[socket.socket]:
    """Kill a process so that its peers are not told: its TCP connections stay established and say nothing more.

    Returns what keeps them so until it is closed, nothing where the process was dead already. Whatever a peer sends is
    acknowledged, its keep-alive probes too: only silence tells.

    Raises:
        NotPossible: it has no TCP connection, or the system does not lend its sockets.
    """
    numbers = connections(process)
    borrowed: list[socket.socket] = []
    try:
        handle = os.pidfd_open(process.pid)
        try:
            for number in numbers:
                with contextlib.suppress(_Closed):
                    borrowed.append(_borrow(handle, number))
        finally:
            os.close(handle)
    except ProcessLookupError:
        _close(borrowed)
        return []
    except OSError as error:
        _close(borrowed)
        raise NotPossible(f"connections cannot be made half-open here: {error.strerror or error}") from error
    if not borrowed:
        raise NotPossible("there is no TCP connection")
    if not process.signal(signal.SIGKILL):
        _close(borrowed)
        return []
    return borrowed


class _Closed(OSError):
    """The process has closed the connection since it was looked for."""


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _borrow(handle: int, number: int) -> socket.socket:
    found = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, handle, number, 0)
    if found < 0:
        code = ctypes.get_errno()
        raise (_Closed if code == errno.EBADF else OSError)(code, os.strerror(code))
    return socket.socket(fileno=found)
