"""Kits of the toy program, written into a test's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

TOY = Path(__file__).with_name("toy_program.py")
GOAL = 240


def toy_kit(place: Path, flaw: str = "none", goal: int = GOAL, **changes: Any) -> Path:
    """Write the kit of the toy program with a flaw; keys that are None are left out."""
    begin = ["{python}", "-I", "-S", str(TOY)]
    values = {
        "name": "toy",
        "command": [*begin, "begin", "{folder}", str(goal), flaw],
        "resume": [*begin, "resume", "{folder}", str(goal), flaw],
        "workers": r"toy_program\.py worker",
        "goal": goal,
        "counters": {"files": "log.jsonl", "step": "step", "keys": ["updates"]},
        "checkpoints": {"glob": "saved_*.json", "step": r"saved_(\d+)"},
        "locks": ".lock",
        "leftovers": ".half-*",
        "disk_mb": 1,
        "limits": {"schedule": 60, "startup": 0.5, "pause": 0.5, "grace": 5},
        **changes,
    }
    path = place / "toy.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return path
