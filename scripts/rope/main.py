"""The study of positional encodings of observed vehicles.

    python scripts/rope/main.py                                       # the pilot of 162 runs, on this machine
    python scripts/rope/main.py --study compare --steps 100000        # five conditions and an anchor, 60 runs an arm
    python scripts/rope/main.py --generate-slurm --slurm-gpus 4 --slurm-partition GPU --slurm-time 48:00:00 \\
        --n-jobs-per-task 64                                          # -> slurm_jobs/experiments_array.slurm
    python scripts/rope/main.py --count                               # rows and distinct trainings of every study

Studies: pilot (162 rows), grid_270, grid_540, compare. The published grids hold rows that are the same training; each
is run once. ``--variant as_run`` encodes positions as the published study did, ``corrected`` (default) as it meant to.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from racer.core.cli import OneLineParser, guarded
from racer.core.errors import UsageError
from racer.networks.encodings import VARIANTS
from racer.sweeps.command import main as sweep
from racer.sweeps.expand import expand
from racer.sweeps.launchers.slurm import SlurmArray, write_array
from racer.sweeps.manifest import plan_jobs, write_manifest
from racer.sweeps.reader import Arguments, HyperFile, Marked, read_hyperfile

STUDIES = ("pilot", "grid_270", "grid_540", "compare")
FILES = Path(__file__).parent / "hyperparams"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=STUDIES, default="pilot")
    parser.add_argument("--variant", choices=VARIANTS, default="corrected", help="how positions are encoded")
    parser.add_argument("--steps", type=int, default=None, help="transitions of every run (default: 243,000)")
    parser.add_argument("--seeds", type=int, default=None, help="of the study compare: runs an arm (default: 60)")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the manifest")
    parser.add_argument("--devices", default="auto", help="auto, cpu, or GPUs by number")
    parser.add_argument("--count", action="store_true", help="print the rows of every study and run nothing")
    parser.add_argument("--plan-only", action="store_true", help="write the manifest and run nothing")
    parser.add_argument("--generate-slurm", action="store_true", help="write a SLURM array and run nothing")
    parser.add_argument("--slurm-gpus", type=int, default=0, help="GPUs of a task")
    parser.add_argument("--slurm-partition", default=None)
    parser.add_argument("--slurm-time", default="24:00:00")
    parser.add_argument("--slurm-cpus", type=int, default=1, help="CPUs of a task")
    parser.add_argument("--slurm-mem", default="1G", help="memory for each GPU, as published; a job here takes 0.9 GiB")
    parser.add_argument("--slurm-max-parallel", type=int, default=None, help="tasks at a time")
    parser.add_argument("--n-jobs-per-task", type=int, default=64, help="jobs that a task runs")
    parser.add_argument("--slurm-output", type=Path, default=Path("slurm_jobs/experiments_array.slurm"))
    return parser.parse_args()


def adjusted(file: HyperFile, arguments: argparse.Namespace) -> HyperFile:
    """Return a study with the command line's steps, seeds and variant."""
    changed = []
    for table in file.args:
        values = dict(table.values)
        if arguments.steps is not None:
            if arguments.steps < 1:
                raise UsageError(f"--steps must be at least 1, not {arguments.steps}")
            values |= {"max_steps": arguments.steps, "eval_interval": max(arguments.steps // 31, 1)}
        if arguments.variant != "corrected":
            values = as_run(values)
        changed.append(Arguments(values, table.lines))
    if arguments.seeds is not None and arguments.study == "compare":
        changed = [found for table in changed if (found := with_seeds(table, arguments.seeds)) is not None]
    return dataclasses.replace(file, args=tuple(changed))


def as_run(values: dict[str, Any]) -> dict[str, Any]:
    """Return a row as it was run: never shuffled, positions measured as they were."""
    values.pop("env.row_order", None)
    encoding = values.get("positional_encoding")
    if isinstance(encoding, Marked):
        items = tuple({**item, "variant": "as_run"} for item in encoding.values)
        values["positional_encoding"] = dataclasses.replace(encoding, values=items)
    elif encoding is not None:
        values["positional_encoding"] = {"kind": encoding, "variant": "as_run"}
    return values


def with_seeds(table: Arguments, count: int) -> Arguments | None:
    """Return a block of seeds cut to those below the first ``count``; None where nothing is left."""
    if not 1 <= count <= 60:
        raise UsageError(f"--seeds must lie in 1 to 60, not {count}")
    seeds = tuple(seed for seed in table.values["seed"].values if seed < 42 + count)
    return Arguments({**table.values, "seed": Marked("vmapped", seeds)}, table.lines) if seeds else None


def counts(arguments: argparse.Namespace) -> None:
    """Print rows and distinct trainings of every study."""
    for study in STUDIES:
        file = adjusted(read_hyperfile(FILES / f"rope_{study}.py"), arguments)
        rows = sum(len(job.settings) * len(job.seeds or (0,)) for job in expand(file))
        jobs = plan_jobs(file)
        runs = sum(len(job.members) for job in jobs)
        print(f"{study}: {rows} rows, {runs} distinct trainings in {len(jobs)} jobs")


def slurm_array(arguments: argparse.Namespace) -> SlurmArray:
    """Return what the command line asks SLURM for."""
    return SlurmArray(
        gpus=arguments.slurm_gpus, partition=arguments.slurm_partition, time=arguments.slurm_time,
        cpus=arguments.slurm_cpus, memory=arguments.slurm_mem, at_once=arguments.slurm_max_parallel,
        jobs_per_task=arguments.n_jobs_per_task,
    )  # fmt: skip


def main() -> int:
    """Plan, and run or write a SLURM array."""
    arguments = parse()
    if arguments.count:
        counts(arguments)
        return 0
    file = adjusted(read_hyperfile(FILES / f"rope_{arguments.study}.py"), arguments)
    suffix = "" if arguments.variant == "corrected" else f"_{arguments.variant}"
    array = slurm_array(arguments) if arguments.generate_slurm else None
    jobs = plan_jobs(file, f"rope_{arguments.study}{suffix}")
    manifest = arguments.runs / f"{jobs[0].study}.jsonl"
    write_manifest(manifest, jobs)
    print(f"{manifest}: {len(jobs)} jobs, {sum(len(job.members) for job in jobs)} runs")
    if array is not None:
        write_array(arguments.slurm_output, array, jobs[0].study, manifest, arguments.results, len(jobs))
        print(f"{arguments.slurm_output}: sbatch {arguments.slurm_output}")
        return 0
    if arguments.plan_only:
        return 0
    os.environ.setdefault("OVERSUB", "1")
    words = ["--manifest", str(manifest), "--results", str(arguments.results), "--devices", arguments.devices]
    return sweep(["run", *words])


if __name__ == "__main__":
    sys.exit(guarded(main))
