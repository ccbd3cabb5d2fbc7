"""``python -m racer faults KIT.yaml``: break an actor-learner program on purpose, and see what is left.

A kit (docs/reliability.md) says what the program's command is, how its processes are recognised and where it keeps its
numbers and checkpoints. Each schedule begins a run, injects one fault of a kind, at a time and into a target drawn from
the seed, lets the run go on or resumes it, and judges what came of it. Schedules that are in the results already are
not run again. Only processes and folders that this command began are touched. Ends with code 1 where something that the
kit's program claims was not kept.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

from racer.core.errors import RacerError, UsageError
from racer.core.run_dir import check_writable
from racer.core.terminal import write_line
from racer.faults.kit import VERDICTS, Kit, load_kit
from racer.faults.results import append, broken, read_results, result_line, same_schedule, table
from racer.faults.schedules import Schedule, calm, draw
from racer.faults.trial import SURVIVED, run_trial

__all__ = ["add_arguments", "faults", "run_schedules"]

_GIVE_UP = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command line of ``faults``."""
    parser.add_argument("kit", metavar="KIT.yaml", help="what is broken, and how")
    parser.add_argument("--schedules", type=int, default=10, help="schedules 1 to this one (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="that they are drawn from (default: 0)")
    parser.add_argument("--results", default=None, help="JSON-lines file (default: faults-<name of the kit>.jsonl)")
    parser.add_argument("--seconds", type=float, default=None, help="begin no schedule after this time")
    parser.add_argument("--cache", default=None, help="folder of the kit's {cache}, kept for the next call")
    parser.add_argument("--keep", default=None, help="a folder for the runs that were not survived")


def faults(arguments: argparse.Namespace) -> list[Path]:
    """Run the schedules that are missing in the results and print the table; returns the results file.

    Raises:
        UsageError: the kit or an argument is wrong.
        RacerError: a run without a fault failed, or a program did not keep what it claims.
    """
    if arguments.schedules < 1:
        raise UsageError(f"--schedules must be at least 1, got {arguments.schedules}")
    if arguments.seed < 0:
        raise UsageError(f"--seed must be at least 0, got {arguments.seed}")
    if arguments.seconds is not None and not arguments.seconds > 0:
        raise UsageError(f"--seconds must be more than 0, got {arguments.seconds}")
    kit = load_kit(Path(arguments.kit))
    path = Path(arguments.results or f"faults-{kit.name}.jsonl")
    check_writable(path.parent, "folder of the results")
    keep = None if arguments.keep is None else check_writable(Path(arguments.keep), "--keep folder")
    cache = None if arguments.cache is None else check_writable(Path(arguments.cache), "--cache folder").resolve()
    lines = read_results(path)
    run_schedules(
        kit, arguments.seed, arguments.schedules, lines, path, seconds=arguments.seconds, keep=keep, cache=cache
    )
    write_line(table(lines, kit))
    bad = broken([line for line in lines if line["kit"] == kit.name], kit)
    if bad:
        numbers = ", ".join(f"{line['schedule']['number']} (seed {line['seed']})" for line in bad[:10])
        raise RacerError(f"{len(bad)} schedules of {kit.name} were not survived: {numbers}; see {path}")
    return [path]


def run_schedules(
    kit: Kit, seed: int, count: int, lines: list[dict[str, Any]], path: Path, *,
    seconds: float | None = None, keep: Path | None = None, cache: Path | None = None,
) -> None:  # fmt: skip
    """Run those of the first ``count`` schedules that ``lines`` does not hold; adds them there and to the file.

    The first run ever of a kit is one without a fault.

    Raises:
        RacerError: that one failed, so the kit does not fit the program; or runs in a row failed before their fault, so
            that something else is broken.
    """
    start, failed_before = time.monotonic(), 0
    with contextlib.ExitStack() as held:
        if cache is None:
            cache = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="racer-faults-cache-")))
        for schedule in [calm(), *(draw(kit, seed, number) for number in range(1, count + 1))]:
            if any(same_schedule(line, kit, seed, schedule) for line in lines):
                continue
            if seconds is not None and time.monotonic() - start >= seconds:
                write_line(f"{seconds:g} s are over: go on with the same command")
                break
            outcome = run_trial(kit, schedule, cache, keep)
            line = result_line(kit, seed, schedule, outcome)
            if not schedule.number and outcome.verdict != SURVIVED:
                raise RacerError(f"{kit.name} fails without any fault: {_sentence(line)}")
            append(path, line)
            lines.append(line)
            write_line(f"{_name(schedule)}: {outcome.verdict}, {outcome.seconds:.0f} s{_sentence(line, ': ')}")
            failed_before = failed_before + 1 if outcome.failed_before else 0
            if failed_before == _GIVE_UP:
                raise RacerError(
                    f"{_GIVE_UP} runs of {kit.name} in a row failed before anything was done to them, the last:"
                    f"{_sentence(line, ' ')}; see to that, delete their lines from {path}, and go on"
                )


def _name(schedule: Schedule) -> str:
    when = "" if not schedule.number else " early" if schedule.at is None else f" at {schedule.at:.0%}"
    return f"{schedule.number:4d} {schedule.kind}{when}"


def _sentence(line: dict[str, Any], before: str = "") -> str:
    """Return what was found, or else how the run ended."""
    texts = [text for verdict, text in line["findings"] if verdict in VERDICTS]
    if line["note"]:
        texts.append(line["note"])
    return f"{before}{'; '.join(texts)}" if texts else ""
