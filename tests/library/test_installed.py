"""A wheel, installed away from the checkout: the command, the configs and the policies come along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("WANDB")}
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**kept, "JAX_PLATFORMS": "cpu"}, text=True,
        capture_output=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder of the programs of a fresh virtual environment with the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", folder, ROOT, cwd=folder)
    assert wheel.returncode == 0, wheel.stderr
    made = run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    packages = next((folder / "venv").glob("lib/python*/site-packages"))
    # What RACER needs, from here; a plain path brings no editable installation along.
    (packages / "needed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    bin_folder = folder / "venv" / "bin"
    put = run(bin_folder / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall",
              next(folder.glob("racer-*.whl")), cwd=folder)  # fmt: skip
    assert put.returncode == 0, put.stderr
    return bin_folder


def test_it_is_the_installed_package(installed, tmp_path):
    done = run(installed / "python", "-c", "import racer; print(racer.__file__)", cwd=tmp_path)
    assert done.stdout.startswith(str(installed.parent)), done.stdout + done.stderr


def test_policies_and_configs_come_along_and_runs_do_not(installed, tmp_path):
    code = "from racer.core.shipped import shipped; import json; " \
        "print(json.dumps({kind: sorted(shipped(kind)) for kind in ('configs', 'policies')}))"  # fmt: skip
    found = json.loads(run(installed / "python", "-c", code, cwd=tmp_path).stdout)
    assert found["configs"] == sorted(path.stem for path in (ROOT / "scripts/sim/configs").glob("*.py"))
    assert found["policies"] == sorted(card.parent.name for card in (ROOT / "policies").glob("*/README.md"))


def test_the_command_evaluates_trains_and_refuses(installed, tmp_path):
    done = run(installed / "racer", "evaluate", "highway-ppo", "--num_episodes=2", "--render=false", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "HIGHWAY POLICY EVALUATION RESULTS" in done.stdout
    done = run(
        installed / "racer", "train", "--config", "highway_ppo_config", "--max_steps=256", "--num_envs=2",
        "--config.rollout_length=64", "--eval_interval=0", "--config.env.vehicles_count=5", "--run_name=here",
        "--workers=0", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "policies" / "here" / "run.json").exists()
    wrong = run(installed / "racer", "evaluate", "highway-ppoo", cwd=tmp_path)
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1
    assert run(installed / "racer", "--help", cwd=tmp_path).returncode == 0
