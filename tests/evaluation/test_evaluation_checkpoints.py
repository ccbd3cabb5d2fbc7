import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from evaluation_standins import write_tiny_checkpoint

from racer.core.checkpoint import CheckpointError, write_checkpoint
from racer.core.errors import UsageError
from racer.core.manifest import sealed
from racer.envs.registry import get_world
from racer.evaluation.checkpoints import config_differences, load_policy, resolve_checkpoint
from racer.evaluation.program import merge_config


def test_loaded_policy_acts_and_knows_its_world(tmp_path):
    path = write_tiny_checkpoint(tmp_path / "run", 10)
    loaded = load_policy(path)
    assert (loaded.name, loaded.step, loaded.seed) == ("checkpoint_10", 10, 42)
    assert loaded.env_config["vehicles_count"] == 3
    assert loaded.world is get_world("highway")
    memory = loaded.policy.initial_memory(4)
    actions, _, _ = loaded.policy.act(loaded.params, np.zeros((4, 90), np.float32), memory, np.random.default_rng(0))
    assert actions.shape == (4, 2)


def test_run_folder_means_its_newest_valid_checkpoint(tmp_path):
    run = tmp_path / "run"
    for step in (5, 20, 100):
        write_tiny_checkpoint(run, step)
    assert resolve_checkpoint(run).name == "checkpoint_100"
    newest = run / "checkpoint_100" / "policy.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    assert load_policy(f"{run}/").name == "checkpoint_20"


def test_the_policy_of_a_run_folder_is_loaded_without_its_replay(tmp_path):
    path = write_tiny_checkpoint(tmp_path / "run", 10)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["replay.safetensors"] = {"bytes": 1 << 36, "sha256": "0" * 64}
    (path / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with (path / "replay.safetensors").open("wb") as file:
        file.truncate(1 << 36)  # 64 GB of nothing: summed, they would take minutes.
    assert load_policy(tmp_path / "run").step == 10


def test_a_checkpoint_that_is_named_and_damaged_is_refused(tmp_path):
    path = write_tiny_checkpoint(tmp_path / "run", 10)
    file = path / "policy.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"policy\.safetensors.*SHA-256"):
        load_policy(path)


def test_a_manifest_without_what_acting_needs_is_refused(tmp_path):
    path = write_checkpoint(tmp_path, 1, {"policy": {"a": np.zeros(1, np.float32)}}, {"env_config": {}})
    with pytest.raises(CheckpointError, match="policy_spec"):
        load_policy(path)


@pytest.mark.parametrize(("change", "word"), [("missing", "mean/bias"), ("shape", "do not fit")])
def test_arrays_that_do_not_fit_the_policy_are_named(tmp_path, change, word):
    path = write_tiny_checkpoint(tmp_path / "run", 10)
    params = safetensors.numpy.load_file(path / "policy.safetensors")
    if change == "missing":
        del params["mean/bias"]
    else:
        params["mean/kernel"] = np.zeros((5, 2), np.float32)
    metadata = json.loads((path / "manifest.json").read_text())["metadata"]
    broken = write_checkpoint(tmp_path / "broken", 10, {"policy": params}, metadata)
    with pytest.raises(CheckpointError, match=word):
        load_policy(broken)


def test_config_differences_name_what_differs(tmp_path):
    trained = load_policy(write_tiny_checkpoint(tmp_path / "run", 10))
    agent, env = dict(trained.agent_config), dict(trained.env_config)
    name = trained.agent_name
    assert config_differences(trained, name, agent, env) == []
    assert config_differences(trained, name, agent | {"hidden_dims": (8,)}, env) == []
    (line,) = config_differences(trained, name, agent | {"cvar_risk": 0.5}, env)
    assert "cvar_risk = 0.5, the checkpoint 0.8" in line
    (line,) = config_differences(trained, name, agent, env | {"vehicles_count": 9})
    assert "env.vehicles_count = 9, the checkpoint 3" in line
    assert config_differences(trained, name, agent, env | {"vehicles_count": 9}, ignore=["vehicles_count"]) == []
    (line,) = config_differences(trained, "SACLearner", {}, {})
    assert "SACLearner" in line
    assert "DistributionalSACLearner" in line


def test_overrides_are_merged_into_nested_keys():
    base = {"a": 1, "action": {"type": "ContinuousAction", "clip": True}}
    assert merge_config(base, {"action": {"clip": False}}) == {
        "a": 1, "action": {"type": "ContinuousAction", "clip": False},
    }  # fmt: skip
    assert base["action"]["clip"] is True


@pytest.mark.parametrize("world", ["gym:NotInstalled-v0", "no-such-world", "gym:no_such_module:Thing-v0"])
def test_a_run_of_a_world_that_is_not_here_is_named(tmp_path, world):
    path = write_tiny_checkpoint(tmp_path / "run", 10)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["metadata"]["world"] = world
    (path / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(UsageError, match=rf"checkpoint_10.*{world}"):
        load_policy(path)


def test_evaluation_needs_no_jax():
    code = "import sys, racer.evaluation.program; sys.exit(bool({'jax', 'flax'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
