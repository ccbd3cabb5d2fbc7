"""Route files, their errors, the generator and its splits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.lateral.generator import ROWS, GeneratedRoutes, generate_route, steady_gain
from racer.envs.lateral.routes import RouteFolder, file_split, read_route, write_route

SCRIPT = Path(__file__).parents[3] / "scripts" / "lateral" / "routes.py"
HEADER = "t,vEgo,aEgo,roll,targetLateralAcceleration,steerCommand"


def write(path, edit=lambda lines: lines, rows=120):
    lines = [HEADER]
    for i in range(rows):
        steer = "" if i >= 100 else "0.25"
        lines.append(f"{i / 10:.1f},20.0,0.1,0.01,{0.01 * i!r},{steer}")
    path.write_text("\n".join(edit(lines)) + "\n")
    return path


def test_a_file_is_read_in_the_plants_sign(tmp_path):
    route = read_route(write(tmp_path / "00000.csv"))
    assert len(route) == 120
    assert route.name == "00000.csv"
    np.testing.assert_array_equal(route.target, [0.01 * i for i in range(120)])
    np.testing.assert_array_equal(route.steer[:100], -0.25)
    assert np.isnan(route.steer[100:]).all()
    np.testing.assert_allclose(route.roll_lataccel, 9.81 * np.sin(0.01))


def replaced(line, column, text):
    def edit(lines):
        cells = lines[line - 1].split(",")
        cells[column] = text
        return [*lines[: line - 1], ",".join(cells), *lines[line:]]

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (replaced(19, 3, "nan"), r"a.csv', line 19 \(row 17\), column 'roll': 'nan' is not a finite number"),
        (replaced(5, 1, "fast"), r"line 5 \(row 3\), column 'vEgo': 'fast' is not a finite number"),
        (replaced(101, 5, ""), r"line 101 \(row 99\), column 'steerCommand': '' is not a finite number"),
        (replaced(8, 4, "1e30"), r"line 8 \(row 6\), column 'targetLateralAcceleration': '1e30' is out of range"),
        (lambda lines: [*lines[:40], "1,2,3", *lines[40:]], r"line 41 \(row 39\): 3 columns instead of 6"),
        (lambda lines: lines[:60], "59 rows, fewer than 102"),
        (lambda lines: [lines[0].replace("roll,", ""), *lines[1:]], "line 1: .* it lacks column 'roll'"),
        (lambda lines: [], "line 1: the header must be t,vEgo"),
    ],
)
def test_a_malformed_file_is_named_with_row_and_column(tmp_path, edit, message):
    with pytest.raises(UsageError, match=message):
        read_route(write(tmp_path / "a.csv", edit))


def test_a_route_survives_its_file(tmp_path):
    route = generate_route(3, "train", 17)
    write_route(tmp_path / route.name, route)
    np.testing.assert_array_equal(read_route(tmp_path / route.name).table, route.table)


def test_generated_routes_are_repeatable_and_their_splits_differ():
    np.testing.assert_array_equal(generate_route(0, "test", 5).table, GeneratedRoutes(0, "test")[5].table)
    tables = [generate_route(seed, split, 5).table for seed in (0, 1) for split in ("train", "validation", "test")]
    for i, one in enumerate(tables):
        for other in tables[:i]:
            assert not np.isclose(one[:, 4], other[:, 4]).all()


def test_generated_routes_are_those_of_the_specification():
    routes = [generate_route(0, "validation", i) for i in range(300)]
    assert all(len(route) == ROWS and np.abs(route.target).max() <= 4.9 for route in routes)
    speeds = np.array([route.speed.mean() for route in routes])
    # 0.6 * 30 + 0.4 * 18 = 25.2, standard deviation of the mixture 7.7.
    assert abs(speeds.mean() - 25.2) < 4 * 7.7 / np.sqrt(300)
    rolls = np.concatenate([route.table[:, 3] for route in routes])
    assert abs(rolls.std() - np.hypot(0.012, 0.018)) < 0.002
    route = routes[7]
    settled = steady_gain(route.speed) * route.steer + route.roll_lataccel
    np.testing.assert_allclose(settled[:100], route.target[:100])
    changes = np.concatenate([np.diff(route.speed) / 0.1 - route.acceleration[1:] for route in routes[:20]])
    assert np.median(np.abs(changes)) < 1e-9


def test_a_folder_is_split_by_the_names_of_its_files(tmp_path):
    for number in range(40):
        write(tmp_path / f"{number:05d}.csv")
    parts = {split: RouteFolder(tmp_path, split) for split in ("train", "validation", "test", "all")}
    names = {split: {routes[i].name for i in range(len(routes))} for split, routes in parts.items()}
    assert len(names["all"]) == 40
    assert names["train"] | names["validation"] | names["test"] == names["all"]
    assert sum(len(names[split]) for split in ("train", "validation", "test")) == 40
    assert all(file_split(name) == "validation" for name in names["validation"])


def test_an_empty_folder_or_split_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="holds no routes"):
        RouteFolder(tmp_path)
    with pytest.raises(UsageError, match="no folder of routes"):
        RouteFolder(tmp_path / "nowhere")
    name = next(f"{i}.csv" for i in range(100) if file_split(f"{i}.csv") == "train")
    write(tmp_path / name)
    with pytest.raises(UsageError, match=r"none of the 1 routes .* belongs to the split 'test'"):
        RouteFolder(tmp_path, "test")


def test_the_program_writes_the_generators_routes(tmp_path):
    command = [sys.executable, str(SCRIPT), "--num", "3", "--seed", "2", "--split", "train", "--output"]
    done = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == ["00000.csv", "00001.csv", "00002.csv"]
    np.testing.assert_array_equal(read_route(files[2]).table, generate_route(2, "train", 2).table)
    again = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
