"""Jobs as Ray tasks: each runs the one command in a process of its own, on whatever machine Ray chooses.

The manifest and the results lie where all machines see them. Ray says which GPUs a task has.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from racer.core.errors import RacerError, UsageError
from racer.distributed.cluster.connection import Cluster, connect
from racer.sweeps.job import Job
from racer.sweeps.launchers.children import LOG_FILE, PARENT, job_command
from racer.sweeps.launchers.outcome import GRACE_SECONDS, Outcome, Settlement
from racer.sweeps.results import finished, job_folder
from racer.training.signals import StopSignals

__all__ = ["launch_on_ray", "run_task"]

_POLL = 0.5


def run_task(command: Sequence[str], log: str, folder: str) -> int:
    """Run a job's command where Ray put it; returns its exit code.

    The job ends in order where this process does, or where the task is cancelled, which Ray tells by SIGINT.
    """
    path = Path(log)
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, PARENT: str(os.getpid())}
    if not environment.get("CUDA_VISIBLE_DEVICES"):
        environment["JAX_PLATFORMS"] = "cpu"
    with path.open("ab") as handle:
        job = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, env=environment, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
        try:
            return job.wait()
        except BaseException:
            job.terminate()
            try:
                job.wait(GRACE_SECONDS)
            finally:
                job.kill()
            raise


class _Tasks:
    """The jobs of a launch that are under way, and those that somebody else runs."""

    def __init__(
        self, ray: Any, task: Any, words: Callable[[int], list[str]], folder: Callable[[int], Path], outcome: Outcome
    ) -> None:
        self._ray, self._task, self._words, self._folder, self._outcome = ray, task, words, folder, outcome
        self._running: dict[Any, int] = {}
        self._settlement = Settlement(outcome)

    def __bool__(self) -> bool:
        return bool(self._running or self._settlement)

    def begin(self, index: int) -> None:
        """Give a job to Ray, which lets it wait until there is room."""
        log = self._folder(index).resolve() / LOG_FILE
        self._running[self._task.remote(self._words(index), str(log), os.getcwd())] = index

    def collect(self) -> None:
        """Wait a moment, and take in what ended; jobs that somebody else ran are asked for again."""
        if self._running:
            done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_POLL)
            for reference in done:
                self._take_in(reference)
        else:
            time.sleep(_POLL)
        for index in self._settlement.due():
            self.begin(index)

    def cancel(self) -> None:
        """Let the jobs that run save and end; those that wait do not begin."""
        for reference in self._running:
            self._ray.cancel(reference)
        self._ray.wait(list(self._running), num_returns=len(self._running), timeout=GRACE_SECONDS + 5.0)
        self._outcome.finished |= {index for index in self._running.values() if finished(self._folder(index))}

    def _take_in(self, reference: Any) -> None:
        index, lost = self._running.pop(reference), ""
        try:
            code = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            # Its machine is gone, or its process was killed: what it had saved is there.
            code, lost = None, f"its Ray task was lost ({type(error).__name__}); run it again to go on"
        self._settlement.settle(index, self._folder(index), code, lost)


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
    """Run jobs as Ray tasks and wait for them; a stop signal lets those that run save, and ends.

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
        UsageError: Ray is not installed, the cluster that RAY_ADDRESS names cannot be joined, or it has no room for a
            job.
        RacerError: the cluster does not answer any more.
    """
    if not (0.0 <= num_gpus < 1.0 or num_gpus in range(1, 1025)):
        raise UsageError(f"--ray_gpus must be a fraction of a GPU, or a whole number of them, got {num_gpus:g}")
    outcome = Outcome({index for index in indices if finished(job_folder(results, jobs[index]))})
    with contextlib.ExitStack() as held, StopSignals() as stop:
        cluster: Cluster | None = None
        if ray is None:
            cluster = held.enter_context(connect("auto" if os.environ.get("RAY_ADDRESS") else "local"))
            ray = cluster.ray
        _check_room(ray, num_cpus, num_gpus)
        tasks = _Tasks(
            ray,
            ray.remote(run_task).options(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=0),
            lambda index: command(manifest.resolve(), index, results.resolve()),
            lambda index: job_folder(results, jobs[index]),
            outcome,
        )
        for index in indices:
            if index not in outcome.finished:
                tasks.begin(index)
        while tasks and not stop.event.is_set():
            if cluster is not None and cluster.lost:
                raise RacerError(f"the Ray cluster at {cluster.address} is lost; run it again to go on")
            tasks.collect()
        if tasks:
            tasks.cancel()
        outcome.exit_code = stop.exit_code or int(bool(outcome.failed))
    return outcome


def _check_room(ray: Any, num_cpus: float, num_gpus: float) -> None:
    """Raise UsageError where a job would wait for ever."""
    has = ray.cluster_resources()
    for name, needed in (("CPU", num_cpus), ("GPU", num_gpus)):
        if needed > has.get(name, 0.0):
            hint = "--ray_gpus 0, or add machines" if name == "GPU" else "add machines"
            raise UsageError(f"a job needs {needed:g} {name}s, and the Ray cluster has {has.get(name, 0):g}; {hint}")
