"""The twins' tests again with pinned arithmetic, where a step must agree in its bits; and HighwayEnv's own tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from racer.evaluation.diverge import PLAIN_ARITHMETIC

HERE = Path(__file__).parent


def run_pytest(folder: Path, *arguments: str, timeout: int = 1500, **variables: str) -> str:
    """Run pytest in a child process and return the last lines that it printed."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments]
    child = subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=timeout
    )  # fmt: skip
    assert child.returncode == 0, child.stdout[-6000:] + child.stderr[-2000:]
    return child.stdout


QUICK = (
    "test_twin_config.py::test_times_and_rewards_take_effect_at_once",
    "test_twin_planning.py::test_a_planner_finds_highway_envs_plan",
    "test_twin_engines.py::test_an_episode_handed_over_goes_on_exactly",
)


def test_bits_of_what_surrounds_a_step() -> None:
    assert "passed" in run_pytest(HERE, *QUICK, **PLAIN_ARITHMETIC)


@pytest.mark.slow
def test_bits_of_all_the_twins_tests() -> None:
    files = [path.name for path in HERE.glob("test_twin_*.py") if path.name != Path(__file__).name]
    assert "passed" in run_pytest(HERE, "-m", "slow or not slow", *files, **PLAIN_ARITHMETIC)


@pytest.mark.slow
def test_highway_envs_own_tests(tmp_path: Path) -> None:
    """Its tests with the twins' ids in place of highway-env's, with the engine that serves everything on request."""
    checkout = os.environ.get("HIGHWAY_ENV_CHECKOUT")
    if not checkout:
        pytest.skip("set HIGHWAY_ENV_CHECKOUT to a checkout of Farama-Foundation/HighwayEnv to run its tests")
    shutil.copytree(Path(checkout) / "tests", tmp_path / "tests")
    for path in (tmp_path / "tests").rglob("*.py"):
        text = re.sub(r'"(?:highway_env:)?(highway-(?:fast-)?v0)"', r'"racer.envs:racer/\1"', path.read_text())
        path.write_text(text)
    (tmp_path / "conftest.py").write_text(
        "import gymnasium\n"
        "import racer.envs\n"
        "from racer.envs.highway.twins import TWIN_IDS\n"
        "for name in TWIN_IDS:\n"
        "    gymnasium.registry[name].kwargs['engine'] = 'auto'\n"
    )
    printed = run_pytest(
        tmp_path, "tests/envs", "tests/graphics", "-k", "racer or not v0 and not v1 and not v2", SDL_VIDEODRIVER="dummy"
    )
    assert "passed" in printed
