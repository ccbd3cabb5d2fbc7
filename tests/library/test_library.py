"""RACER from Python: policies that predict, runs from a function call, shipped files by name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import VectorEnv

import racer
from racer.core.errors import UsageError
from racer.core.shipped import find_config, find_policy, shipped
from racer.evaluation.checkpoints import TrainedPolicy
from racer.networks.memory import cleared
from racer.training.library import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def remembering(tmp_path_factory) -> Run:
    """A run whose policy has a memory and makes choices."""
    folder = tmp_path_factory.mktemp("runs")
    return racer.train(
        "tmaze", "ppo", env={"length": 3}, policy_dir=folder, max_steps=64, num_envs=4, eval_interval=0,
        log_interval=64, progress=False,
        config={"memory": "gru", "rollout_length": 16, "num_minibatches": 1, "num_epochs": 1, "hidden_dims": (8,)},
    )  # fmt: skip


def test_predict_is_what_the_evaluation_does():
    policy = racer.load_policy("highway-ppo")
    env: VectorEnv = policy.world.make(policy.env_config, 2)
    observations, _ = env.reset(seed=[10_000, 10_001])
    memory, total = None, np.zeros(2)
    for _ in range(10):
        actions, memory = policy.predict(observations, memory)
        single = [policy.predict(row)[0] for row in observations]
        flat, _ = policy.predict(np.reshape(observations[0], -1))
        np.testing.assert_array_equal(actions, single)
        np.testing.assert_array_equal(actions[0], flat)
        observations, rewards, *_ = env.step(actions)
        total += rewards
    env.close()
    assert np.isfinite(total).all()
    assert memory == {}


def test_predict_carries_and_forgets_a_memory(remembering):
    policy = remembering.policy()
    shape = policy.policy.observation_shape
    first, second = np.random.default_rng(0).normal(size=(2, 3, *shape)).astype(np.float32)
    action, memory = policy.predict(first[0])
    assert np.ndim(action) == 0
    assert all(value.shape[0] == 1 and value.any() for value in memory.values())
    _, memory = policy.predict(first)
    expected = policy.policy.act(
        policy.params, second, cleared(memory, np.array([True, False, False])), np.random.default_rng(0), True
    )
    actions, after = policy.predict(second, state=memory, episode_start=[True, False, False])
    np.testing.assert_array_equal(actions, expected[0])
    for name, value in expected[1].items():
        np.testing.assert_array_equal(after[name], value)
    with pytest.raises(UsageError, match="memory is not one of this policy for 2 observations"):
        policy.predict(second[:2], memory)


def test_predict_draws_from_the_generator_that_it_is_given():
    policy = racer.load_policy("highway-ppo")
    observation = np.zeros(policy.policy.observation_shape)
    draws = [policy.predict(observation, deterministic=False, rng=np.random.default_rng(1))[0] for _ in range(2)]
    np.testing.assert_array_equal(*draws)
    assert not np.array_equal(draws[0], policy.predict(observation)[0])


def test_predict_refuses_what_is_no_observation_and_drivers():
    with pytest.raises(UsageError, match=r"takes observations \[N, 15, 6\], got \[4, 3\]"):
        racer.load_policy("highway-ppo").predict(np.zeros((4, 3)))
    with pytest.raises(UsageError, match=r"use racer\.evaluate"):
        racer.load_policy("driver:rules").predict(np.zeros((15, 6)))


def test_train_writes_what_a_command_line_would(remembering):
    stored = json.loads((remembering.folder / "run.json").read_text())
    assert remembering.finished
    assert remembering.folder.name == "tmaze_run_42"
    assert stored["world"] == "tmaze"
    assert stored["env_config"]["length"] == 3
    assert stored["options"]["program"] == "racer train"
    assert stored["agent_config"]["rollout_length"] == 16
    assert remembering.metrics()[-1]["step"] == 64
    assert isinstance(remembering.policy(), TrainedPolicy)
    result = remembering.evaluate(3, seed=77)
    assert [episode.seed for episode in result.episodes] == [77, 78, 79]
    assert result.configuration["policy_file"] == str(remembering.policy().path)


def test_what_a_notebook_shows_of_a_policy_and_its_evaluation_is_one_line(remembering):
    policy = remembering.policy()
    step = policy.step
    assert repr(policy) == f"TrainedPolicy(tmaze_run_42/checkpoint_{step}: PPOLearner in tmaze, step {step})"
    assert "rules: a driver in highway" in repr(racer.load_policy("driver:rules"))
    result = remembering.evaluate(3, seed=77)
    shown = repr(result)
    assert shown.startswith("EvaluationResult(tmaze, 3 episodes: mean_return ")
    assert f"mean_return {result.aggregate['mean_return']:.4g}, cvar_return" in shown
    assert len(shown) < 160


def test_a_run_goes_on(remembering):
    later = remembering.resume(max_steps=128, progress=False)
    assert later.folder == remembering.folder
    assert later.policy().step == 128


def test_a_run_goes_on_as_what_it_is(remembering):
    same = {"env": {"length": 3}, "config": {"hidden_dims": (8,), "memory": "gru"}}
    step = remembering.policy().step
    assert remembering.resume(max_steps=step, progress=False, **same).policy().step == step
    for options, words in (
        ({"env": {"length": 4}}, "length: the run has 3, the call has 4; start a new run"),
        ({"env": {"lenght": 3}}, "did you mean 'length'"),
        ({"env": 3}, "'env' must hold keys of the world, not 3"),
        ({"config": {"discount": 0.5}}, "discount: the run has 0.*, the call has 0.5"),
        ({"config": {"memory": "gru"}, "env": {"length": 4}}, "length: the run has 3"),
        ({"agent": "sac"}, "--agent is 'sac', but the resumed run has 'PPOLearner'"),
    ):
        with pytest.raises(UsageError, match=words):
            remembering.resume(max_steps=step + 64, progress=False, **options)
    assert remembering.policy().step == step


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_stepz": 1}, r"unknown option of racer\.train 'max_stepz'; did you mean 'max_steps'"),
        ({"max_steps": "many"}, r"option 'max_steps' of racer\.train cannot be 'many'"),
        ({"config": {"gama": 1}}, "unknown config key"),
        ({"config": {"gamma": 1}}, "'gamma'; did you mean 'discount'"),
        ({"config": "highway_ppo_confg"}, "did you mean 'highway_ppo_config'"),
        ({"agent": None}, 'agent is missing: agent="ppo"'),
        ({"agent": None, "config": {"discount": 0.9}}, 'agent is missing: agent="ppo"'),
        ({"env": {"lenght": 3}}, "did you mean 'length'"),
        ({"config": "nowhere.py"}, "nowhere.py"),
        ({"utd_ratio": 3}, "no meaning for PPOLearner"),
    ],
)
def test_train_refuses_by_name(options, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        racer.train("tmaze", **{"agent": "ppo", "policy_dir": tmp_path, **options})
    assert not list(tmp_path.iterdir())


def test_evaluate_refuses_an_env_that_is_no_mapping():
    with pytest.raises(UsageError, match="env must hold keys of world 'highway'"):
        racer.evaluate("highway-ppo", 1, env="lanes")


def test_shipped_files_are_found_by_name_where_nothing_is_in_the_way(tmp_path, monkeypatch):
    assert set(shipped("configs")) == {path.stem for path in (ROOT / "scripts/sim/configs").glob("*.py")}
    assert "highway-ppo" in shipped("policies")
    monkeypatch.chdir(tmp_path)
    assert find_policy("policies/highway-ppo") == find_policy("highway-ppo") == ROOT / "policies/highway-ppo"
    assert find_policy("policies/unknown") == Path("policies/unknown")
    assert find_config("x/highway_ppo_config.py") == str(ROOT / "scripts/sim/configs/highway_ppo_config.py")
    trials = str(ROOT / "scripts/sim/configs/highway_trials_config.py")
    assert find_config("highway_trials_config:courteous") == f"{trials}:courteous"
    (tmp_path / "highway-ppo").mkdir()
    (tmp_path / "highway_ppo_config").touch()
    assert find_policy("highway-ppo") == Path("highway-ppo")
    assert find_config("highway_ppo_config") == "highway_ppo_config"


@pytest.mark.parametrize("name", ["ppo_one_file", "sb3_highway"])
def test_an_example_says_in_a_line_what_it_needs(name, tmp_path):
    for missing in ("torch", "stable_baselines3"):
        text = f"raise ModuleNotFoundError('No module named {missing}', name={missing!r})"
        (tmp_path / f"{missing}.py").write_text(text)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, ROOT / f"examples/{name}.py", "--help"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    words = r"this example needs (torch|stable_baselines3): pip install '\.\[sb3\]' in the checkout\n"
    assert re.fullmatch(words, done.stderr)


def test_what_is_nearly_a_shipped_policy_is_told_its_name():
    for name in ("highway-pp", "policies/highway-pp", "policies/highway-pp/checkpoint_1"):
        with pytest.raises(UsageError, match="did you mean 'highway-ppo'"):
            racer.load_policy(name)
    with pytest.raises(UsageError, match=r"no checkpoint at 'policies/my_run_42'$"):
        racer.load_policy("policies/my_run_42")


def test_unknown_names_of_the_package():
    assert dir(racer) == ["__version__", "evaluate", "load_policy", "train"]
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = racer.trian  # type: ignore[attr-defined]
