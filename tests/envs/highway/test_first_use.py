"""What a person meets first: compiling says so, and an empty SDL_VIDEODRIVER is none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

DRAW = """
import gymnasium, racer.envs
env = gymnasium.make("racer/RiskHighway-v0", render_mode="rgb_array")
env.reset(seed=0)
print(env.render().shape)
"""


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, text=True, capture_output=True, timeout=250,
        check=False,
    )  # fmt: skip


def test_an_empty_video_driver_draws():
    done = run(DRAW, SDL_VIDEODRIVER="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(150, 600, 3)"


@pytest.mark.slow
def test_compiling_is_said_in_one_line(tmp_path):
    code = 'import gymnasium, racer.envs\ngymnasium.make("racer/highway-v0").reset(seed=0)'
    first, second = (run(code, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert first.stderr.count("compiling the simulator, once for this machine") == 1, first.stderr
    assert "compiling" not in second.stderr
