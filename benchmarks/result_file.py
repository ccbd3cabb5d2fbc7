"""The file in which a benchmark keeps its figures, beside the machine that they were obtained on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "machine", "write_result"]

RESULTS = Path(__file__).parent / "results"

_LOAD_BEFORE = os.getloadavg()[0]


def machine() -> dict[str, Any]:
    """Return the processor's name, its cores, the Python, and the load when the program began."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": _LOAD_BEFORE,
    }


def write_result(path: Path, benchmark: str, figures: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Write figures as JSON; folders are made.

    Args:
        path: the file.
        benchmark: what measured them.
        figures: JSON values.
        indent: of nested values; None writes one line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"benchmark": benchmark, **machine(), **figures}
    path.write_text(json.dumps(document, indent=indent) + "\n", encoding="utf-8")
    print(f"written to {path}")


def _processor() -> str:
    """Return the processor's name as Linux tells it; Python's own is the name of its kind at best."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
