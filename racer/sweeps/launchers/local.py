"""All jobs of a manifest on this machine's devices, as many at a time as they have places."""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from racer.sweeps.job import Job
from racer.sweeps.launchers.children import LOG_FILE, Child, job_command, progress_of, start_child
from racer.sweeps.launchers.devices import DevicePool
from racer.sweeps.launchers.outcome import GRACE_SECONDS, Outcome, Settlement
from racer.sweeps.results import finished, job_folder
from racer.training.signals import StopSignals

__all__ = ["Launch", "launch"]

_POLL = 0.1
_TELL_SECONDS = 2.0
_QUIET_TELL_SECONDS = 30.0

Decide = Callable[[Collection[int]], dict[int, str]]
"""From the finished jobs' indices to those that need not run, with the reason."""


@dataclass(frozen=True)
class Launch:
    """What is launched.

    Attributes:
        manifest: path of the list.
        jobs: of the list.
        results: folder of all studies' results.
        pool: places.
        indices: jobs to run, by their place in the list.
        command: builds the command of a job.
        decide: looks at what is finished and says what need not run any more; None to run everything.
    """

    manifest: Path
    jobs: Sequence[Job]
    results: Path
    pool: DevicePool
    indices: Sequence[int]
    command: Callable[[Path, int, Path], list[str]] = job_command
    decide: Decide | None = None

    def folder(self, index: int) -> Path:
        """Return a job's folder."""
        return job_folder(self.results, self.jobs[index])

    def log(self, index: int) -> Path:
        """Return where a job's output goes."""
        return self.folder(index) / LOG_FILE


def launch(plan: Launch) -> Outcome:
    """Run all jobs that are not finished; a stop signal lets those that run save, and ends."""
    outcome = Outcome({index for index in plan.indices if finished(plan.folder(index))})
    waiting = deque(index for index in plan.indices if index not in outcome.finished)
    progress = _Progress(plan, outcome)
    running: list[Child] = []
    settlement = Settlement(outcome)
    with StopSignals() as stop:
        try:
            while waiting or running or settlement:
                if stop.event.is_set():
                    break
                _skip(plan, outcome, waiting)
                _start(plan, waiting, running)
                time.sleep(_POLL)
                _collect(plan, outcome, running, settlement)
                waiting.extend(settlement.due())
                progress.tell(running, len(waiting) + len(settlement))
        finally:
            _end(plan, outcome, running)
            progress.close()
        outcome.exit_code = stop.exit_code or int(bool(outcome.failed))
    return outcome


def _start(plan: Launch, waiting: deque[int], running: list[Child]) -> None:
    while waiting and (device := plan.pool.take()) is not None:
        index = waiting.popleft()
        command = plan.command(plan.manifest, index, plan.results)
        running.append(start_child(command, index, device, plan.log(index)))


def _collect(plan: Launch, outcome: Outcome, running: list[Child], settlement: Settlement) -> None:
    """Take in children that ended."""
    for child in [child for child in running if child.process.poll() is not None]:
        running.remove(child)
        child.close()
        plan.pool.give_back(child.device)
        settlement.settle(child.index, plan.folder(child.index), child.process.returncode)
        if child.index in outcome.failed:
            _line(f"job {child.index} failed: {outcome.failed[child.index]}")


def _skip(plan: Launch, outcome: Outcome, waiting: deque[int]) -> None:
    if plan.decide is None:
        return
    for index, reason in plan.decide(outcome.finished).items():
        if index in waiting:
            waiting.remove(index)
            outcome.skipped[index] = reason


def _end(plan: Launch, outcome: Outcome, running: list[Child]) -> None:
    """Let children save and end; who does not within a minute is killed."""
    for child in running:
        child.end(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for child in running:
        while child.process.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL)
        child.end(signal.SIGKILL)
        child.process.wait()
        child.close()
        if finished(plan.folder(child.index)):
            outcome.finished.add(child.index)
    running.clear()


class _Progress:
    """One line about all jobs: on a terminal it stays in place, elsewhere it comes every half minute."""

    def __init__(self, plan: Launch, outcome: Outcome) -> None:
        self._plan, self._outcome = plan, outcome
        self._begun, self._before = time.monotonic(), len(outcome.finished)
        self._terminal = sys.stderr.isatty()
        self._last, self._width = -1e9, 0

    def tell(self, running: Sequence[Child], waiting: int) -> None:
        now = time.monotonic()
        if now - self._last < (_TELL_SECONDS if self._terminal else _QUIET_TELL_SECONDS):
            return
        self._last = now
        text = self._text(running, waiting)
        if self._terminal:
            _write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            _line(text)

    def close(self) -> None:
        if self._terminal and self._width:
            _write("\r" + " " * self._width + "\r")

    def _text(self, running: Sequence[Child], waiting: int) -> str:
        outcome, total = self._outcome, len(self._plan.indices)
        parts = sum(progress_of(child.log) for child in running)
        done = len(outcome.finished) - self._before + parts
        left = waiting + len(running) - parts
        seconds = time.monotonic() - self._begun
        eta = "" if done < 0.02 else f", about {_duration(left * seconds / done)} left"
        failed = f", {len(outcome.failed)} failed" if outcome.failed else ""
        skipped = f", {len(outcome.skipped)} decided early" if outcome.skipped else ""
        return f"{len(outcome.finished)} of {total} jobs, {len(running)} running{failed}{skipped}{eta}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60.0)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes >= 2 else f"{max(round(seconds), 1)} s"


def _line(text: str) -> None:
    _write(text + "\n")


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


