"""Run a program beside this file in a child process whose floating-point libraries round as plain IEEE and libm do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from racer.evaluation.diverge import PLAIN_ARITHMETIC


def pinned(program: str, *arguments: str) -> dict[str, Any]:
    """Run ``program`` with pinned arithmetic and return the JSON of its last line."""
    child = subprocess.run(
        [sys.executable, str(Path(__file__).parent / program), *arguments],
        env={**os.environ, **PLAIN_ARITHMETIC},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return json.loads(child.stdout.splitlines()[-1])
