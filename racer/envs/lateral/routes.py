"""Routes: what the car does but for its steering, as CSV files in the official form, in a folder or in memory."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError, shown
from racer.core.files import read_bytes, replace_file
from racer.envs.lateral.rules import CONTEXT, FIRST_STEP, GRAVITY

__all__ = [
    "COLUMNS",
    "SPLITS",
    "Route",
    "RouteFolder",
    "Routes",
    "file_split",
    "read_route",
    "route_files",
    "write_route",
]

COLUMNS = ("t", "vEgo", "aEgo", "roll", "targetLateralAcceleration", "steerCommand")
SPLITS = ("train", "validation", "test", "all")
"""Shares of the routes, which have none in common; "all" is their union, of files only."""

MIN_ROWS = FIRST_STEP + 2
"""A cost needs two controlled steps."""

_MAX_ROWS = 100_000
_MAX_BYTES = 1 << 25
_LIMITS = {"t": 1e9, "vEgo": 200.0, "aEgo": 100.0, "roll": math.pi, "targetLateralAcceleration": 100.0,
           "steerCommand": 100.0}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Route:
    """One route at 10 Hz.

    Attributes:
        name: of the file, without its folder.
        table: ``[T, 6]`` float64, the columns of :data:`COLUMNS`; ``steerCommand`` is NaN where it is blank.
    """

    name: str
    table: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def speed(self) -> NDArray[np.float64]:
        """Forward speed (m/s), ``[T]``."""
        return self.table[:, 1]

    @property
    def acceleration(self) -> NDArray[np.float64]:
        """Forward acceleration (m/s^2), ``[T]``."""
        return self.table[:, 2]

    @property
    def roll_lataccel(self) -> NDArray[np.float64]:
        """Lateral acceleration that the road's roll causes (m/s^2), ``[T]``."""
        return np.sin(self.table[:, 3]) * GRAVITY

    @property
    def target(self) -> NDArray[np.float64]:
        """Lateral acceleration that is asked for (m/s^2), ``[T]``."""
        return self.table[:, 4]

    @property
    def steer(self) -> NDArray[np.float64]:
        """The logged steer in the plant's sign (a file's is left-positive), ``[T]``; NaN where none was logged."""
        return -self.table[:, 5]


class Routes(Protocol):
    """Routes by number."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, number: int) -> Route:
        """Return one of them; the same number is the same route."""
        ...


def read_route(path: Path | str) -> Route:
    """Read a route file.

    Raises:
        UsageError: the file cannot be read or is malformed; the message names it, the line and the column.
    """
    name = shown(str(path))
    try:
        text = read_bytes(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"route {name} is not text: byte {error.start} is no UTF-8") from error
    lines = csv.reader(io.StringIO(text))
    try:
        header = [column.strip() for column in next(lines, [])]
        if tuple(header) != COLUMNS:
            missing = [column for column in COLUMNS if column not in header]
            what = f"lacks column {missing[0]!r}" if missing else "has its columns in another order"
            raise UsageError(f"route {name}, line 1: the header must be {','.join(COLUMNS)}; it {what}")
        rows = [
            _row(name, lines.line_num, number, cells)
            for number, cells in enumerate(cells for cells in lines if cells)
            if number < _MAX_ROWS or _too_long(name)
        ]
    except csv.Error as error:
        raise UsageError(f"route {name}, line {lines.line_num}: {error}") from error
    if len(rows) < MIN_ROWS:
        raise UsageError(f"route {name} has {len(rows)} rows, fewer than {MIN_ROWS}: nothing of it would be controlled")
    return Route(os.path.basename(path), np.array(rows, np.float64))


def write_route(path: Path, route: Route) -> None:
    """Write a route in the official form; :func:`read_route` gives the same numbers back."""
    lines = [",".join(COLUMNS)]
    for row in route.table.tolist():
        lines.append(",".join("" if math.isnan(value) else repr(value) for value in row))
    replace_file(path, ("\n".join(lines) + "\n").encode())


def route_files(folder: Path | str) -> list[Path]:
    """Return the CSV files of a folder, sorted by name.

    Raises:
        UsageError: there is no such folder, or no CSV file in it.
    """
    found = Path(folder)
    if not found.is_dir():
        raise UsageError(f"there is no folder of routes at {shown(str(folder))}")
    files = sorted(path for path in found.iterdir() if path.suffix == ".csv")
    if not files:
        raise UsageError(f"folder {shown(str(folder))} holds no routes: its CSV files are 0")
    return files


def file_split(name: str) -> str:
    """Return the split of a route file by its name: 8 of 10 are for training, 1 each for validation and test."""
    tenth = int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16) % 10
    return {8: "validation", 9: "test"}.get(tenth, "train")


class RouteFolder:
    """The route files of a folder that belong to a split, all of them read and checked.

    Raises:
        UsageError: no folder, no file of that split, or a malformed file.
    """

    def __init__(self, folder: Path | str, split: str = "all") -> None:
        files = route_files(folder)
        chosen = [path for path in files if split in ("all", file_split(path.name))]
        if not chosen:
            raise UsageError(
                f"none of the {len(files)} routes in {shown(str(folder))} belongs to the split {split!r}; "
                "take more routes or the split 'all'"
            )
        self._routes = [read_route(path) for path in chosen]

    def __len__(self) -> int:
        return len(self._routes)

    def __getitem__(self, number: int) -> Route:
        return self._routes[number]


def _row(name: str, line: int, number: int, cells: list[str]) -> list[float]:
    if len(cells) != len(COLUMNS):
        raise UsageError(f"route {name}, line {line} (row {number}): {len(cells)} columns instead of {len(COLUMNS)}")
    return [_number(name, line, number, *pair) for pair in zip(COLUMNS, cells, strict=True)]


def _number(name: str, line: int, number: int, column: str, cell: str) -> float:
    where = f"route {name}, line {line} (row {number}), column {column!r}"
    text = cell.strip()
    if column == "steerCommand" and number >= FIRST_STEP and text.lower() in ("", "nan"):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where}: {shown(cell)} is not a finite number")
    if abs(value) > _LIMITS[column]:
        raise UsageError(f"{where}: {shown(cell)} is out of range, at most {_LIMITS[column]:g} is possible")
    return value


def _too_long(name: str) -> bool:
    raise UsageError(f"route {name} has more than {_MAX_ROWS} rows")


assert CONTEXT < FIRST_STEP < MIN_ROWS
