"""The list of a study's jobs, JSON lines, from which every launcher takes them by their index."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from racer.core.errors import UsageError
from racer.core.files import parse_json, read_bytes, replace_file, strict
from racer.core.run_dir import check_run_name
from racer.sweeps.dialect import understand
from racer.sweeps.expand import Expanded, expand
from racer.sweeps.job import Job, job_from_record, make_job
from racer.sweeps.reader import HyperFile
from racer.sweeps.version import code_version

__all__ = ["check_version", "one_job", "plan_jobs", "read_manifest", "write_manifest"]

_BYTES = 1 << 28


def plan_jobs(file: HyperFile, study: str | None = None) -> list[Job]:
    """Return the jobs of a hyperparameter file.

    Raises:
        UsageError: an unknown key, a value out of range, a key that cannot be vmapped (``file:line``).
    """
    version = code_version()
    jobs: dict[str, Job] = {}
    name = check_run_name(study or file.study)
    for found in expand(file):
        try:
            job = make_job(found, name, file.entry, version)
        except UsageError as error:
            raise UsageError(_placed(found, file, str(error))) from error
        jobs.setdefault(job.id, job)
    return list(jobs.values())


def _placed(found: Expanded, file: HyperFile, message: str) -> str:
    """Return a message with the line of the key that it is about, and that key where the agent calls it otherwise."""
    names = {key: key for key in found.lines}
    with contextlib.suppress(UsageError):
        names |= understand({**found.fixed, **found.settings[0]}, file.entry).origin
    for pattern in ("'{}'", r"\b{}\b"):
        for name, key in names.items():
            if key in found.lines and re.search(pattern.format(re.escape(name)), message):
                named = "" if name == key else f" (key {key!r})"
                return f"{file.where(found.lines[key])}: {message}{named}"
    return f"{file.where(min(found.lines.values(), default=file.line))}: {message}"


def write_manifest(path: Path, jobs: Sequence[Job]) -> None:
    """Write a manifest; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, "".join(json.dumps(strict(job.record), allow_nan=False) + "\n" for job in jobs).encode())


def read_manifest(path: Path) -> list[Job]:
    """Read a manifest.

    Raises:
        UsageError: it cannot be read, a line is none of ours, or it is empty.
    """
    jobs = []
    for number, line in enumerate(read_bytes(path, _BYTES).splitlines(), 1):
        try:
            record = parse_json(line)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: this line is no JSON: {' '.join(str(error).split())}") from error
        jobs.append(job_from_record(record, f"{path}:{number}"))
    if not jobs:
        raise UsageError(f"{path}: this manifest holds no jobs")
    if len({job.study for job in jobs}) > 1 or len({job.id for job in jobs}) < len(jobs):
        raise UsageError(f"{path}: a manifest holds each job of one study once")
    return jobs


def one_job(jobs: Sequence[Job], index: int, path: Path) -> Job:
    """Return the job of an index.

    Raises:
        UsageError: there is none.
    """
    if not 0 <= index < len(jobs):
        raise UsageError(f"--index {index} is no job of {str(path)!r}, which has 0 to {len(jobs) - 1}")
    return jobs[index]


def check_version(job: Job) -> Job:
    """Return a job that this code planned.

    Raises:
        UsageError: another version did; its results would not be what the job's name says.
    """
    if job.code_version != code_version():
        raise UsageError(
            f"job {job.id} was planned by version {job.code_version} of the code, this is {code_version()}: "
            "plan the study again"
        )
    return job
