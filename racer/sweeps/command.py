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
from typing import NoReturn

from racer.core.errors import UsageError, unknown_name

__all__ = ["main"]

DEFAULT_RESULTS = "results"


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage, so that wrong input is one line like everywhere else."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def main(words: Sequence[str]) -> int:
    """Run what the words after ``sweep`` say; returns the exit code."""
    if words and words[0] == "job":
        return _job(words[1:])
    parser = _Parser(prog="python -m racer sweep", description=__doc__, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for name, (define, function, sentence) in _COMMANDS.items():
        command = commands.add_parser(name, help=sentence, description=sentence, allow_abbrev=False)
        define(command)
        command.set_defaults(call=function)
    commands.add_parser("job", help="run the one job that the following --key value ... describe")
    if words and not words[0].startswith("-") and words[0] not in _COMMANDS:
        raise unknown_name("command of sweep", words[0], [*_COMMANDS, "job"])
    known, unknown = parser.parse_known_args(list(words))
    if unknown:
        raise UsageError(f"unknown argument {unknown[0]!r} of sweep {words[0]}; see --help")
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


def _run(arguments: argparse.Namespace) -> int:
    from racer.sweeps.execute import execute
    from racer.sweeps.manifest import one_job, read_manifest

    jobs = read_manifest(arguments.manifest)
    if arguments.index is not None:
        return execute(one_job(jobs, arguments.index, arguments.manifest), arguments.results)
    return next((code for job in jobs if (code := execute(job, arguments.results)) != 0), 0)


_Define = Callable[[argparse.ArgumentParser], None]
_COMMANDS: dict[str, tuple[_Define, Callable[[argparse.Namespace], int], str]] = {
    "plan": (_define_plan, _plan, "write the list of jobs of a hyperparameter file"),
    "run": (_define_run, _run, "run the jobs of a list, or one of them"),
}
