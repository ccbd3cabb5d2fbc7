"""Cars that drive as they were recorded, whatever the ego does.

A recording is a CSV file with the columns t (s), id, x, y (m, along and across the road, lane k centred on y = 4 k),
heading (rad) and speed (m/s), a line a car and moment, in any order. Each car's line through its moments is read at the
simulator's 15 Hz, straight between two of them. A trial begins at a moment of the recording that the scene draws, and
the ego takes the place of one of its cars.
"""

from __future__ import annotations

import csv
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.envs.highway.simulator import HighwaySimulator
from racer.envs.highway.simulator import layout as at
from racer.envs.trials.config import TrialsConfig
from racer.envs.trials.population import Population
from racer.envs.trials.scenes import CARS, LANE_WIDTH, PARKED, make_simulator

__all__ = ["COLUMNS", "FRAME", "Recorded", "Tracks", "read_tracks", "record_traffic"]

COLUMNS = ("t", "id", "x", "y", "heading", "speed")

FRAME = 1.0 / 15.0
"""s between two frames of a recording as it is replayed."""

_MOST_LINES = 5_000_000


class Tracks(NamedTuple):
    """A recording at the simulator's rate.

    Attributes:
        places: ``[F, C, 4]``: x, y (m), heading (rad), speed (m/s); NaN where a car is not there.
        ids: ``[C]``, as the file names the cars.
    """

    places: NDArray[np.float64]
    ids: tuple[str, ...]


class Recorded(Population):
    """The replayed cars of N environments.

    Args:
        config: of the world, with a recording.
        num_envs: N.

    Raises:
        UsageError: the file cannot be read, is none of this kind, or too short for a trial.
    """

    moves = True

    def __init__(self, config: TrialsConfig, num_envs: int) -> None:
        path = Path(str(config.recording))
        self.tracks = read_tracks(str(path), _written(path))
        frames, cars, _ = self.tracks.places.shape
        self._needed = 1 + config.length * round(15 / config.policy_frequency)
        there = np.isfinite(self.tracks.places[..., 0])
        # Where an ego may begin: a car that is there for a second at least, with a trial's frames to come.
        self._starts = np.argwhere(there[: max(frames - self._needed + 1, 0)])
        if not len(self._starts):
            raise UsageError(
                f"recording {str(path)!r} has {frames} frames of {cars} cars at 15 Hz, too few for trials of "
                f"{self._needed} frames: record longer or set scenario_length"
            )
        self._whole = {"first": np.zeros(num_envs, np.int64), "cars": np.full((num_envs, CARS), -1, np.int64)}
        self._real = {"shift": np.zeros(num_envs)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {f"recorded/{name}": value for name, value in {**self._whole, **self._real}.items()}

    def limits(self) -> dict[str, tuple[float, float]]:
        frames, cars, _ = self.tracks.places.shape
        return {"recorded/first": (0, frames - self._needed + 1), "recorded/cars": (-1, cars)}

    def begin(self, simulator: HighwaySimulator, index: int, seed: int, trial: int) -> None:
        """Put the cars of a drawn moment around the ego of environment ``index``, whose trial was just begun."""
        rng = np.random.default_rng([seed, 3])
        first, own = self._starts[rng.integers(len(self._starts))]
        now = self.tracks.places[first]
        scene = simulator.scene(index)
        self._whole["first"][index] = first
        self._real["shift"][index] = scene["x"][0] - now[own, 0]
        distance = np.where(np.isfinite(now[:, 0]), np.abs(now[:, 0] - now[own, 0]), np.inf)
        distance[own] = np.inf
        # Those that are yet to come count as far away, so that they are replayed where there is room for them.
        order = np.argsort(distance, kind="stable")
        order = order[order != own][:CARS]
        self._whole["cars"][index] = -1
        self._whole["cars"][index, : len(order)] = order
        lane = float(np.clip(round(now[own, 1] / LANE_WIDTH), 0, 3))
        ego = {"y": lane * LANE_WIDTH, "heading": 0.0, "speed": now[own, 3], "target_lane": lane}
        if math.isfinite(scene["target_speed"][0]):
            ego["target_speed"] = now[own, 3]
        fields = {name: scene[name].copy() for name in ("x", "y", "heading", "speed", "target_speed", "target_lane")}
        for name, value in ego.items():
            fields[name][0] = value
        guard = np.full(CARS + 1, at.REPLAYED)
        guard[0] = at.IDM
        for column, name in enumerate(("x", "y", "heading", "speed")):
            fields[name][1:] = self._places(np.array([index]), np.array([0]))[0, column, 1:]
        simulator.set_scene(index, guard=guard, **fields)

    def move(self, simulator: HighwaySimulator, frames: NDArray[np.int64]) -> None:
        simulator.place(self._places(np.arange(len(frames)), frames))

    def _places(self, envs: NDArray[np.intp], frames: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return places ``[M, 4, 1 + CARS]`` in ``envs`` ``[M]``; the ego's are zero."""
        first, cars = self._whole["first"][envs], self._whole["cars"][envs]
        frame = np.minimum(first + frames, len(self.tracks.places) - 1)
        found = self.tracks.places[frame[:, None], cars].transpose(0, 2, 1)
        found[:, 0] += self._real["shift"][envs][:, None]
        absent = (cars < 0) | ~np.isfinite(found[:, 0])
        parked = PARKED - 20.0 * np.arange(CARS)
        for column, value in enumerate((parked, np.zeros(CARS), np.zeros(CARS), np.zeros(CARS))):
            found[:, column] = np.where(absent, value, found[:, column])
        return np.concatenate([np.zeros((len(envs), 4, 1)), found], axis=2)


@lru_cache(maxsize=4)
def read_tracks(path: str, written: int) -> Tracks:
    """Read a recording; a file that has not changed (``written``, ns) is read once.

    Raises:
        UsageError: it cannot be read, or a line is none of a recording.
    """
    cars: dict[str, list[tuple[float, ...]]] = {}
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UsageError(f"recording {path!r} lacks the column {missing[0]!r}: it needs {', '.join(COLUMNS)}")
            for number, line in enumerate(reader, 2):
                if number > _MOST_LINES:
                    raise UsageError(f"recording {path!r} has more than {_MOST_LINES:,} lines")
                cars.setdefault(str(line["id"]), []).append(_moment(path, number, line))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"recording {path!r} cannot be read: {reason}") from error
    if not cars:
        raise UsageError(f"recording {path!r} has no line")
    return _at_rate(path, cars)


def _moment(path: str, number: int, line: dict[str, Any]) -> tuple[float, ...]:
    try:
        t, x, y, heading, speed = (float(line[name]) for name in COLUMNS if name != "id")
    except (TypeError, ValueError) as error:
        raise UsageError(f"recording {path!r}, line {number}: not five numbers beside the id") from error
    if not all(map(math.isfinite, (t, x, y, heading, speed))) or max(abs(t), abs(x)) > 1e6:
        raise UsageError(f"recording {path!r}, line {number}: numbers that are not finite or beyond 1e6")
    if not -LANE_WIDTH / 2 <= y <= 3.5 * LANE_WIDTH or abs(heading) > math.pi / 2 or abs(speed) > at.MAX_SPEED:
        raise UsageError(
            f"recording {path!r}, line {number}: y = {y:g} m, heading {heading:g} rad, speed {speed:g} m/s; a car "
            "drives on four lanes, y from -2 to 14 m, along them, at 40 m/s at most"
        )
    return t, x, y, heading, speed


def _at_rate(path: str, cars: dict[str, list[tuple[float, ...]]]) -> Tracks:
    moments = {name: np.array(sorted(lines)) for name, lines in cars.items()}
    begin = min(lines[0, 0] for lines in moments.values())
    end = max(lines[-1, 0] for lines in moments.values())
    frames = int((end - begin) / FRAME + 1e-6) + 1
    if frames > 1_000_000 or frames * len(cars) > _MOST_LINES:
        raise UsageError(f"recording {path!r} is {end - begin:g} s of {len(cars)} cars: too much to replay")
    times = begin + FRAME * np.arange(frames)
    places = np.full((frames, len(cars), 4), np.nan)
    for car, (name, lines) in enumerate(moments.items()):
        if (np.diff(lines[:, 0]) <= 0).any():
            raise UsageError(f"recording {path!r}: car {name!r} is in two places at one moment")
        there = (times >= lines[0, 0] - 1e-6) & (times <= lines[-1, 0] + 1e-6)
        for column in range(4):
            places[there, car, column] = np.interp(times[there], lines[:, 0], lines[:, column + 1])
    return Tracks(places, tuple(moments))


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"recording {str(path)!r} cannot be read: {reason}") from error


def record_traffic(path: Path, seconds: float, seed: int) -> int:
    """Write the scene's IDM cars of ``seed`` over ``seconds`` at 15 Hz, without an ego; returns the lines.

    Raises:
        UsageError: the time is not positive, or the file cannot be written.
    """
    if not 0.0 < seconds <= 300.0:
        raise UsageError(f"seconds must be more than 0 and at most 300, got {seconds:g}")
    simulator = make_simulator(TrialsConfig(policy_frequency=5, scenario_length=2), 1)
    simulator.reset([seed])
    scene = simulator.scene(0)
    for name, value in (("x", PARKED), ("speed", 0.0), ("target_speed", 0.0)):
        scene[name][0] = value
    simulator.set_scene(0, x=scene["x"], speed=scene["speed"], target_speed=scene["target_speed"])
    lines: list[str] = [",".join(COLUMNS)]

    def write(frame: int) -> None:
        now = simulator.scene(0)
        for car in range(1, CARS + 1):
            numbers = (now[name][car] for name in ("x", "y", "heading", "speed"))
            lines.append(f"{frame * FRAME:.6f},{car}," + ",".join(f"{number:.6f}" for number in numbers))

    write(0)
    frame = 0
    while frame * FRAME < seconds:
        done = [frame]

        def count(done: list[int] = done) -> None:
            done[0] += 1
            write(done[0])

        simulator.step(np.array([at.IDLE]), count)
        count()
        frame = done[0]
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
    return len(lines) - 1
