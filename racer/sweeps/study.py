"""What a study holds: its jobs, which of them are finished, and their tables."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from racer.core.errors import UsageError
from racer.core.files import read_bytes
from racer.core.run_dir import LOCK_FILE
from racer.sweeps.early import undecided
from racer.sweeps.execute import execute
from racer.sweeps.job import Job, Member
from racer.sweeps.launchers.children import LOG_FILE, last_line, progress_of
from racer.sweeps.manifest import check_version, read_manifest
from racer.sweeps.results import CONFIG_FILE, Table, finished, job_folder, read_job, read_table, study_jobs
from racer.sweeps.version import code_version

__all__ = ["MANIFEST_FILE", "Study", "load_study", "load_study_folder", "state_of", "verify_rows"]

MANIFEST_FILE = "manifest.jsonl"
"""A copy of the manifest in the study's folder, from which a later look knows what is missing."""


@dataclass(frozen=True)
class Study:
    """Finished jobs of a study, in the order of its manifest.

    Attributes:
        folder: of the study.
        jobs: all, finished or not.
        tables: of the finished ones, by job id.
    """

    folder: Path
    jobs: tuple[Job, ...]
    tables: dict[str, Table]

    @property
    def finished(self) -> list[tuple[Job, Table]]:
        """Jobs with their tables."""
        return [(job, self.tables[job.id]) for job in self.jobs if job.id in self.tables]

    @property
    def missing(self) -> list[Job]:
        """Jobs without results."""
        return [job for job in self.jobs if job.id not in self.tables]


def load_study(jobs: Sequence[Job], results: Path, *, allow_missing: bool = False, any_version: bool = False) -> Study:
    """Read the results of a manifest's jobs; those whose arm was decided early may be missing.

    Raises:
        UsageError: nothing is finished, or, unless allowed, another job is missing or one is of another version of the
            code.
    """
    folder = results / jobs[0].study
    wrong = [job for job in jobs if job.code_version != code_version()]
    if wrong and not any_version:
        raise UsageError(
            f"study {str(folder)!r} is of version {wrong[0].code_version} of the code, this is {code_version()}: "
            "--any_version reads it all the same"
        )
    tables = {job.id: read_table(job_folder(results, job)) for job in jobs if finished(job_folder(results, job))}
    study = Study(folder, tuple(jobs), tables)
    if not tables:
        raise UsageError(f"study {str(folder)!r}: none of its {len(jobs)} jobs is finished")
    missing = [] if allow_missing else undecided(folder, study.missing)
    if missing:
        names = ", ".join(job.id for job in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UsageError(
            f"study {str(folder)!r}: {len(missing)} of {len(jobs)} jobs are not finished ({names}); "
            "--allow_missing goes on without them"
        )
    return study


def load_study_folder(folder: Path, *, allow_missing: bool = False, any_version: bool = False) -> Study:
    """Read a study from its folder of results alone.

    Raises:
        UsageError: as :func:`load_study`.
    """
    folder = Path(os.path.normpath(folder))
    own = [read_job(path) for path in study_jobs(folder)]
    jobs = own
    if (folder / MANIFEST_FILE).is_file():
        listed = read_manifest(folder / MANIFEST_FILE)
        # Folders of an earlier plan, or of another version, are not this study's any more.
        jobs = [job for job in listed if job.study == folder.name] or own
    else:
        versions = {job.code_version for job in own}
        if len(versions) > 1 and code_version() in versions:
            jobs = [job for job in own if job.code_version == code_version()]
    for job in jobs:
        if job.study != folder.name:
            raise UsageError(f"study {str(folder)!r} holds a job of study {job.study!r}: the folder was renamed")
    return load_study(jobs, folder.parent, allow_missing=allow_missing, any_version=any_version)


def state_of(job: Job, results: Path) -> tuple[str, str]:
    """Return "finished", "running", "stopped", "failed" or "waiting", and words about it."""
    folder = job_folder(results, job)
    if finished(folder):
        return "finished", ""
    if not (folder / CONFIG_FILE).is_file():
        return ("failed", last_line(folder / LOG_FILE)) if (folder / LOG_FILE).is_file() else ("waiting", "")
    share = f"{progress_of(folder / LOG_FILE):.0%}"
    if _holder_lives(folder):
        return "running", share
    line = last_line(folder / LOG_FILE)
    return ("failed", line) if line.startswith(("error:", "Traceback")) else ("stopped", share)


def _holder_lives(folder: Path) -> bool:
    """Whether the process that locked a job's folder last still runs on this machine."""
    with contextlib.suppress(UsageError):
        text = read_bytes(folder / LOCK_FILE, 64).decode("ascii", "replace").strip()
        if text.isdecimal():
            try:
                os.kill(int(text), 0)
            except PermissionError:
                return True
            except (ProcessLookupError, OverflowError):
                return False
            return True
    return False


def verify_rows(study: Study, rows: int, seed: int = 0) -> list[tuple[Job, Member, str]]:
    """Train the jobs of some members again and compare every number bit for bit.

    Args:
        study: with finished jobs.
        rows: members to look at, drawn with ``seed``.
        seed: of the draw.

    Returns:
        For each its job, the member, and what differs, empty where nothing does.

    Raises:
        UsageError: there is nothing to verify, or another version of the code made it.
    """
    every = [(job, member) for job, _ in study.finished for member in job.members]
    chosen = random.Random(seed).sample(every, min(rows, len(every)))
    found = []
    again: dict[str, Table] = {}
    for job, member in chosen:
        check_version(job)
        if job.id not in again:
            with tempfile.TemporaryDirectory(prefix="racer-verify-") as scratch:
                if execute(job, Path(scratch), quiet=True) != 0:
                    found.append((job, member, "could not be trained again"))
                    continue
                again[job.id] = read_table(job_folder(Path(scratch), job))
        found.append((job, member, _difference(study.tables[job.id], again[job.id], member.index)))
    return found


def _difference(first: Table, second: Table, member: int) -> str:
    """Say where two tables differ first; NaN equals NaN."""
    mine, theirs = first.of(member), second.of(member)
    if len(mine) != len(theirs):
        return f"{len(mine)} numbers, and {len(theirs)} when trained again"
    for a, b in zip(mine, theirs, strict=True):
        if a[:2] != b[:2] or (a[2] != b[2] and not (a[2] != a[2] and b[2] != b[2])):
            return f"{a[1]} at step {a[0]} is {a[2]!r}, when trained again {b[2]!r}"
    return ""
