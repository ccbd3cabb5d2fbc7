"""``python -m racer export``: what is given away acts as the run did, and the card's figures are measured."""

from __future__ import annotations

import json

import imageio_ffmpeg
import numpy as np
import pytest
from evaluation_standins import write_tiny_checkpoint

import racer.__main__ as program
from racer.core.checkpoint import read_checkpoint, verify_checkpoint
from racer.envs.highway.config import default_config
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.episodes import evaluate_policy, evaluation_seeds


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("policies") / "highway_run_42", 10_000)


def refused(capsys, *arguments: str) -> str:
    assert program.main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_exported_policy_is_the_runs_policy(checkpoint, tmp_path, capsys):
    folder = tmp_path / "given-away"
    arguments = ["export", str(checkpoint), str(folder), "--episodes", "3", "--trained_by", "make it so"]
    assert program.main(arguments) == 0
    written = capsys.readouterr().out.split()
    assert written == [str(folder / checkpoint.name), str(folder / "README.md")]
    verify_checkpoint(folder / checkpoint.name)
    assert set(read_checkpoint(folder / checkpoint.name).groups) == {"policy"}
    ours, theirs = load_policy(folder), load_policy(checkpoint)
    assert ours.env_config == theirs.env_config
    for name, value in theirs.params.items():
        np.testing.assert_array_equal(ours.params[name], value)
    card = (folder / "README.md").read_text()
    result = evaluate_policy(theirs.policy, theirs.params, theirs.world, theirs.env_config, evaluation_seeds(3, 20_000))
    assert f"{result.aggregate['mean_return']:.2f}" in card
    assert "    make it so" in card
    assert json.dumps(theirs.env_config["vehicles_count"]) in card


def test_a_film_stands_beside_the_card(checkpoint, tmp_path, capsys):
    folder = tmp_path / "filmed"
    assert program.main(["export", str(checkpoint), str(folder), "--episodes", "1", "--film"]) == 0
    assert capsys.readouterr().out.split()[-1] == str(folder / "film.mp4")
    assert imageio_ffmpeg.count_frames_and_secs(str(folder / "film.mp4"))[0] > 5
    assert "[A film](film.mp4) of the episode of seed 20000." in (folder / "README.md").read_text()
    assert load_policy(folder).step == 10_000


def test_keys_of_the_world_can_be_set_back(checkpoint, tmp_path, capsys):
    folder = tmp_path / "given-away"
    arguments = ["export", str(checkpoint), str(folder), "--episodes", "2", "--default_keys", "vehicles_count"]
    assert program.main(arguments) == 0
    usual = default_config(load_policy(checkpoint).env_config["scenario"])["vehicles_count"]
    assert load_policy(checkpoint).env_config["vehicles_count"] != usual
    ours = load_policy(folder)
    assert ours.env_config["vehicles_count"] == usual
    result = evaluate_policy(ours.policy, ours.params, ours.world, ours.env_config, evaluation_seeds(2, 20_000))
    card = (folder / "README.md").read_text()
    assert f"{result.aggregate['mean_return']:.2f}" in card
    assert "but with the default `vehicles_count`" in card
    line = refused(capsys, "export", str(checkpoint), str(tmp_path / "new"), "--default_keys", "vehicle_count")
    assert "'vehicles_count'" in line


def test_wrong_input_is_one_line_and_exit_code_2(checkpoint, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    assert "exists" in refused(capsys, "export", str(checkpoint), str(tmp_path / "taken"))
    assert "nowhere" in refused(capsys, "export", str(tmp_path / "nowhere"), str(tmp_path / "new"))
    assert "the run itself" in refused(capsys, "export", str(checkpoint), str(checkpoint.parent))
    assert "num_episodes" in refused(capsys, "export", str(checkpoint), str(tmp_path / "new"), "--episodes", "0")
    assert "'--episodes'" in refused(capsys, "export", str(checkpoint), str(tmp_path / "new"), "--episode", "3")
    assert "'export'" in refused(capsys, "exprt", str(checkpoint))
    assert not (tmp_path / "new").exists()
