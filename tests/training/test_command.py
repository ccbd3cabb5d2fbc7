"""``python -m racer train``: any world and any agent with no file touched, and one line for what cannot be."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from racer.core.checkpoint import latest_valid_checkpoint, read_checkpoint
from racer.core.errors import UsageError
from racer.core.metrics import read_metrics
from racer.evaluation.checkpoints import load_policy
from racer.training.command import main

PENDULUM = "gym:Pendulum-v1"
OFF_POLICY = ["--start_training", "40", "--batch_size", "8", "--utd_ratio", "1", "--log_interval", "32"]
TINY = {
    "ppo": ["--config.rollout_length=8", "--config.num_minibatches=2", "--config.num_epochs=1",
            "--config.hidden_dims=(8,)", "--config.value_hidden_dims=(8,)", "--log_interval", "16"],
    "sac": [*OFF_POLICY, "--config.actor_hidden_dims=(8,)", "--config.critic_hidden_dims=(8,)"],
    "cvar": [*OFF_POLICY, "--config.actor_hidden_dims=(8,)", "--config.critic_hidden_dims=(8,)",
             "--config.learned_action=none", "--config.num_atoms=11"],
    "foreign_agent:MeanLearner": OFF_POLICY,
}  # fmt: skip


def train(folder: Path, *words: str) -> int:
    return main(["--policy_dir", str(folder), "--noprogress", "--eval_episodes", "1", "--device", "cpu", *words])


def last(folder: Path):
    return read_checkpoint(latest_valid_checkpoint(folder / "run"))


@pytest.mark.parametrize("agent", TINY)
def test_trains_evaluates_and_goes_on_in_a_world_nobody_wrote_for_it(tmp_path, agent):
    named = [f"--config.model_cls={agent}"] if ":" in agent else ["--agent", agent]
    words = ["--world", PENDULUM, *named, *TINY[agent], "--num_envs", "2"]
    words += ["--config.env.max_episode_steps=20"]
    assert train(tmp_path, *words, "--run_name", "run", "--max_steps", "96", "--eval_interval", "48") == 0
    assert last(tmp_path).step == 96
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["world"], run["env_config"]["max_episode_steps"]) == (PENDULUM, 20)
    again = named if ":" in agent else []
    assert train(tmp_path, "--resume", str(tmp_path / "run"), "--max_steps", "128", *again) == 0
    assert last(tmp_path).step == 128
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert sum("evaluation/return" in line for line in lines) == 2
    assert any(np.isfinite(line.get("training/return", np.nan)) for line in lines)


def test_a_foreign_agents_run_is_named_either_way_and_evaluated_only_while_it_trains(tmp_path):
    agent, run = "foreign_agent:MeanLearner", str(tmp_path / "run")
    words = ["--world", PENDULUM, "--agent", agent, *OFF_POLICY, "--num_envs", "2", "--eval_interval", "0"]
    assert train(tmp_path, *words, "--run_name", "run", "--max_steps", "48") == 0
    assert train(tmp_path, "--resume", run, "--max_steps", "56", f"--config.model_cls={agent}") == 0
    assert train(tmp_path, "--resume", run, "--max_steps", "64", "--config.model_cls", agent) == 0
    assert train(tmp_path, "--resume", run, "--max_steps", "72", "--agent", agent) == 0
    assert last(tmp_path).step == 72
    with pytest.raises(UsageError, match="foreign_agent:MeanLearner', which acts where it learns alone"):
        load_policy(run)


def test_worker_processes_train_too(tmp_path):
    words = ["--world", "gym:CartPole-v1", "--agent", "ppo", *TINY["ppo"], "--workers", "2", "--envs_per_worker", "2"]
    assert train(tmp_path, *words, "--run_name", "run", "--max_steps", "128", "--eval_interval", "0") == 0
    assert last(tmp_path).step >= 128
    assert last(tmp_path).metadata["loop"]["workers"] == 2


WRONG = [
    (["--world", PENDULUM], "--agent is missing"),
    (["--agent", "ppo", "--world", "highwy"], "did you mean 'highway'"),
    (["--agent", "ppo", "--world", "gym:Pendulum-v0x"], "Pendulum-v1"),
    (["--agent", "pppo", "--world", PENDULUM], "did you mean 'ppo'"),
    (["--agent", "ppo", "--world", PENDULUM, "--config.discont=0.5"], "discount"),
    (["--agent", "ppo", "--world", PENDULUM, "--config.discount=1.5"], "discount"),
    (["--agent", "ppo", "--world", PENDULUM, "--config.discount=fast"], "discount"),
    (["--agent", "ppo", "--world", PENDULUM, "--config.env.max_episode_step=5"], "max_episode_steps"),
    (["--agent", "sac", "--world", PENDULUM, "--config.memory=gru"], "memory"),
    (["--agent", "sac", "--world", "gym:CartPole-v1"], "Discrete"),
    (["--agent", "ppo", "--world", PENDULUM, "--utd_ratio", "3"], "--utd_ratio has no meaning for PPOLearner"),
    (["--agent", "sac", "--world", PENDULUM, "--step_timeout", "3"], "--step_timeout has no meaning"),
    (["--agent", "ppo", "--world", PENDULUM, "--workers", "-1"], "workers"),
    (["--agent", "nowhere:Learner", "--world", PENDULUM], "nowhere"),
    (["--agent", "foreign_agent:MeanLearner", "--world", PENDULUM, "--workers", "1"], "without worker processes"),
    (["--agent", "foreign_agent:MeanLearner", "--world", PENDULUM, "--config.step_sise=1"], "step_size"),
    (["--agent", "ppo", "--wrld", PENDULUM], "--world"),
    (["--agent", "ppo", "--world", PENDULUM, "--config.gamma=0.9"], "'gamma'; did you mean 'discount'?"),
    (["--agent", "sac", "--world", PENDULUM, "--config.lr=0.1"], "did you mean 'actor_lr' or 'critic_lr'?"),
    (["--config", "highway_ppo_config", "--config.gamma=0.9"], "'gamma'; did you mean 'discount'?"),
    (["--config", "highway_ppo_config", "--config.env.lane_count=3"], "did you mean 'lanes_count'?"),
    (["--agent", "ppo", "--world", PENDULUM, "--gamma=0.9"], "write --config.discount=VALUE"),
    (["--agent", "ppo", "--world", PENDULUM, "--kwargs=1"], "write --config.env.kwargs=VALUE"),
    (["--agent", "ppo", "--world", PENDULUM, "--env.kwargs=1"], "write --config.env.kwargs=VALUE"),
    (["--world", PENDULUM, "--config.cvar_risk=1.7"], "--agent is missing (cvar, ppo, sac,"),
    (["--config.env.vehicles_count=abc"], "--config.env.vehicles_count sets a key"),
    (["--resume", "nowhere", "--config.discount=0.9"], "a resumed run keeps its keys"),
    (["--config", "highway_ppo_confg"], "did you mean 'highway_ppo_config'"),
    (["--config", "highway_trials_config:courteos"], "unknown scene of the configuration 'courteos'; did you mean"),
    (["--agent", "ppo", "--world", PENDULUM, "--max_steps", "1.5"], "takes a whole number, not '1.5'"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "expected"), WRONG)
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, capsys, words, expected):
    from racer.__main__ import main as program

    assert program(["train", "--policy_dir", str(tmp_path), "--noprogress", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert expected in error
    assert not list(tmp_path.rglob("run.json"))


def test_an_unknown_flag_beside_a_config_that_is_none(tmp_path, capsys):
    (tmp_path / "config.py").write_text("def get_config():\n    return [1]")
    assert train(tmp_path, "--config", str(tmp_path / "config.py"), "--max_step", "3") == 2
    assert "did you mean '--max_steps'?" in capsys.readouterr().err


def test_a_whole_number_may_be_written_as_a_float(tmp_path):
    words = ["--world", PENDULUM, "--agent", "ppo", *TINY["ppo"], "--num_envs", "2", "--eval_interval", "0"]
    assert train(tmp_path, *words, "--run_name", "run", "--max_steps", "1.6e1") == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["options"]["max_steps"] == 16


def test_code_that_a_run_names_is_not_run_unless_the_command_line_names_it_too(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    document = {"agent_name": "antigravity:Learner", "agent_config": {}, "env_config": {}, "seed": 1,
                 "world": PENDULUM, "options": {"program": "racer train", "keep_checkpoints": 3}}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(document))
    assert train(tmp_path, "--resume", str(folder)) == 2
    assert "name it again" in capsys.readouterr().err
    document["world"] = "gym:not.installed:Id-v0"
    (folder / "run.json").write_text(json.dumps(document))
    assert train(tmp_path, "--resume", str(folder)) == 2
    assert "name it again: --world gym:not.installed:Id-v0" in capsys.readouterr().err
    assert train(tmp_path, "--resume", str(folder), "--world", "gym:not.installed:Id-v0") == 2
    assert "there is no module 'not' on Python's path" in capsys.readouterr().err


def test_a_run_says_last_what_it_reached_and_what_to_do_next(tmp_path, capsys):
    run = tmp_path / "run"
    words = ["--world", PENDULUM, "--agent", "ppo", *TINY["ppo"], "--num_envs", "2"]
    words += ["--config.env.max_episode_steps=8", "--log_interval", "16", "--eval_interval", "16"]
    assert train(tmp_path, *words, "--run_name", "run", "--max_steps", "32") == 0
    last = {name: value for line in read_metrics(run / "metrics.jsonl") for name, value in line.items()}
    said = capsys.readouterr().out.splitlines()[-2:]
    numbers = re.fullmatch(
        r"finished at step 32: return (-?[\d.]+) in training, (-?[\d.]+) in the evaluation of step 32", said[0]
    )
    assert [float(n) for n in numbers.groups()] == pytest.approx(
        [last["training/return"], last["evaluation/return"]], rel=0.01
    )
    assert said[1] == f"python -m racer evaluate {run} measures it; go on with --resume {run} and a larger --max_steps"
    assert train(tmp_path, "--resume", str(run)) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("already at step 32, so there was nothing to do")
    assert said.endswith(f"--resume {run} --max_steps 64")


def test_a_policy_folder_that_cannot_be_is_refused_before_anything_is_built(tmp_path, capsys, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the world was asked for")

    monkeypatch.setattr("racer.training.run_spec.get_world", refuse)
    (tmp_path / "file").touch()
    words = ["--world", "tmaze", "--agent", "ppo", "--policy_dir"]
    assert main([*words, str(tmp_path / "file")]) == 2
    assert f"{str(tmp_path / 'file')!r} is no folder" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "file" / "below")]) == 2
    assert f"{str(tmp_path / 'file')!r} is no folder" in capsys.readouterr().err
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert main([*words, str(tmp_path / "new")]) == 2
    assert "not yours to write in" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_environments_that_do_not_divide_are_refused_before_anything_is_built(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("racer.training.run.TrainingRun", None)
    words = ["--world", "tmaze", "--agent", "ppo", "--config.memory=gru", "--config.num_minibatches=4"]
    assert train(tmp_path, *words, "--num_envs", "6") == 2
    assert "sequences of 6 environments do not divide into num_minibatches=4" in capsys.readouterr().err
    assert train(tmp_path, *words, "--workers", "3", "--envs_per_worker", "2") == 2
    assert "sequences of 6 environments" in capsys.readouterr().err
    plain = [word for word in words if word != "--config.memory=gru"]
    assert train(tmp_path, *plain, "--num_envs", "3", "--config.rollout_length=2") == 2
    assert "2 steps x 3 environments = 6 rows" in capsys.readouterr().err


def test_a_run_goes_on_with_workers_only_if_it_has_some(tmp_path, capsys):
    words = ["--world", PENDULUM, "--agent", "ppo", *TINY["ppo"], "--num_envs", "2", "--eval_interval", "0"]
    assert train(tmp_path, *words, "--run_name", "run", "--max_steps", "16") == 0
    assert train(tmp_path, "--resume", str(tmp_path / "run"), "--workers", "2") == 2
    assert "--workers is 2, but the resumed run has 0" in capsys.readouterr().err
