"""What a job leaves behind, and what a study's table is made of.

``<results>/<study>/<job id>/`` holds ``config.json`` (the job, as in the manifest), ``members/<k>/`` (a run folder
each: ``run.json``, ``metrics.jsonl``, checkpoints), ``metrics.parquet`` (long: member, step, metric, value) and, last,
``DONE`` with the table's sum. Nothing counts without it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from racer.core.errors import UsageError
from racer.core.files import open_regular, read_json, replace_file, write_json
from racer.sweeps.job import Job, Member, job_from_record

__all__ = [
    "Row",
    "Table",
    "finished",
    "job_folder",
    "member_folder",
    "need_pyarrow",
    "read_table",
    "summarise",
    "write_results",
    "write_summary",
]

CONFIG_FILE, TABLE_FILE, DONE_FILE, SUMMARY_FILE = "config.json", "metrics.parquet", "DONE", "summary.csv"

_TABLE_BYTES = 1 << 32
_SCHEMA = {
    "member": "int32", "setting": "int32", "seed": "int64", "step": "int64", "metric": "string", "value": "float64",
}  # fmt: skip


class Row(NamedTuple):
    """One number of one member."""

    member: Member
    step: int
    metric: str
    value: float


@dataclass(frozen=True)
class Table:
    """A job's numbers, column by column, ``[R]`` each."""

    member: np.ndarray
    step: np.ndarray
    metric: np.ndarray
    value: np.ndarray

    def series(self, member: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps and values of a metric of a member, ``[P]`` each, in order."""
        rows = (self.member == member) & (self.metric == metric)
        order = np.argsort(self.step[rows], kind="stable")
        return self.step[rows][order], self.value[rows][order]

    def of(self, member: int) -> list[tuple[int, str, float]]:
        """Return a member's rows, sorted."""
        rows = np.flatnonzero(self.member == member)
        return sorted((int(self.step[i]), str(self.metric[i]), float(self.value[i])) for i in rows)


def need_pyarrow() -> Any:
    """Return pyarrow.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("sweeps write Parquet tables: pip install -e '.[sweeps]'") from error
    return pyarrow


def job_folder(results: Path, job: Job) -> Path:
    """Return where a job's results lie."""
    return results / job.study / job.id


def member_folder(folder: Path, member: Member) -> Path:
    """Return a member's run folder."""
    return folder / "members" / f"{member.index:04d}"


def finished(folder: Path) -> bool:
    """Return whether a job's results are whole, by its last file."""
    return (folder / DONE_FILE).is_file() and (folder / TABLE_FILE).is_file()


def write_results(folder: Path, job: Job, rows: Sequence[Row]) -> None:
    """Write a job's table, then ``DONE``."""
    pyarrow = need_pyarrow()
    columns = {
        "member": [row.member.index for row in rows], "setting": [row.member.setting for row in rows],
        "seed": [row.member.seed for row in rows], "step": [row.step for row in rows],
        "metric": [row.metric for row in rows], "value": [row.value for row in rows],
    }  # fmt: skip
    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in _SCHEMA.items()])
    table = pyarrow.table(columns, schema=schema)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    data = buffer.getvalue()
    replace_file(folder / TABLE_FILE, data)
    write_json(folder / DONE_FILE, {"id": job.id, "rows": len(rows), "sha256": hashlib.sha256(data).hexdigest()})


def read_table(folder: Path) -> Table:
    """Read a finished job's table.

    Raises:
        UsageError: the table is missing, damaged, or none of ours.
    """
    pyarrow = need_pyarrow()
    path = folder / TABLE_FILE
    with open_regular(path, _TABLE_BYTES) as (file, _):
        data = file.read()
    done = read_json(folder / DONE_FILE, 1 << 16)
    if not isinstance(done, dict) or done.get("sha256") != hashlib.sha256(data).hexdigest():
        raise UsageError(f"{str(path)!r} is not what its job wrote, its sum differs: delete the folder, run it again")
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as a table: {' '.join(str(error).split())}") from error
    if {field.name: str(field.type).replace("double", "float64") for field in table.schema} != _SCHEMA:
        raise UsageError(f"{str(path)!r} has other columns than {', '.join(_SCHEMA)}")
    return Table(*(table[name].to_numpy() for name in ("member", "step", "metric", "value")))


def read_job(folder: Path) -> Job:
    """Read the job that a result folder is of.

    Raises:
        UsageError: there is none, or it is malformed.
    """
    path = folder / CONFIG_FILE
    return job_from_record(read_json(path), str(path))


def finals(table: Table, member: Member) -> dict[str, float]:
    """Return the last value of every metric of a member."""
    found: dict[str, float] = {}
    rows = np.flatnonzero(table.member == member.index)
    for i in rows[np.argsort(table.step[rows], kind="stable")]:
        found[str(table.metric[i])] = float(table.value[i])
    return found


def summarise(jobs: Iterable[tuple[Job, Table]]) -> list[dict[str, Any]]:
    """Return a row for every member: what it was trained with, and the last of every metric."""
    rows = []
    for job, table in jobs:
        config = job.config
        for member in job.members:
            keys = {**config["agent_config"], **config["settings"][member.setting]}
            row = {
                "job": job.id, "member": member.index, "study": job.study, "code_version": job.code_version,
                "agent": config["agent"], "world": config["world"], "setting": member.setting, "seed": member.seed,
            }  # fmt: skip
            row |= {f"arg.{key}": value for key, value in job.values(member).items()}
            row |= keys | {f"env.{key}": value for key, value in config["env"].items()} | config["options"]
            rows.append(row | finals(table, member))
    return rows


def write_summary(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV with all their columns; the file is replaced at once."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    replace_file(path, text.getvalue().encode())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return json.dumps(value) if isinstance(value, dict | list | tuple | bool) else str(value)


def study_jobs(folder: Path) -> list[Path]:
    """Return the job folders of a study, sorted by name.

    Raises:
        UsageError: there is no such folder, or no job in it.
    """
    if not os.path.isdir(folder):
        raise UsageError(f"there is no study at {str(folder)!r}")
    found = sorted(path for path in folder.iterdir() if (path / CONFIG_FILE).is_file())
    if not found:
        raise UsageError(f"study {str(folder)!r} holds no jobs yet")
    return found
