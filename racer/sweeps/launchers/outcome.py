"""How a launch ends, and what becomes of a job whose process ended; for every launcher that waits for its jobs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from racer.sweeps.execute import BUSY
from racer.sweeps.launchers.children import LOG_FILE, last_line
from racer.sweeps.results import finished

__all__ = ["BUSY_SECONDS", "GRACE_SECONDS", "Outcome", "Settlement"]

BUSY_SECONDS = 3.0
GRACE_SECONDS = 60.0


@dataclass
class Outcome:
    """How a launch ended.

    Attributes:
        finished: indices of the jobs whose results are whole.
        failed: last line of the log of each that failed, by index.
        skipped: why a job was not run, by index.
        exit_code: 0, 1 where jobs failed, 128 plus a signal's number where one ended the launch.
    """

    finished: set[int] = field(default_factory=set)
    failed: dict[int, str] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    exit_code: int = 0


class Settlement:
    """Enters in an outcome how jobs ended, and keeps those that somebody else runs until they are asked for again.

    Args:
        outcome: of the launch.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._later: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._later)

    def settle(self, index: int, folder: Path, code: int | None, lost: str = "") -> None:
        """Take in a job whose process ended.

        Args:
            index: of the job.
            folder: of the job.
            code: exit code of its process; None where nobody knows.
            lost: what to say of a job that failed without a code.
        """
        if finished(folder):
            self._outcome.finished.add(index)
        elif code == BUSY:
            self._later.append((time.monotonic() + BUSY_SECONDS, index))
        else:
            said = None if code is None else last_line(folder / LOG_FILE)
            self._outcome.failed[index] = said or lost or f"ended with code {code}"

    def due(self) -> list[int]:
        """Return the jobs to ask for again now; they are not kept any more."""
        now = time.monotonic()
        found = [index for at, index in self._later if at <= now]
        self._later = [item for item in self._later if item[0] > now]
        return found
