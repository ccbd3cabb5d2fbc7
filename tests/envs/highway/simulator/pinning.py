"""Run a program beside this file in a child process whose floating-point libraries round as plain IEEE and libm do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# NumPy's AVX512 routines and OpenBLAS's fused dot products differ from plain IEEE arithmetic and libm by an ulp
PINNED = {
    "NPY_DISABLE_CPU_FEATURES": "X86_V4",
    "OPENBLAS_CORETYPE": "Haswell",
    "NUMBA_DISABLE_INTEL_SVML": "1",
    "OMP_NUM_THREADS": "1",
}


def pinned(program: str, *arguments: str) -> dict[str, Any]:
    """Run ``program`` with pinned arithmetic and return the JSON of its last line."""
    child = subprocess.run(
        [sys.executable, str(Path(__file__).parent / program), *arguments],
        env={**os.environ, **PINNED},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return json.loads(child.stdout.splitlines()[-1])
