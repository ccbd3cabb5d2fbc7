"""One schedule: begin a run, break it, let it go on or resume it, and judge what is left."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import Any

from racer.faults.evidence import (
    Line,
    Saved,
    compare,
    held_locks,
    last_step,
    read_lines,
    saved,
    shared_memory,
    unclaimed,
)
from racer.faults.harm import FILLER, NotPossible, fill, flip, half_open, paused, small_disk, truncate
from racer.faults.kit import VERDICTS, Kit
from racer.faults.processes import Command, Found, wait_until
from racer.faults.schedules import CALM, Schedule

__all__ = ["MISSED", "SKIPPED", "SURVIVED", "Outcome", "run_trial"]

SURVIVED, SKIPPED, MISSED = "survived", "skipped", "missed"

_DAMAGE: dict[str, Callable[[Path, float], None]] = {"truncated_checkpoint": truncate, "flipped_checkpoint": flip}
_LEARNER_KILLED = ("kill_learner", "two_resumes", *_DAMAGE)
_NO_WORKER_NEEDED = (*_LEARNER_KILLED, "full_disk", CALM)
_CHECKPOINTS_NEEDED = {"two_resumes": 1, **dict.fromkeys(_DAMAGE, 2)}


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        findings: pairs of verdict and sentence.
        unbroken: whether it reached its goal without a resume.
        restarted: whether there was no checkpoint yet, so that it began anew.
        note: why it was skipped, missed or had to be resumed.
        status: skipped or missed, where the fault was not injected.
        failed_before: whether it failed before its fault was due.
        outlived: s that a process was seen to live after its learner, at the longest.
        seconds: that all of it took.
    """

    findings: list[tuple[str, str]] = field(default_factory=list)
    unbroken: bool = False
    restarted: bool = False
    note: str = ""
    status: str | None = None
    failed_before: bool = False
    outlived: float = 0.0
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """The worst finding, skipped, missed, or survived."""
        found = {verdict for verdict, _ in self.findings}
        return next((verdict for verdict in VERDICTS if verdict in found), self.status or SURVIVED)

    def forget(self, folder: Path) -> None:
        """Write ``...`` for the schedule's temporary folder, which is gone, in every sentence."""
        self.note = self.note.replace(str(folder), "...")
        self.findings = [(verdict, text.replace(str(folder), "...")) for verdict, text in self.findings]

    def as_json(self) -> dict[str, Any]:
        """Return what the results hold."""
        return {
            "verdict": self.verdict,
            "findings": [list(pair) for pair in self.findings],
            "unbroken": self.unbroken,
            "restarted": self.restarted,
            "note": self.note,
            "outlived": round(self.outlived, 1),
            "seconds": round(self.seconds, 1),
        }


def run_trial(kit: Kit, schedule: Schedule, cache: Path, keep: Path | None = None) -> Outcome:
    """Run one schedule in a folder of its own, which is deleted afterwards, with all processes ended.

    Args:
        kit: the program.
        schedule: what is done to it.
        cache: a folder that schedules share.
        keep: where the folder is copied to if the run was not survived.
    """
    folder = Path(tempfile.mkdtemp(prefix="racer-faults-"))
    trial, start = _Trial(kit, schedule, folder, cache), time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            if schedule.kind == "full_disk":
                stack.enter_context(small_disk(trial.run_folder, kit.disk_mb))
            stack.callback(_keep, trial, keep)
            stack.callback(trial.end)
            trial.go()
    except NotPossible as error:
        trial.outcome.status, trial.outcome.note = SKIPPED, str(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    trial.outcome.seconds = time.monotonic() - start
    trial.outcome.forget(folder)
    return trial.outcome


def _keep(trial: _Trial, keep: Path | None) -> None:
    if keep is not None and trial.outcome.verdict in VERDICTS:
        shutil.copytree(trial.folder, keep / f"{trial.kit.name}-{trial.schedule.number}", dirs_exist_ok=True)


class _Trial:
    def __init__(self, kit: Kit, schedule: Schedule, folder: Path, cache: Path) -> None:
        self.kit, self.schedule, self.folder, self.cache = kit, schedule, folder, cache
        self.counters, self.checkpoints, self.limits = kit.counters, kit.checkpoints, kit.limits
        self.run_folder = folder / "run"
        self.run_folder.mkdir()
        self.commands: list[Command] = []
        self.held: list[socket.socket] = []
        self.outcome = Outcome()
        self.deadline = time.monotonic() + self.limits.schedule
        self.shared_memory = shared_memory()

    def go(self) -> None:
        """Run the schedule; what is found goes to ``outcome``."""
        life = self._start(self.kit.command)
        if not self._due(life):
            return
        before, had = self._lines(), self._newest(self._saved())
        harm = getattr(self, f"_{self.schedule.kind}", self._kill_learner)
        if harm(life):
            self._see_the_end(life, before, had)
        else:
            self._too_late(life)

    def end(self) -> None:
        """End every process of the trial, and the connections of those that were killed."""
        for command in self.commands:
            command.end()
        for each in self.held:
            each.close()

    def _see_the_end(self, life: Command, before: list[Line], had: int | None) -> None:
        """Wait for the end, resume where need be, and judge.

        Args:
            life: the command that met the fault.
            before: the log at the fault.
            had: step of the newest checkpoint at the fault.
        """
        code = self._wait_for_exit(life)
        if code is None:
            self._stuck(life)
            return
        killed = self.schedule.kind in _LEARNER_KILLED
        self._after_life(life)
        if not killed and self._finished(code):
            self.outcome.unbroken = True
            self._judge(before, self._newest(self._saved()))
            return
        if not killed:
            self.outcome.note = f"ended with exit code {code}: {life.last_error()}"
        found = self._saved()
        if had is not None and (not found or found[-1].step < had):
            self._find("lost", f"the checkpoint at {had} is gone")
        whole = self._damage(found)
        # Lines that came between the snapshot and the death are held to the same.
        before = self._lines()
        if not whole:
            self._empty()
            self.outcome.restarted = True
            before = []
        words = self.kit.resume if whole else self.kit.command
        both = 2 if self.schedule.kind == "two_resumes" else 1
        lives = [self._start(words) for _ in range(both)]
        if self._see_resumes(lives):
            self._judge(before, self._newest(whole))

    def _see_resumes(self, lives: list[Command]) -> bool:
        """Wait for the resumed run, or runs; returns whether there is something to judge."""
        codes = [self._wait_for_exit(each) for each in lives]
        if None in codes:
            self._stuck(lives[codes.index(None)])
            return False
        for each in lives:
            self._after_life(each)
        if not any(self._finished(code) for code in codes if code is not None):
            steps = f"at step {last_step(self._lines()):g} of {self.kit.goal}"
            self._find("lost", f"resume ended with exit code {codes[0]} {steps}: {lives[0].last_error()}")
        return True

    def _due(self, life: Command) -> bool:
        """Wait until the fault is due; False where the run was over, or out of time, before."""
        if self.schedule.kind == CALM:
            return True
        ready = wait_until(lambda: life.exit_code() is not None or self._ready(life), self.deadline)
        if ready and self.schedule.at is not None:
            wait_until(lambda: life.exit_code() is not None, time.monotonic() + self.schedule.delay)
        over = life.exit_code() is not None
        if not ready:
            self._stuck(life)
        elif over:
            self._too_late(life)
        return ready and not over

    def _ready(self, life: Command) -> bool:
        schedule = self.schedule
        if schedule.at is None:
            return time.monotonic() - life.begun >= schedule.delay
        if last_step(self._lines()) < schedule.at * self.kit.goal:
            return False
        if len(self._saved()) < _CHECKPOINTS_NEEDED.get(schedule.kind, 0):
            return False
        return schedule.kind in _NO_WORKER_NEEDED or len(self._workers(life)) >= self.kit.num_workers

    def _too_late(self, life: Command) -> None:
        """Judge a run that was over when the fault should have met it."""
        code = self._wait_for_exit(life)
        if code is None:
            self._stuck(life)
        elif self._finished(code):
            self.outcome.status, self.outcome.note = MISSED, "the run was finished before the fault was due"
        else:
            self.outcome.failed_before = True
            self._find("lost", f"ended with exit code {code} before the fault: {life.last_error()}")

    # The faults; each returns whether it met a living process.

    def _calm(self, life: Command) -> bool:
        return True

    def _kill_worker(self, life: Command) -> bool:
        victim = self._victim(life)
        return victim is not None and victim.signal(SIGKILL)

    def _kill_all_workers(self, life: Command) -> bool:
        met = [worker.signal(SIGKILL) for worker in self._workers(life)]
        return any(met)

    def _kill_learner(self, life: Command) -> bool:
        learner = life.leader(self.kit.learner)
        return learner is not None and learner.signal(SIGKILL)

    def _stop_worker(self, life: Command) -> bool:
        victim = self._victim(life)
        return victim is not None and paused(victim, self.schedule.pause)

    def _slow_worker(self, life: Command) -> bool:
        victim = self._victim(life)
        return victim is not None and paused(victim, self.schedule.pause, turns=True)

    def _half_open_connection(self, life: Command) -> bool:
        victim = self._victim(life)
        self.held = half_open(victim) if victim is not None else []
        return bool(self.held)

    def _full_disk(self, life: Command) -> bool:
        met = life.exit_code() is None
        until = min(time.monotonic() + self.schedule.pause, self.deadline)
        try:
            # What the program deletes meanwhile is taken too.
            while time.monotonic() < until and life.exit_code() is None:
                fill(self.run_folder)
                time.sleep(0.05)
        finally:
            (self.run_folder / FILLER).unlink(missing_ok=True)
        return met

    def _damage(self, found: list[Saved]) -> list[Saved]:
        """Damage the newest checkpoint if that is the schedule's kind; returns those that are whole."""
        harm = _DAMAGE.get(self.schedule.kind)
        if harm is None or not found:
            return found
        newest = found[-1].path
        files = sorted(newest.glob(self.checkpoints.damage)) if newest.is_dir() else [newest]
        files = [file for file in files if file.is_file() and file.stat().st_size]
        if not files:
            raise NotPossible(f"checkpoint {newest.name} has no file {self.checkpoints.damage!r} to damage")
        place = self.schedule.target * len(files)
        harm(files[int(place)], place % 1.0)
        self.outcome.note = f"{newest.name}/{files[int(place)].name} damaged at {place % 1.0:.2f} of it"
        return found[:-1]

    def _judge(self, before: list[Line], floor: int | None) -> None:
        after = self._lines()
        self.outcome.findings += compare(
            before, after, floor, self.counters, resumed=not self.outcome.unbroken and not self.outcome.restarted
        )
        for name in held_locks(self.run_folder, self.kit.locks):
            self._find("orphaned", f"{name} is still locked")
        left = sorted(path.name for path in self.run_folder.glob(self.kit.leftovers)) if self.kit.leftovers else []
        if left:
            self._find("orphaned", f"left: {', '.join(left[:5])}")
        names = unclaimed(shared_memory() - self.shared_memory)
        if names:
            self._find("orphaned", f"left in /dev/shm: {', '.join(names[:5])}")

    def _after_life(self, life: Command) -> None:
        """See that nobody outlives the learner; whoever does is ended, so that a resume stands alone."""
        death = time.monotonic()
        gone = wait_until(lambda: not life.family(), death + self.limits.grace)
        self.outcome.outlived = max(self.outcome.outlived, time.monotonic() - death)
        if gone:
            return
        living = life.family()
        words = "; ".join(each.words[:80] for each in living[:3])
        self._find("orphaned", f"{len(living)} processes alive {self.limits.grace:g} s after the learner: {words}")
        life.end()

    def _wait_for_exit(self, life: Command) -> int | None:
        """Return the exit code; None where the time ran out."""
        if self.schedule.kind in _LEARNER_KILLED and life is self.commands[0]:
            # A process that outlives the learner which it started is an orphan like any other.
            wait_until(lambda: life.exit_code() is not None, time.monotonic() + self.limits.grace)
            return -1 if life.exit_code() is None else life.exit_code()
        return life.exit_code() if wait_until(lambda: life.exit_code() is not None, self.deadline) else None

    def _stuck(self, life: Command) -> None:
        at = f"at step {last_step(self._lines()):g} of {self.kit.goal}"
        self._find("stuck", f"not over after {self.limits.schedule:g} s, {at}: {life.last_error()}")

    def _finished(self, code: int) -> bool:
        return code == self.kit.exit_code and self._reached() >= self.kit.goal

    def _reached(self) -> float:
        """Return how far the log and the checkpoints say that the run came."""
        return max(last_step(self._lines()), self._newest(self._saved()) or 0)

    def _victim(self, life: Command) -> Found | None:
        workers = self._workers(life)
        return workers[int(self.schedule.target * len(workers))] if workers else None

    def _workers(self, life: Command) -> list[Found]:
        return life.matching(self.kit.workers)

    def _start(self, command: tuple[str, ...]) -> Command:
        words = self.kit.words(command, self.run_folder, self.cache, self.schedule.number)
        variables = self.kit.variables(self.run_folder, self.cache, self.schedule.number)
        output = self.folder / f"{len(self.commands)}.out"
        self.commands.append(Command(words, self.kit.place(), variables, output))
        return self.commands[-1]

    def _empty(self) -> None:
        for path in self.run_folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _newest(self, found: list[Saved]) -> int | None:
        return found[-1].step if found else None

    def _lines(self) -> list[Line]:
        return read_lines(self.run_folder, self.counters)

    def _saved(self) -> list[Saved]:
        return saved(self.run_folder, self.checkpoints)

    def _find(self, verdict: str, text: str) -> None:
        self.outcome.findings.append((verdict, text))
