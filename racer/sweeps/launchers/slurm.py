"""A SLURM array over the parts of a manifest. Each task runs its part on the GPUs that SLURM gave it."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from racer.core.config import check_fields, option
from racer.core.errors import UsageError
from racer.core.files import replace_file

__all__ = ["SlurmArray", "array_script", "write_array"]

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,-]{0,127}\Z")
_TIME = re.compile(r"(\d+-)?\d{1,3}(:\d{2}){0,2}\Z")
_JOB_GIGABYTES = 2
"""A small job, of a small network in a small world, peaks at 0.9 GiB (resident, on a CPU)."""
_MEMORY = re.compile(r"\d{1,9}[KMGT]?\Z")


@dataclass(frozen=True)
class SlurmArray:
    """What SLURM is asked for.

    Raises:
        UsageError: a value that SLURM would not take.
    """

    gpus: int = option(0, "GPUs of a task; 0 for none", low=0, high=64)
    partition: str | None = option(None, "partition, or None for the cluster's own")
    account: str | None = option(None, "account, or None")
    time: str = option("24:00:00", "limit of a task")
    memory: str | None = option(
        None,
        f"memory for each GPU, or each CPU of a task without any; None for {_JOB_GIGABYTES}G a job that runs there",
    )
    cpus: int = option(1, "CPUs of a task", low=1, high=1024)
    jobs_per_task: int = option(64, "jobs of the manifest that a task runs", low=1)
    oversub: int | None = option(
        None, "jobs that share a GPU where OVERSUB says nothing, None for 16; without GPUs a job for each CPU", low=1
    )
    at_once: int | None = option(None, "tasks at a time, or None for as many as SLURM lets", low=1)
    log_folder: str = option("slurm_jobs/logs", "folder of the tasks' output")

    def __post_init__(self) -> None:
        check_fields(self, "SLURM option")
        shapes = {"partition": _WORD, "account": _WORD, "time": _TIME, "memory": _MEMORY}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and not shape.match(value):
                raise UsageError(f"SLURM option {name!r} cannot be {value!r}")
        if not re.match(r"[A-Za-z0-9_./-]{1,200}\Z", self.log_folder):
            raise UsageError(f"SLURM option 'log_folder' may hold letters, digits and ./_-, not {self.log_folder!r}")


def array_script(array: SlurmArray, name: str, manifest: Path, results: Path, jobs: int) -> str:
    """Return the script of an array over ``jobs`` jobs.

    Raises:
        UsageError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise UsageError("SLURM scripts are made with jinja2: pip install -e '.[sweeps]'") from error
    at_a_time = array.oversub or (16 if array.gpus else array.cpus)
    # Without GPUs the jobs are spread over the CPUs.
    jobs_each = at_a_time if array.gpus else -(-at_a_time // array.cpus)
    memory = array.memory or f"{_JOB_GIGABYTES * jobs_each}G"
    folder = Path(__file__).parent / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), undefined=jinja2.StrictUndefined, trim_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    return environment.get_template("array.slurm.j2").render(
        name=name, parts=-(-jobs // array.jobs_per_task), at_once=array.at_once, partition=array.partition,
        account=array.account, gpus=array.gpus, memory=memory, cpus=array.cpus, time=array.time,
        log_folder=array.log_folder, part_size=array.jobs_per_task,
        oversub=at_a_time,
        devices="on the GPUs of the task" if array.gpus else "on the CPUs of the task",
        device="GPU" if array.gpus else "task", where="auto" if array.gpus else "cpu",
        python=shlex.quote(sys.executable), manifest=shlex.quote(str(manifest)), results=shlex.quote(str(results)),
    )  # fmt: skip


def write_array(path: Path, array: SlurmArray, name: str, manifest: Path, results: Path, jobs: int) -> None:
    """Write the script of an array, and the folder of its output, which SLURM does not make."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(array.log_folder).mkdir(parents=True, exist_ok=True)
    replace_file(path, array_script(array, name, manifest, results, jobs).encode())
