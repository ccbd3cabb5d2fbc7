"""What a downloaded folder names is not imported: code runs only where a person named it on the command line too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from highway_env.utils import class_from_path
from highway_env.vehicle import behavior
from highway_env.vehicle.kinematics import Vehicle

import racer.__main__ as program
from racer.core import trust
from racer.core.checkpoint import read_checkpoint, write_checkpoint
from racer.core.errors import UsageError
from racer.envs.highway.checks import VEHICLES
from racer.envs.registry import get_world, stored_world
from racer.networks.policy import Policy, build_policy
from racer.networks.torso import build_torso
from racer.training.run_spec import spec_from_config

ROOT = Path(__file__).parents[2]

TRAP = """
import pathlib
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

pathlib.Path(__file__).with_name("sprung").write_text("the code ran")


class Trap(PendulumEnv):
    def __init__(self, name="", **others):
        super().__init__(**others)


class Learner:
    pass


gymnasium.register("{name}-v0", entry_point=Trap, max_episode_steps=3)
"""


@pytest.fixture
def trap(tmp_path_factory, monkeypatch, request):
    """A module that is not imported yet, and leaves a file when it is."""
    monkeypatch.setattr(trust, "_named", set())
    folder = tmp_path_factory.mktemp("elsewhere")
    name = f"trap_{abs(hash(request.node.nodeid))}"
    (folder / f"{name}.py").write_text(TRAP.format(name=name))
    monkeypatch.syspath_prepend(str(folder))
    yield SimpleNamespace(
        module=name, world=f"gym:{name}:{name}-v0", path=folder, sprung=lambda: (folder / "sprung").exists()
    )
    sys.modules.pop(name, None)
    gymnasium.registry.pop(f"{name}-v0", None)


def downloaded(folder: Path, world: str, agent: str = "PPOLearner", **changes: Any) -> Path:
    """A run folder as one may be downloaded: checkpoint, run.json, metrics."""
    torso = build_torso((3,), {"hidden_dims": (4,)})
    policy = Policy(kind="tanh_gaussian", observation_shape=(3,), torso=torso, size=1)
    bounds = {"action_low": np.full(1, -2, np.float32), "action_high": np.full(1, 2, np.float32)}
    params = {name: np.asarray(value) for name, value in policy.init(jax.random.PRNGKey(0)).items()} | bounds
    described = {"world": world, "env_config": {"max_episode_steps": 3, "kwargs": {}}, "agent_name": agent}
    described |= {"agent_config": {}, "seed": 1, **changes}
    write_checkpoint(folder, 7, {"policy": params, "agent": {}}, {"policy_spec": policy.spec, **described})
    options = {"program": "racer train", "keep_checkpoints": 3}
    (folder / "run.json").write_text(json.dumps({**described, "options": options}))
    lines = [json.dumps({"step": step, "training/return": 1.0}) + "\n" for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def refused(capsys, *words: str) -> str:
    assert program.main(list(words)) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    return line


COMMANDS = {
    "evaluate": lambda run, out: ["evaluate", run, "--num_episodes=1", "--render=false", "--video_output_dir", out],
    "export": lambda run, out: ["export", run, f"{out}/given", "--episodes", "1"],
    "plot": lambda run, out: ["plot", run, "--output_dir", out, "--figure", "learning_curves"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_world_that_a_file_names_is_imported_only_if_the_command_line_names_it(tmp_path, capsys, trap, command):
    run = downloaded(tmp_path / "run", trap.world)
    words = COMMANDS[command](str(run), str(tmp_path / "out"))
    line = refused(capsys, *words)
    assert trap.module in line
    assert f"name it again: --world {trap.world}" in line
    assert not trap.sprung()
    assert not (tmp_path / "out" / "given").exists()
    assert program.main([*words, "--world", trap.world]) == 0
    assert trap.sprung()


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_another_world_than_the_checkpoints_cannot_be_named(tmp_path, capsys, trap, command):
    run = downloaded(tmp_path / "run", "gym:Pendulum-v1")
    line = refused(capsys, *COMMANDS[command](str(run), str(tmp_path / "out")), "--world", "highway")
    assert "--world is 'highway'" in line
    assert "'gym:Pendulum-v1'" in line


def test_a_resumed_run_imports_neither_world_nor_agent_that_only_its_files_name(tmp_path, capsys, trap):
    run = downloaded(tmp_path / "world", trap.world)
    line = refused(capsys, "train", "--resume", str(run))
    assert f"name it again: --world {trap.world}" in line
    agent = f"{trap.module}:Learner"
    run = downloaded(tmp_path / "agent", "gym:Pendulum-v1", agent)
    assert f"name it again: --agent {agent}" in refused(capsys, "train", "--resume", str(run))
    assert not trap.sprung()
    refused(capsys, "train", "--resume", str(run), "--agent", agent)
    assert trap.sprung()


def test_the_agent_of_a_checkpoint_is_not_imported_to_draw_its_critic(tmp_path, capsys, trap):
    agent = f"{trap.module}:Learner"
    run = downloaded(tmp_path / "run", "gym:Pendulum-v1", agent)
    words = ["plot", str(run), "--output_dir", str(tmp_path / "out"), "--figure", "critic_distribution"]
    assert f"name it again: --agent {agent}" in refused(capsys, *words)
    assert not trap.sprung()
    refused(capsys, *words, "--agent", agent)
    assert trap.sprung()


def test_the_world_of_a_policys_view_is_not_imported(tmp_path, trap):
    spec = read_checkpoint(downloaded(tmp_path / "run", "gym:Pendulum-v1") / "checkpoint_7").metadata["policy_spec"]
    with pytest.raises(UsageError, match="runs the code of module"):
        build_policy({**spec, "world": trap.world, "view": "rows"})
    assert not trap.sprung()


@pytest.mark.parametrize("kwargs", [{"name": "os.path"}, {"name": ["a", {"b": "antigravity"}]}, {"name": "/tmp/x.so"}])
def test_text_for_a_constructor_needs_the_world_named(tmp_path, capsys, trap, kwargs):
    trust.name_code(trap.world)
    get_world(trap.world)
    trust._named.clear()
    config = {"max_episode_steps": 3, "kwargs": kwargs}
    run = downloaded(tmp_path / "run", trap.world, env_config=config)
    for words in (COMMANDS["evaluate"](str(run), str(tmp_path / "out")), ["train", "--resume", str(run)]):
        line = refused(capsys, *words)
        assert "could name code" in line
        assert f"--world {trap.world}" in line
    assert program.main([*COMMANDS["evaluate"](str(run), str(tmp_path / "out")), "--world", trap.world]) == 0


def test_a_job_of_a_manifest_names_no_code(trap):
    """A sweep's jobs are described as runs are, and come from a disk too."""
    with pytest.raises(UsageError, match="runs the code of module"):
        spec_from_config({"model_cls": "PPOLearner", "world": trap.world}, 1)
    with pytest.raises(UsageError, match="runs the code of module"):
        spec_from_config({"model_cls": f"{trap.module}:Learner", "world": "gym:Pendulum-v1"}, 1)
    assert not trap.sprung()


def test_numbers_for_a_constructor_need_nothing(trap):
    assert stored_world("gym:Pendulum-v1", {"kwargs": {"g": 9.0}})[1]["kwargs"] == {"g": 9.0}


def test_traffic_is_highway_envs_own(trap):
    assert all(issubclass(class_from_path(name), Vehicle) for name in VEHICLES)
    kinds = [kind for kind in vars(behavior).values() if isinstance(kind, type) and issubclass(kind, Vehicle)]
    own = [f"{kind.__module__}.{kind.__name__}" for kind in kinds]
    assert set(own) <= set(VEHICLES)
    assert len(own) > 4
    for name in (f"{trap.module}.Trap", "subprocess.Popen", "highway_env.vehicle.behavior.Vehicle", ""):
        with pytest.raises(UsageError, match="other_vehicles_type"):
            get_world("highway").resolve({"engine": "highway-env", "other_vehicles_type": name})
    assert not trap.sprung()


@pytest.mark.parametrize(
    ("script", "offered"),
    [
        (["scripts/sim/run_highway_policy.py", "--policy_file"], "--world "),
        (["scripts/sim/train_highway_states.py", "--resume"], "a --config file with world"),
        (["benchmarks/avoidable.py", "--policy"], "built-in ones only"),
    ],
)
def test_programs_name_only_flags_that_they_have(tmp_path, trap, script, offered):
    run = downloaded(tmp_path / "run", trap.world)
    command = [sys.executable, *script, str(run)]
    variables = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}:{trap.path}"}
    ended = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2, ended.stderr
    *_, line = ended.stderr.strip().splitlines()
    assert offered in line
    assert trap.module in line
    assert not trap.sprung()
