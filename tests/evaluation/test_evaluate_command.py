"""``python -m racer evaluate``: any world's policy, from the command line."""

import json

import gymnasium
import jax
import numpy as np
import pytest
from evaluation_standins import write_tiny_checkpoint
from gymnasium.envs.classic_control import CartPoleEnv

import racer.__main__ as program
from racer.core.checkpoint import write_checkpoint
from racer.envs.registry import get_world
from racer.networks.policy import Policy
from racer.networks.torso import build_torso


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    """A checkpoint of an untrained policy with a memory for a gymnasium id."""
    torso = build_torso((3,), {"hidden_dims": (4,), "memory": {"kind": "gru"}})
    policy = Policy(kind="tanh_gaussian", observation_shape=(3,), torso=torso, size=1)
    bounds = {"action_low": np.full(1, -2, np.float32), "action_high": np.full(1, 2, np.float32)}
    params = {name: np.asarray(value) for name, value in policy.init(jax.random.PRNGKey(0)).items()} | bounds
    world = get_world("gym:Pendulum-v1")
    metadata = {"policy_spec": policy.spec, "world": world.name, "env_config": world.resolve(None), "agent_name": "A"}
    return write_checkpoint(tmp_path_factory.mktemp("run"), 7, {"policy": params}, metadata)


def refused(capsys, *arguments: str) -> str:
    assert program.main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_gymnasium_id_is_evaluated_and_filmed(pendulum, tmp_path, capsys):
    arguments = ["--num_episodes", "2", "--num_videos", "1", "--video_output_dir", str(tmp_path), "--compare_random"]
    assert program.main(["evaluate", str(pendulum), *arguments, "--env.max_episode_steps=5"]) == 0
    printed = capsys.readouterr().out
    assert "GYM:PENDULUM-V1 POLICY EVALUATION RESULTS" in printed
    assert "random actions: mean return" in printed
    film = tmp_path / "gym-Pendulum-v1_eval_checkpoint_7_episode_0.mp4"
    assert printed.splitlines()[-2:] == [str(tmp_path / "evaluation_metrics.json"), str(film)]
    assert film.stat().st_size > 1000
    document = json.loads((tmp_path / "evaluation_metrics.json").read_text())
    assert document["configuration"]["world"] == "gym:Pendulum-v1"
    assert [episode["length"] for episode in document["episodes"]] == [5, 5]


def test_a_gymnasium_policy_is_given_away_with_a_card(pendulum, tmp_path):
    assert program.main(["export", str(pendulum), str(tmp_path / "given"), "--episodes", "2"]) == 0
    card = (tmp_path / "given" / "README.md").read_text()
    assert "World `gym:Pendulum-v1`" in card
    assert "exploit" not in card
    assert program.main(["evaluate", str(tmp_path / "given"), "--num_episodes=1", "--render=false",
                         "--video_output_dir", str(tmp_path / "out")]) == 0  # fmt: skip


def test_the_world_can_be_changed_key_by_key(tmp_path):
    path = write_tiny_checkpoint(tmp_path / "run", 1)
    arguments = ["--num_episodes", "1", "--render", "false", "--video_output_dir", str(tmp_path / "out")]
    words = ["--env.lanes_count=2", "--env.observation.order=sorted", "--env.engine=compiled"]
    assert program.main(["evaluate", str(path), *arguments, *words]) == 0
    used = json.loads((tmp_path / "out" / "evaluation_metrics.json").read_text())["configuration"]["env_config"]
    assert (used["lanes_count"], used["engine"], used["observation"]["vehicles_count"]) == (2, "compiled", 15)


def test_wrong_input_is_one_line_and_exit_code_2(pendulum, tmp_path, capsys):
    start = ["evaluate", str(pendulum), "--video_output_dir", str(tmp_path)]
    assert "'max_episode_steps'" in refused(capsys, *start, "--env.max_episode_stps=5")
    assert "--env.key=value" in refused(capsys, *start, "--env.max_episode_steps")
    assert "true or false" in refused(capsys, *start, "--render=perhaps")
    assert "'--num_episodes'" in refused(capsys, *start, "--num_episode", "3")
    assert "cvar_level" in refused(capsys, *start, "--cvar_level", "2")
    assert "RUN" in refused(capsys, "evaluate")
    assert "nowhere" in refused(capsys, "evaluate", str(tmp_path / "nowhere"))
    assert "'evaluate'" in refused(capsys, "evalute")


def test_a_world_without_films_asked_for_one_is_refused_first(tmp_path, capsys):
    torso = build_torso((4,), {"hidden_dims": (4,)})
    policy = Policy(kind="categorical", observation_shape=(4,), torso=torso, size=2)
    params = {name: np.asarray(value) for name, value in policy.init(jax.random.PRNGKey(0)).items()}
    metadata = {"policy_spec": policy.spec, "world": "gym:BlindPole-v0", "env_config": {}}
    path, out = write_checkpoint(tmp_path, 1, {"policy": params}, metadata), tmp_path / "out"
    start = ["evaluate", str(path), "--video_output_dir", str(out), "--num_episodes", "1"]
    assert "gym:BlindPole-v0" in refused(capsys, *start)
    gymnasium.register("BlindPole-v0", lambda **kwargs: CartPoleEnv(**kwargs), max_episode_steps=5)
    assert "'gym:BlindPole-v0' cannot be filmed" in refused(capsys, *start)
    assert list(out.iterdir()) == []
    assert program.main([*start, "--render=false"]) == 0


def test_the_help_says_which_seeds_figures_are_published_of(capsys):
    with pytest.raises(SystemExit):
        program.main(["evaluate", "--help"])
    assert "so figures to be published take --seed 30000" in " ".join(capsys.readouterr().out.split())
