"""Runs that earlier versions stored (tests/data, made by its make_checkpoints.py) are read, driven and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from racer.core.checkpoint import FORMAT_VERSION, latest_valid_checkpoint, read_checkpoint
from racer.core.errors import UsageError
from racer.core.manifest import sealed
from racer.core.metrics import read_metrics
from racer.envs.registry import get_world
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.episodes import evaluate_policy
from racer.training.command import main
from racer.training.run_spec import read_run
from racer.training.saving import resume_checkpoint

DATA = Path(__file__).parents[1] / "data"
RUNS = [f"format_{number}/{agent}" for number in range(1, FORMAT_VERSION + 1) for agent in ("cvar", "ppo", "sac")]


@pytest.fixture
def stored(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a stored run."""
    return shutil.copytree(DATA / request.param, tmp_path / "run")


def seal(checkpoint: Path, **metadata: object) -> None:
    """Change a checkpoint's metadata as its writer could have."""
    file = checkpoint / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["metadata"].update(metadata)
    file.write_text(json.dumps(sealed(manifest) if "sha256" in manifest else manifest))


def test_each_format_is_stored() -> None:
    assert {f"{file.parts[-4]}/{file.parts[-3]}" for file in DATA.glob("*/*/*/manifest.json")} == set(RUNS)
    for name in RUNS:
        manifest = json.loads((DATA / name / "checkpoint_32" / "manifest.json").read_text())
        assert f"format_{manifest['format']}" == name.split("/")[0]
    assert sum(file.stat().st_size for file in DATA.rglob("*") if file.is_file()) < 300_000


@pytest.mark.parametrize("stored", RUNS, indirect=True)
def test_a_stored_run_is_read_driven_and_gone_on_with(stored: Path) -> None:
    trained = load_policy(stored)
    assert (trained.step, trained.seed) == (32, 7)
    assert trained.world is get_world("highway")
    result = evaluate_policy(trained.policy, trained.params, trained.world, trained.env_config, [20_000])
    assert np.isfinite(result.episodes[0].metrics["return"])
    before = read_checkpoint(stored / "checkpoint_32")
    assert main(["--resume", str(stored), "--max_steps", "48", "--device", "cpu", "--noprogress"]) == 0
    after = read_checkpoint(latest_valid_checkpoint(stored))
    assert after.step == 48
    assert {group: sorted(found) for group, found in before.groups.items() if group != "collector"} == {
        group: sorted(found) for group, found in after.groups.items() if group != "collector"
    }
    assert after.metadata["loop"]["updates"] > before.metadata["loop"]["updates"]
    assert json.loads((after.path / "manifest.json").read_text())["format"] == FORMAT_VERSION
    assert [line["step"] for line in read_metrics(stored / "metrics.jsonl")] == [16, 32, 48]


@pytest.mark.parametrize("stored", [RUNS[0], RUNS[-1]], indirect=True)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"env_config": None}, "env_config"),
        ({"env_config": {}}, "env_config 'duration' 40"),
        ({"seed": 8}, "seed 'seed' 8, the checkpoint 7"),
        ({"agent_config": {}}, "agent_config '[a-z_]+hidden_dims'"),
        ({"world": "tmaze"}, "world in"),
        ({"agent_name": "PPOLearner"}, "agent in"),
    ],
)
def test_a_run_that_is_not_the_one_in_its_checkpoint_is_refused(stored: Path, change: dict, words: str, capsys) -> None:
    document = json.loads((stored / "run.json").read_text())
    (stored / "run.json").write_text(json.dumps({**document, **change}))
    before = {file: file.read_bytes() for file in stored.rglob("*") if file.is_file()}
    with pytest.raises(UsageError, match=words):
        resume_checkpoint(stored, read_run(stored)[0])
    assert main(["--resume", str(stored), "--max_steps", "48", "--device", "cpu", "--noprogress"]) == 2
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("stored", [RUNS[-1]], indirect=True)
def test_a_description_against_its_own_sum_is_damage(stored: Path) -> None:
    spec = read_run(stored)[0]
    seal(stored / "checkpoint_32", seed=8)
    with pytest.raises(UsageError, match="describes another run than its own"):
        resume_checkpoint(stored, spec)


@pytest.mark.parametrize("stored", RUNS[:3], indirect=True)
def test_a_run_of_the_loop_before_is_refused_by_name(stored: Path) -> None:
    manifest = json.loads((stored / "checkpoint_32" / "manifest.json").read_text())
    del manifest["metadata"]["loop"]
    (stored / "checkpoint_32" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="written by an earlier version of the training loop"):
        resume_checkpoint(stored, read_run(stored)[0])


def test_keys_that_came_later_have_their_defaults(tmp_path: Path) -> None:
    """A key that neither the run's description nor its checkpoint knew is no difference between them."""
    run = shutil.copytree(DATA / "format_1" / "sac", tmp_path / "run")
    document = json.loads((run / "run.json").read_text())
    del document["agent_config"]["tau"], document["env_config"]["offroad_penalty"]
    (run / "run.json").write_text(json.dumps(document))
    seal(run / "checkpoint_32", agent_config=document["agent_config"], env_config=document["env_config"])
    spec = read_run(run)[0]
    assert (spec.agent_config["tau"], spec.env_config["offroad_penalty"]) == (0.005, 0.0)
    assert resume_checkpoint(run, spec).step == 32
