"""One job from its line in the manifest to ``DONE``, or to where a stop signal left it."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from racer.core.errors import RacerError, UsageError
from racer.core.files import write_json
from racer.core.run_dir import LOCK_FILE, check_writable, lock_run
from racer.sweeps.job import Job
from racer.sweeps.manifest import check_version
from racer.sweeps.results import CONFIG_FILE, DONE_FILE, finished, job_folder, need_pyarrow, read_job, write_results
from racer.training.signals import StopSignals

__all__ = ["BUSY", "execute"]

BUSY = 75
"""Exit code where another process runs the job (EX_TEMPFAIL of sysexits.h)."""

_TELL_SECONDS = 2.0


def execute(job: Job, results: Path, *, quiet: bool = False) -> int:
    """Train a job; one that is finished is left alone.

    Returns:
        0; 128 plus a signal's number where one ended it; :data:`BUSY` where another process runs it.

    Raises:
        UsageError: another version of the code planned it, or its folder holds something else.
    """
    check_version(job)
    need_pyarrow()
    folder = job_folder(results, job)
    if finished(folder) and read_job(folder).id == job.id:
        _say(f"job {job.id} is finished", quiet)
        return 0
    check_writable(folder, "results folder")
    try:
        with lock_run(folder):
            return _locked(job, folder, quiet)
    except UsageError as error:
        if "is in use by" not in str(error):
            raise
        _say(f"job {job.id}: {error}", quiet)
        return BUSY


def _locked(job: Job, folder: Path, quiet: bool) -> int:
    if finished(folder):
        _say(f"job {job.id} is finished", quiet)
        return 0
    _check_own(job, folder)
    write_json(folder / CONFIG_FILE, job.record)
    from racer.sweeps.collected import train_collected
    from racer.sweeps.compiled import Stopped, train_compiled  # brings JAX

    started = time.monotonic()
    train = train_compiled if job.engine == "compiled" else train_collected
    with StopSignals() as stop:
        try:
            rows = train(job, folder, stop.event, _teller(job, quiet))
        except Stopped:
            _say(f"job {job.id}: stopped; run it again to go on", quiet)
            return stop.exit_code or 1
        write_results(folder, job, rows)
        shutil.rmtree(folder / "population", ignore_errors=True)
    seconds = time.monotonic() - started
    _say(f"job {job.id}: {len(job.members)} members, finished after {seconds:.1f} s", quiet)
    return 0


def _check_own(job: Job, folder: Path) -> None:
    """Refuse a folder that holds anything but this job's unfinished results."""
    known = {CONFIG_FILE, DONE_FILE, LOCK_FILE, "log.txt", "members", "population", "metrics.parquet"}
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in known)
    if others:
        raise RacerError(f"results folder {str(folder)!r} holds what no job wrote: {others[0]!r}")
    if (folder / CONFIG_FILE).exists():
        try:
            same = read_job(folder).id == job.id
        except UsageError:
            # Written in part by a full disk, or damaged: there is nothing in it that is not in the manifest.
            same = True
        if not same:
            raise UsageError(f"results folder {str(folder)!r} is of another job")


def _teller(job: Job, quiet: bool) -> Callable[[float, str], None]:
    last = [0.0]

    def tell(share: float, line: str) -> None:
        if not quiet and (share >= 1.0 or time.monotonic() - last[0] > _TELL_SECONDS):
            last[0] = time.monotonic()
            sys.stderr.write(f"job {job.id}: {share:4.0%} {line}\n")
            sys.stderr.flush()

    return tell


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
