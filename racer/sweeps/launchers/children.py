"""Child processes that run one job each, and end when their parent does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from racer.core.errors import RacerError
from racer.sweeps.launchers.devices import Device

__all__ = ["LOG_FILE", "PARENT", "Child", "die_with_parent", "job_command", "last_line", "progress_of", "start_child"]

LOG_FILE = "log.txt"

PARENT = "RACER_SWEEP_PARENT"
_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 1 << 13
_SHARE = re.compile(rb"^job [0-9a-f]{12}: +(\d{1,3})%", re.MULTILINE)


@dataclass
class Child:
    """A job that runs.

    Attributes:
        index: of the job.
        device: that it was given.
        process: that runs it.
        log: of its output.
    """

    index: int
    device: Device
    process: subprocess.Popen[bytes]
    log: Path
    _handle: BinaryIO | None = field(default=None, repr=False)

    def end(self, number: int) -> None:
        """Send a signal to the child, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def close(self) -> None:
        """Close what the parent holds of it."""
        if self._handle is not None:
            self._handle.close()


def job_command(manifest: Path, index: int, results: Path) -> list[str]:
    """Return the one command by which every launcher runs a job."""
    words = ["--manifest", str(manifest), "--index", str(index), "--results", str(results)]
    return [sys.executable, "-m", "racer", "sweep", "run", *words]


def start_child(
    command: Sequence[str], index: int, device: Device, log: Path, environment: Mapping[str, str] = os.environ
) -> Child:
    """Start a job with its device in its environment; its output is appended to ``log``.

    Raises:
        RacerError: the log cannot be written, or no process can be started.
    """
    own = {**environment, **device.environment, PARENT: str(os.getpid())}
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        handle = log.open("ab")
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, env=own, start_new_session=True
        )
    except OSError as error:
        raise RacerError(f"job {index} cannot be started: {error.strerror or error}") from error
    return Child(index, device, process, log, handle)


def die_with_parent() -> None:
    """Let this process get SIGTERM when the launcher that started it ends, however it ends (Linux)."""
    parent = os.environ.pop(PARENT, "")
    if not parent.isdecimal() or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGTERM)


def last_line(log: Path) -> str:
    """Return the last line of a log that says something; empty where there is none."""
    lines = [line for line in _tail(log).decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip()[:500] if lines else ""


def progress_of(log: Path) -> float:
    """Return the share of a job that its log says is done."""
    found = _SHARE.findall(_tail(log))
    return min(int(found[-1]) / 100.0, 1.0) if found else 0.0


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read()
    except OSError:
        return b""
