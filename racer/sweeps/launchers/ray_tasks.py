"""Jobs as Ray tasks: each runs the one command in a process of its own, on whatever machine Ray chooses.

The manifest and the results lie where all machines see them. Ray says which GPUs a task has.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from racer.distributed.cluster.connection import connect
from racer.sweeps.execute import BUSY
from racer.sweeps.job import Job
from racer.sweeps.launchers.children import LOG_FILE, job_command, last_line
from racer.sweeps.launchers.local import Outcome
from racer.sweeps.results import finished, job_folder

__all__ = ["launch_on_ray", "run_task"]


def run_task(command: Sequence[str], log: str, folder: str) -> int:
    """Run a job's command where Ray put it; returns its exit code."""
    path = Path(log)
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if not environment.get("CUDA_VISIBLE_DEVICES"):
        environment["JAX_PLATFORMS"] = "cpu"
    with path.open("ab") as handle:
        return subprocess.call(
            list(command), stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, env=environment, cwd=folder
        )


def launch_on_ray(
    manifest: Path,
    jobs: Sequence[Job],
    results: Path,
    indices: Sequence[int],
    *,
    ray: Any = None,
    command: Callable[[Path, int, Path], list[str]] = job_command,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
) -> Outcome:
    """Run jobs as Ray tasks and wait for them.

    Args:
        manifest: path of the list.
        jobs: of the list.
        results: folder of all studies' results.
        indices: jobs to run, by their place in the list.
        ray: the module, joined to a cluster, or what stands for it. None joins the cluster that RAY_ADDRESS names, or
            starts one on this machine.
        command: builds the command of a job.
        num_cpus: CPUs that a task reserves.
        num_gpus: GPUs that a task reserves; a fraction shares one.

    Raises:
        UsageError: Ray is not installed, or the cluster that RAY_ADDRESS names cannot be joined.
    """
    outcome = Outcome({index for index in indices if finished(job_folder(results, jobs[index]))})
    with contextlib.ExitStack() as held:
        if ray is None:
            ray = held.enter_context(connect("auto" if os.environ.get("RAY_ADDRESS") else "local")).ray
        task = ray.remote(run_task).options(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=0)
        waiting: dict[Any, int] = {}
        for index in indices:
            if index not in outcome.finished:
                log = job_folder(results, jobs[index]).resolve() / LOG_FILE
                words = command(manifest.resolve(), index, results.resolve())
                waiting[task.remote(words, str(log), os.getcwd())] = index
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            for reference in done:
                index = waiting.pop(reference)
                code = ray.get(reference)
                folder = job_folder(results, jobs[index])
                if finished(folder):
                    outcome.finished.add(index)
                else:
                    busy = "another process runs it" if code == BUSY else ""
                    outcome.failed[index] = busy or last_line(folder / LOG_FILE) or f"ended with code {code}"
    outcome.exit_code = int(bool(outcome.failed))
    return outcome
