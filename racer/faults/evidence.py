"""What a program left: the lines that it logged, its checkpoints, locks and shared memory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from racer.core.files import parse_json
from racer.faults.kit import Checkpoints, Counters

__all__ = ["Line", "Saved", "compare", "held_locks", "last_step", "read_lines", "saved", "shared_memory", "unclaimed"]

_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Line:
    """A whole line of a log.

    Attributes:
        step: what it is about.
        raw: its bytes; one that was written again differs.
        values: what it says.
    """

    step: float
    raw: bytes
    values: dict[str, Any]


@dataclass(frozen=True)
class Saved:
    """A checkpoint under its final name."""

    step: int
    path: Path


def read_lines(folder: Path, counters: Counters) -> list[Line]:
    """Return the lines that a program logged, files in the order of their names.

    Lines without the step, and a last one that is still being written, are left out.
    """
    found = []
    for path in sorted(folder.glob(counters.files)):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        for raw in data.split(b"\n")[:-1]:
            with contextlib.suppress(ValueError):
                values = parse_json(raw)
                if isinstance(values, dict) and _is_number(values.get(counters.step)):
                    found.append(Line(values[counters.step], raw, values))
    return found


def last_step(lines: Sequence[Line]) -> float:
    """Return the step of the last line, 0 where there is none."""
    return lines[-1].step if lines else 0.0


def saved(folder: Path, checkpoints: Checkpoints) -> list[Saved]:
    """Return the checkpoints below a folder, oldest first."""
    found = []
    for path in folder.glob(checkpoints.glob):
        number = re.search(checkpoints.step, path.name)
        if number:
            found.append(Saved(int(number[1]), path))
    return sorted(found, key=lambda each: (each.step, each.path.name))


def compare(
    before: Sequence[Line], after: Sequence[Line], floor: int | None, counters: Counters, *, resumed: bool = True
) -> list[tuple[str, str]]:
    """Return what a log says that was lost or counted twice, as pairs of verdict and sentence.

    Args:
        before: what was logged at the fault.
        after: what is logged at the end.
        floor: step of the newest checkpoint that was whole; None where there is nothing to compare with.
        counters: which numbers may not fall.
        resumed: whether there was a resume, which may take the counters back, once, but not below the checkpoint's.
    """
    findings = []
    kept = {line.raw for line in after}
    gone = [line for line in before if floor is not None and line.step <= floor and line.raw not in kept]
    if gone:
        findings.append(
            ("lost", f"{len(gone)} lines up to the checkpoint at {floor} are gone or changed, first {gone[0].step:g}")
        )
    seen: set[float] = set()
    twice = [line.step for line in after if line.step in seen or seen.add(line.step)]  # type: ignore[func-returns-value]
    if twice:
        findings.append(("duplicated", f"{len(twice)} steps are logged twice, first {twice[0]:g}"))
    saved_lines = [line for line in before if floor is not None and line.step <= floor]
    for key in (counters.step, *counters.keys):
        text = _fall(key, after, saved_lines if resumed else None)
        findings += [("lost", text)] if text else []
    return findings


def held_locks(folder: Path, glob: str | None) -> list[str]:
    """Return the names of the files that somebody still holds a lock on."""
    held = []
    for path in folder.glob(glob) if glob else ():
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    held.append(path.name)
    return sorted(held)


def shared_memory() -> set[str]:
    """Return the names in ``/dev/shm``."""
    with contextlib.suppress(OSError):
        return set(os.listdir(_SHARED_MEMORY))
    return set()


def unclaimed(names: set[str]) -> list[str]:
    """Return those in ``/dev/shm`` that no living process maps or holds open: other programs' are in use."""
    used: set[str] = set()
    for entry in Path("/proc").iterdir() if names else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                used |= set(re.findall(r"/dev/shm/(\S+)", (entry / "maps").read_text("utf-8", "replace")))
            with contextlib.suppress(OSError):
                used |= {os.readlink(each).removeprefix("/dev/shm/") for each in (entry / "fd").iterdir()}
    return sorted(name for name in names - used if (_SHARED_MEMORY / name).exists())


def _fall(key: str, lines: Sequence[Line], saved_lines: Sequence[Line] | None) -> str | None:
    """Say where a number fell; once it may, to what it was at the checkpoint, if ``saved_lines`` is not None."""
    least = max(_numbers(key, saved_lines or ()), default=None)
    may_fall, highest = saved_lines is not None, float("-inf")
    for value in _numbers(key, lines):
        if value < highest:
            if not may_fall or (least is not None and value < least):
                return f"{key} fell from {highest:g} to {value:g}"
            may_fall = False
        highest = value
    return None


def _numbers(key: str, lines: Sequence[Line]) -> list[float]:
    values = (line.values.get(key) for line in lines)
    return [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
