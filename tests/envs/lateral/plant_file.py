"""Where the learned plant lies on a developer's machine; it has no licence, so it is no part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_USUAL = Path(__file__).parents[4] / "shared" / "data" / "tinyphysics.onnx"
PLANT_FILE = Path(os.environ.get("RACER_LATERAL_PLANT", _USUAL))

needs_plant = pytest.mark.skipif(
    not PLANT_FILE.is_file(), reason=f"the learned plant is not at {PLANT_FILE}: set RACER_LATERAL_PLANT to its path"
)
