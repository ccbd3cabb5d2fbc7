"""Sweeps: many trainings from one file, on this machine or on a cluster.

    python -m racer sweep plan scripts/hyperparams/tmaze/tmaze_10_ppo.py     # -> runs/tmaze_10_ppo.jsonl
    python -m racer sweep run --manifest runs/tmaze_10_ppo.jsonl             # all jobs, on this machine's devices
    python -m racer sweep run --manifest runs/tmaze_10_ppo.jsonl --index 3   # one job, as every launcher runs it
    python -m racer sweep status --manifest runs/tmaze_10_ppo.jsonl
    python -m racer sweep analyse --manifest runs/tmaze_10_ppo.jsonl --by lr
    python -m racer sweep verify --manifest runs/tmaze_10_ppo.jsonl --rows 5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from racer.core.cli import EXIT_USAGE, OneLineParser
from racer.core.errors import UsageError, shown, unknown_name

if TYPE_CHECKING:
    from racer.sweeps.job import Job

__all__ = ["main"]

DEFAULT_RESULTS = "results"


def main(words: Sequence[str]) -> int:
    """Run what the words after ``sweep`` say; returns the exit code."""
    if words and words[0] == "job":
        return _job(words[1:])
    parser = OneLineParser(prog="python -m racer sweep", description=__doc__, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=OneLineParser)
    for name, (define, function, sentence) in _COMMANDS.items():
        command = commands.add_parser(name, help=sentence, description=sentence, allow_abbrev=False)
        define(command)
        command.set_defaults(call=function)
    commands.add_parser("job", help="run the one job that the following --key value ... describe")
    if not words:
        sys.stdout.write(parser.format_help())
        return EXIT_USAGE
    if not words[0].startswith("-") and words[0] not in _COMMANDS:
        raise unknown_name("command of sweep", words[0], [*_COMMANDS, "job"])
    known, unknown = parser.parse_known_args(list(words))
    if unknown:
        flag = unknown[0].split("=")[0]
        if not flag.startswith("-"):
            raise UsageError(f"unexpected argument {shown(unknown[0])} of sweep {words[0]}; see --help")
        options = [option for action in commands.choices[words[0]]._actions for option in action.option_strings]
        raise unknown_name(f"flag of sweep {words[0]}", flag, options)
    call: Callable[[argparse.Namespace], int] = known.call
    return call(known)


def _job(words: Sequence[str]) -> int:
    """Run the job of a list that :func:`racer.sweeps.commands.command_lines` wrote."""
    from racer.sweeps.commands import file_from_words, study_of
    from racer.sweeps.execute import execute
    from racer.sweeps.manifest import plan_jobs

    if "--help" in words or not words:
        sys.stdout.write("usage: python -m racer sweep job --key value ... [--study_name NAME] [--results FOLDER]\n")
        return 0
    file = file_from_words(words)
    values = file.args[0].values
    results = values.pop("results", DEFAULT_RESULTS)
    jobs = plan_jobs(file, study_of(words))
    return next((code for job in jobs if (code := execute(job, Path(str(results)))) != 0), 0)


def _define_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="hyperparameter file")
    parser.add_argument("--study_name", default=None, help="name of the study (default: the file's)")
    parser.add_argument("--output", type=Path, default=None, help="manifest (default: runs/<study>.jsonl)")


def _plan(arguments: argparse.Namespace) -> int:
    from racer.sweeps.manifest import plan_jobs, write_manifest
    from racer.sweeps.reader import read_hyperfile

    jobs = plan_jobs(read_hyperfile(arguments.file), arguments.study_name)
    path = arguments.output or Path("runs") / f"{jobs[0].study}.jsonl"
    write_manifest(path, jobs)
    members = sum(len(job.members) for job in jobs)
    sys.stdout.write(f"{path}: {len(jobs)} jobs, {members} members\n")
    return 0


def _define_manifest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--manifest", type=Path, required=True, help="list of jobs that plan wrote")
    parser.add_argument("--results", type=Path, default=Path(DEFAULT_RESULTS), help="folder of all studies' results")


def _define_run(parser: argparse.ArgumentParser) -> None:
    _define_manifest(parser)
    parser.add_argument("--index", type=int, default=None, help="run this job alone, in this process")
    parser.add_argument("--launcher", choices=("local", "ray"), default="local", help="who runs the jobs")
    parser.add_argument("--devices", default="auto", help="auto, cpu, or GPUs by number, as 0,1,2,3 (default: auto)")
    parser.add_argument("--oversub", type=int, default=None,
                        help="jobs that share a device (default: the environment variable OVERSUB, or 1)")  # fmt: skip
    parser.add_argument("--ray_gpus", type=float, default=0.0, help="GPUs that a Ray task reserves (default: 0)")
    parser.add_argument("--part", type=int, default=None, help="run only this part of the list, of --part_size jobs")
    parser.add_argument("--part_size", type=int, default=64, help="jobs of a part (default: 64)")
    parser.add_argument("--early_by", default=None, metavar="KEY",
                        help="stop arms of this key, as tag.arm, once a paired interval separates them")  # fmt: skip
    parser.add_argument("--early_metric", default="final/return", help="metric that decides (default: final/return)")
    parser.add_argument("--early_pairs", type=int, default=10, help="pairs needed to decide (default: 10)")


def _run(arguments: argparse.Namespace) -> int:
    from racer.sweeps.execute import execute
    from racer.sweeps.launchers.children import die_with_parent
    from racer.sweeps.manifest import one_job, read_manifest

    if arguments.index is not None:
        die_with_parent()
    jobs = read_manifest(arguments.manifest)
    if arguments.index is not None:
        return execute(one_job(jobs, arguments.index, arguments.manifest), arguments.results)
    return _run_all(arguments, jobs)


def _run_all(arguments: argparse.Namespace, jobs: Sequence[Job]) -> int:
    from racer.core.files import read_bytes, replace_file
    from racer.core.run_dir import check_writable
    from racer.sweeps.early import EarlyDecision
    from racer.sweeps.launchers.devices import find_devices, oversubscription
    from racer.sweeps.launchers.local import Launch, launch
    from racer.sweeps.manifest import check_version
    from racer.sweeps.results import need_pyarrow
    from racer.sweeps.study import MANIFEST_FILE

    need_pyarrow()
    _check_launcher(arguments)
    check_version(jobs[0])
    indices = _part(arguments, len(jobs))
    folder = check_writable(arguments.results / jobs[0].study, "results folder")
    replace_file(folder / MANIFEST_FILE, read_bytes(arguments.manifest, 1 << 28))
    decide = None
    if arguments.early_by is not None:
        decide = EarlyDecision(
            jobs, arguments.results, arguments.early_by, arguments.early_metric, arguments.early_pairs
        )
    if arguments.launcher == "ray":
        from racer.sweeps.launchers.ray_tasks import launch_on_ray

        outcome = launch_on_ray(
            arguments.manifest, jobs, arguments.results, indices, num_gpus=arguments.ray_gpus
        )
    else:
        pool = find_devices(arguments.devices, oversubscription(arguments.oversub))
        plan = Launch(arguments.manifest, jobs, arguments.results, pool, indices, decide=decide)
        outcome = launch(plan)
    _write_summary(jobs, arguments.results)
    sys.stdout.write(f"{len(outcome.finished)} of {len(indices)} jobs are finished in {folder}\n")
    for index, line in outcome.failed.items():
        sys.stdout.write(f"job {index} ({jobs[index].id}) failed: {line}\n")
    for index, reason in outcome.skipped.items():
        sys.stdout.write(f"job {index} ({jobs[index].id}) was not run: {reason}\n")
    return outcome.exit_code


def _check_launcher(arguments: argparse.Namespace) -> None:
    """Raise UsageError where a flag is given that the launcher would not look at."""
    if arguments.launcher == "ray":
        local = {"early_by": None, "oversub": None, "devices": "auto"}
        for name in [name for name, default in local.items() if getattr(arguments, name) != default]:
            raise UsageError(f"--{name} is of --launcher local; Ray gives each job a CPU and --ray_gpus")
    elif arguments.ray_gpus:
        raise UsageError("--ray_gpus is of --launcher ray")


def _part(arguments: argparse.Namespace, count: int) -> list[int]:
    if arguments.part is None:
        return list(range(count))
    if arguments.part_size < 1 or not 0 <= arguments.part * arguments.part_size < count:
        parts = -(-count // max(arguments.part_size, 1))
        raise UsageError(f"--part {arguments.part} of {arguments.part_size} jobs is none of parts 0 to {parts - 1}")
    first = arguments.part * arguments.part_size
    return list(range(first, min(first + arguments.part_size, count)))


def _write_summary(jobs: Sequence[Job], results: Path) -> Path:
    from racer.sweeps.results import SUMMARY_FILE, finished, job_folder, read_table, summarise, write_summary

    folders = [(job, job_folder(results, job)) for job in jobs]
    path = results / jobs[0].study / SUMMARY_FILE
    write_summary(path, summarise((job, read_table(folder)) for job, folder in folders if finished(folder)))
    return path


def _status(arguments: argparse.Namespace) -> int:
    from racer.sweeps.manifest import read_manifest
    from racer.sweeps.study import state_of

    jobs = read_manifest(arguments.manifest)
    counts: dict[str, int] = {}
    for index, job in enumerate(jobs):
        state, words = state_of(job, arguments.results)
        counts[state] = counts.get(state, 0) + 1
        if state not in ("finished", "waiting"):
            sys.stdout.write(f"job {index} ({job.id}): {state} {words}\n")
    total = ", ".join(f"{count} {state}" for state, count in counts.items())
    sys.stdout.write(f"{jobs[0].study}: {len(jobs)} jobs, {total}\n")
    return 0


def _define_analyse(parser: argparse.ArgumentParser) -> None:
    _define_manifest(parser)
    parser.add_argument("--metric", default="final/return", help="last value of this metric (default: final/return)")
    parser.add_argument("--by", nargs="*", default=None, help="keys, or columns of summary.csv (default: what varies)")
    parser.add_argument("--compare", default=None, metavar="KEY", help="compare the arms of this key, paired by seed")
    parser.add_argument("--select_seeds", type=int, nargs="*", default=None,
                        help="seeds by which the best setting is chosen; the others report it")  # fmt: skip
    parser.add_argument("--figure", type=Path, default=None, help="draw learning curves with intervals to this PNG")
    parser.add_argument("--curve", default="training/return", help="metric of the figure (default: training/return)")
    parser.add_argument("--allow_missing", action="store_true", help="go on without jobs that are not finished")
    parser.add_argument("--any_version", action="store_true", help="take results of another version of the code")


def _analyse(arguments: argparse.Namespace) -> int:
    from racer.sweeps.analysis.report import report
    from racer.sweeps.manifest import read_manifest
    from racer.sweeps.study import load_study

    study = load_study(read_manifest(arguments.manifest), arguments.results,
                       allow_missing=arguments.allow_missing, any_version=arguments.any_version)  # fmt: skip
    sys.stdout.write(report(study, arguments.metric, arguments.by, arguments.compare, arguments.select_seeds) + "\n")
    sys.stdout.write(f"{_write_summary(study.jobs, arguments.results)}\n")
    if arguments.figure is not None:
        from racer.sweeps.analysis.figures import draw_curves

        draw_curves(study, arguments.curve, arguments.by, arguments.figure)
        sys.stdout.write(f"{arguments.figure}\n")
    return 0


def _define_verify(parser: argparse.ArgumentParser) -> None:
    _define_manifest(parser)
    parser.add_argument("--rows", type=int, default=5, help="members to train again (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of the rows (default: 0)")


def _verify(arguments: argparse.Namespace) -> int:
    from racer.sweeps.manifest import check_version, read_manifest
    from racer.sweeps.study import load_study, verify_rows

    if arguments.rows < 1:
        raise UsageError(f"--rows must be at least 1, not {arguments.rows}")
    jobs = read_manifest(arguments.manifest)
    check_version(jobs[0])
    study = load_study(jobs, arguments.results, allow_missing=True)
    found = verify_rows(study, arguments.rows, arguments.seed)
    for job, member, difference in found:
        words = difference or "equal bit for bit"
        sys.stdout.write(f"job {job.id} member {member.index} (seed {member.seed}): {words}\n")
    wrong = sum(bool(difference) for _, _, difference in found)
    sys.stdout.write(f"{len(found) - wrong} of {len(found)} rows are what their jobs give again\n")
    return int(wrong > 0)


def _define_slurm(parser: argparse.ArgumentParser) -> None:
    import dataclasses

    from racer.sweeps.launchers.slurm import SlurmArray

    _define_manifest(parser)
    parser.add_argument("--output", type=Path, default=None, help="script (default: slurm_jobs/<study>.slurm)")
    for field in dataclasses.fields(SlurmArray):
        kind: Callable[[str], object] = int if "int" in str(field.type) else str
        kind = _or_none(kind) if "None" in str(field.type) else kind
        words = f"{field.metadata['doc']} (default: {field.default})"
        parser.add_argument(f"--{field.name}", type=kind, default=field.default, help=words)


def _or_none(kind: Callable[[str], object]) -> Callable[[str], object]:
    """Return a reader of ``kind``, or of the word None."""

    def read(text: str) -> object:
        return None if text.lower() == "none" else kind(text)

    read.__name__ = f"{kind.__name__} or None"  # as a wrong value's message says it
    return read


def _slurm(arguments: argparse.Namespace) -> int:
    import dataclasses

    from racer.sweeps.launchers.slurm import SlurmArray, write_array
    from racer.sweeps.manifest import read_manifest

    jobs = read_manifest(arguments.manifest)
    array = SlurmArray(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(SlurmArray)})
    path = arguments.output or Path("slurm_jobs") / f"{jobs[0].study}.slurm"
    write_array(path, array, jobs[0].study, arguments.manifest, arguments.results, len(jobs))
    sys.stdout.write(f"{path}: sbatch {path}\n")
    return 0


_Define = Callable[[argparse.ArgumentParser], None]
_COMMANDS: dict[str, tuple[_Define, Callable[[argparse.Namespace], int], str]] = {
    "plan": (_define_plan, _plan, "write the list of jobs of a hyperparameter file"),
    "run": (_define_run, _run, "run the jobs of a list, or one of them"),
    "slurm": (_define_slurm, _slurm, "write a SLURM array over the jobs of a list"),
    "status": (_define_manifest, _status, "say how far the jobs of a list are"),
    "analyse": (_define_analyse, _analyse, "print tables of a study's results, with intervals"),
    "verify": (_define_verify, _verify, "train some rows of the results again and compare them bit for bit"),
}
