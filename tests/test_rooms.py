"""The rooms of the house: nothing outside the worlds and the scripts knows what a world is about."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from racer.envs.registry import world_names

ROOT = Path(__file__).parents[1] / "racer"
ROOMS = (
    "core", "networks", "agents", "replay", "distributed", "training", "evaluation", "plotting", "sweeps", "faults",
)  # fmt: skip
PAST_KEY = "vehicle_features"
"""A key of earlier formats, which the files called past.py read."""

DRIVING = re.compile("highway|collision|steering|vehicle", re.IGNORECASE)


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_but_the_worlds_knows_driving(room):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if DRIVING.search(line.replace(PAST_KEY, "") if path.name == "past.py" else line)
    ]
    assert not found, "\n".join(found)


def test_the_fault_kit_knows_the_core_only():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "faults").glob("*.py")]
    statement = re.compile(r"^\s*(?:from|import) racer\.(\w+)", re.MULTILINE)
    imported = {name for text in sources for name in statement.findall(text)}
    assert imported == {"core", "faults"}


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_but_the_worlds_names_one(room):
    """In what a program says or does; docstrings may show a command. "trials" is a word too: as a whole text only."""
    named = re.compile("|".join(rf"^{name}$" if name == "trials" else name for name in world_names()))
    found = []
    for path in sorted((ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        found += [
            f"{path.relative_to(ROOT)}:{text.lineno}: {text.value!r}"
            for text in texts
            if id(text) not in prose and named.search(text.value)
        ]
    assert not found, "\n".join(found)


FLOORS = {
    "core": 0, "envs": 1, "networks": 2, "agents": 3, "replay": 3, "distributed": 4,
    "training": 5, "evaluation": 5, "plotting": 5, "sweeps": 5, "faults": 5,
}  # fmt: skip
"""Of the rooms: one may import what lies on its own floor or below."""


def imported_rooms(path: Path) -> list[tuple[int, str]]:
    """The rooms that a file imports from, anywhere in it, each with its line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "racer":
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [(node.lineno, name.split(".")[1]) for name in names if name.startswith("racer.")]
    return [(line, room) for line, room in found if room in FLOORS]


def test_every_room_has_a_floor():
    assert sorted(FLOORS) == sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
    assert {*ROOMS, "envs"} == {*FLOORS}


@pytest.mark.parametrize("room", FLOORS)
def test_imports_point_down(room):
    """And worlds and agents, which meet in a policy alone, never name each other."""
    forbidden = {other for other, floor in FLOORS.items() if floor > FLOORS[room]}
    forbidden |= {"envs"} if room == "agents" else set()
    found = [
        f"{path.relative_to(ROOT)}:{line}: {other}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, other in imported_rooms(path)
        if other in forbidden
    ]
    assert not found, "\n".join(found)
