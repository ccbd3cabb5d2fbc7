"""The results file, a JSON line for each schedule, and the table over it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from racer.core.errors import UsageError, shown
from racer.core.files import parse_json, read_bytes
from racer.faults.kit import KINDS, VERDICTS, Kit
from racer.faults.schedules import CALM, Schedule
from racer.faults.trial import MISSED, SKIPPED, SURVIVED, Outcome

__all__ = ["append", "broken", "read_results", "result_line", "same_schedule", "table"]

_FILE_BYTES = 1 << 28
_NEEDED = {
    "kit": str,
    "seed": int,
    "schedule": dict,
    "verdict": str,
    "findings": list,
    "unbroken": bool,
    "outlived": float,
}
_COLUMNS = ("by itself", "resumed", *VERDICTS, MISSED, SKIPPED)


def result_line(kit: Kit, seed: int, schedule: Schedule, outcome: Outcome) -> dict[str, Any]:
    """Return what is written about a schedule."""
    return {"kit": kit.name, "seed": seed, "schedule": schedule.as_json(), **outcome.as_json()}


def same_schedule(line: Mapping[str, Any], kit: Kit, seed: int, schedule: Schedule) -> bool:
    """Whether a line is about a schedule; a kit that was changed may draw another one under the same number."""
    return (line["kit"], line["seed"], line["schedule"]) == (kit.name, seed, schedule.as_json())


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line in one piece and see that it is on the disk.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, (json.dumps(line, allow_nan=False) + "\n").encode())
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise UsageError(f"results {str(path)!r} cannot be written: {error.strerror or error}") from error


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a results file; none where there is no file.

    Raises:
        UsageError: naming the file and the line that is no result.
    """
    if not os.path.lexists(path):
        return []
    found = []
    for number, raw in enumerate(read_bytes(path, _FILE_BYTES).splitlines(), 1):
        try:
            line = parse_json(raw)
        except ValueError as error:
            raise UsageError(f"results {str(path)!r}, line {number}: {error}") from error
        wrong = [key for key, kind in _NEEDED.items() if not isinstance(line, dict) or type(line.get(key)) is not kind]
        if wrong or line["schedule"].get("kind") not in (*KINDS, CALM):
            raise UsageError(f"results {str(path)!r}, line {number} is no result: {shown(', '.join(wrong) or 'kind')}")
        found.append(line)
    return found


def broken(lines: Sequence[Mapping[str, Any]], kit: Kit) -> list[Mapping[str, Any]]:
    """Return the lines about what a kit's program promises to survive and did not."""
    return [line for line in lines if _claimed_findings(line, kit) and line["schedule"]["kind"] not in kit.not_claimed]


def table(lines: Sequence[Mapping[str, Any]], kit: Kit) -> str:
    """Return a Markdown table: a row for each kind of fault, how many of its schedules ended how.

    A schedule may be in several of the columns of what went wrong. A kind or column of which the kit says that the
    program does not claim it is marked with a star, its reason is below.
    """
    mine = [line for line in lines if line["kit"] == kit.name]
    heads = [f"{name}*" if name in kit.not_claimed else name for name in _COLUMNS]
    rows = [f"| {kit.name}: fault | schedules | {' | '.join(heads)} |", "|---" * (len(_COLUMNS) + 2) + "|"]
    kinds = [kind for kind in (CALM, *KINDS) if any(line["schedule"]["kind"] == kind for line in mine)]
    for kind in kinds:
        of_kind = [line for line in mine if line["schedule"]["kind"] == kind]
        name = f"{kind}*" if kind in kit.not_claimed else kind
        rows.append(_row(name, of_kind))
    rows.append(_row("all", mine))
    longest = max((line["outlived"] for line in mine), default=0.0)
    rows += ["", f"A process outlived its learner by {longest:g} s at the most."]
    reasons = [f"\\* {name}: {reason}" for name, reason in kit.not_claimed.items()]
    return "\n".join([*rows, *(["", *reasons] if reasons else [])])


def _row(name: str, lines: Sequence[Mapping[str, Any]]) -> str:
    survived = [line for line in lines if line["verdict"] == SURVIVED]
    counts = {
        "by itself": sum(line["unbroken"] for line in survived),
        "resumed": sum(not line["unbroken"] for line in survived),
        MISSED: sum(line["verdict"] == MISSED for line in lines),
        SKIPPED: sum(line["verdict"] == SKIPPED for line in lines),
        **{
            verdict: sum(any(pair[0] == verdict for pair in line["findings"]) for line in lines) for verdict in VERDICTS
        },
    }
    cells = [str(counts[column] or "") for column in _COLUMNS]
    return f"| {name} | {len(lines)} | {' | '.join(cells)} |"


def _claimed_findings(line: Mapping[str, Any], kit: Kit) -> bool:
    return any(verdict not in kit.not_claimed for verdict, _ in line["findings"])
