"""The processes that a command started, found again however they are related by now.

A process belongs to a command if it carries the command's mark in its environment, is in its session, or descends from
one that does. Nothing else is ever signalled. Read from Linux's ``/proc``.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from racer.core.errors import UsageError, shown

__all__ = ["MARK", "Command", "Found", "wait_until"]

MARK = "RACER_FAULTS_MARK"
_PROC = Path("/proc")
_POLL = 0.05
_END_SECONDS = 10.0


@dataclass(frozen=True)
class Found:
    """A living process; its id alone could be somebody else's a moment later.

    Attributes:
        pid: its id.
        begun: clock ticks after the machine's start at which it began.
        parent: its parent's id.
        session: its session's.
        words: its command line, joined with blanks.
    """

    pid: int
    begun: int
    parent: int
    session: int
    words: str

    def signal(self, number: int) -> bool:
        """Send a signal if it is still this process; returns whether it was sent."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            now = _stat(self.pid)
            if now is None or now[2] != self.begun:
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)


class Command:
    """A command at work in a session of its own, its output in files.

    Args:
        words: the command.
        directory: where it is called.
        environment: its variables, to which a mark is added.
        output: a file for its standard output; standard error goes beside it, with the suffix ``.err``.

    Raises:
        UsageError: it cannot be started, or there is no ``/proc``.
    """

    def __init__(self, words: Sequence[str], directory: Path, environment: Mapping[str, str], output: Path) -> None:
        if not (_PROC / "self" / "stat").exists():
            raise UsageError("faults are injected on Linux only: there is no /proc here")
        self._mark = f"{MARK}={secrets.token_hex(8)}"
        self._known: dict[int, int] = {}
        self.errors = output.with_suffix(".err")
        name, _, value = self._mark.partition("=")
        try:
            with output.open("ab") as out, self.errors.open("ab") as err:
                self.process = subprocess.Popen(
                    list(words), cwd=directory, env={**environment, name: value}, stdin=subprocess.DEVNULL,
                    stdout=out, stderr=err, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise UsageError(f"command {shown(words[0])} cannot be started: {error.strerror or error}") from error
        self.begun = time.monotonic()

    def exit_code(self) -> int | None:
        """Return the exit code of the command's own process, minus the signal's number, or None while it lives."""
        return self.process.poll()

    def family(self) -> list[Found]:
        """Return every living process of the command, by id."""
        self.process.poll()
        everybody = _everybody()
        mine = {
            pid
            for pid, found in everybody.items()
            if found.session == self.process.pid
            or self._known.get(pid) == found.begun
            or _carries(pid, self._mark)
        }  # fmt: skip
        grown = True
        while grown:
            more = {pid for pid, found in everybody.items() if found.parent in mine and pid not in mine}
            mine, grown = mine | more, bool(more)
        mine.discard(os.getpid())
        found = [everybody[pid] for pid in sorted(mine)]
        self._known.update((each.pid, each.begun) for each in found)
        return found

    def matching(self, pattern: str) -> list[Found]:
        """Return those, apart from the command's own process, whose command line holds a pattern.

        A process that forks workers has their command line; one with matching children is left out.
        """
        found = [each for each in self.family() if each.pid != self.process.pid and re.search(pattern, each.words)]
        parents = {each.parent for each in found}
        return [each for each in found if each.pid not in parents]

    def leader(self, pattern: str | None) -> Found | None:
        """Return the learner: the first that holds a pattern, or the command's own process."""
        for each in self.family():
            if (each.pid == self.process.pid) if pattern is None else re.search(pattern, each.words):
                return each
        return None

    def last_error(self) -> str:
        """Return the last line on standard error, or an empty text."""
        lines = [line for line in self.errors.read_text("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else ""

    def end(self) -> None:
        """Kill whatever lives, stopped processes included; more may be started meanwhile."""
        deadline = time.monotonic() + _END_SECONDS
        while (living := self.family()) and time.monotonic() < deadline:
            for each in living:
                each.signal(signal.SIGKILL)
            time.sleep(_POLL)
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)


def wait_until(condition: Callable[[], object], deadline: float) -> bool:
    """Wait for a condition until a time of :func:`time.monotonic`; returns whether it was met."""
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _everybody() -> dict[int, Found]:
    """Return every process of the machine that is no zombie, by id."""
    found = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        stat = _stat(pid)
        if stat is None:
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            found[pid] = Found(pid, stat[2], stat[0], stat[1], words)
    return found


def _stat(pid: int) -> tuple[int, int, int] | None:
    """Return parent, session and time of the beginning of a process, None if it is none or a zombie."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("ascii", "replace")
    except OSError:
        return None
    # The name, in brackets, may hold anything.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else (int(fields[1]), int(fields[3]), int(fields[19]))


def _carries(pid: int, mark: str) -> bool:
    try:
        return mark.encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
