"""Stable-Baselines3 on the batch: the numbers of its own DummyVecEnv, and its algorithms learn."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import racer.envs
from racer.core.errors import UsageError

pytest.importorskip("stable_baselines3", reason="NOT TESTED: racer.sb3 needs pip install '.[sb3]'")
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from racer.sb3 import BatchedVecEnv, make_vec_env

ROOT = Path(__file__).parents[2]
CONFIG = {"vehicles_count": 8, "duration": 12, "lanes_count": 3}


def test_it_gives_what_monitored_single_environments_give():
    batch = make_vec_env("racer/highway-v0", 3, seed=7, config=CONFIG)
    single = DummyVecEnv([lambda: Monitor(gymnasium.make("racer/highway-v0", config=CONFIG))] * 3)
    single.seed(7)
    np.testing.assert_array_equal(batch.reset(), single.reset())
    rng, ends = np.random.default_rng(0), 0
    for _ in range(60):
        actions = rng.integers(5, size=3)
        ours, theirs = batch.step(actions), single.step(actions)
        for mine, other in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(mine, other)
            assert mine.dtype == other.dtype
        for mine, other in zip(ours[3], theirs[3], strict=True):
            assert mine["speed"] == other["speed"]
            assert ("episode" in mine) == ("episode" in other)
            if "episode" in mine:
                ends += 1
                assert mine["TimeLimit.truncated"] == other["TimeLimit.truncated"]
                np.testing.assert_array_equal(mine["terminal_observation"], other["terminal_observation"])
                assert mine["episode"]["l"] == other["episode"]["l"]
                assert mine["episode"]["r"] == pytest.approx(other["episode"]["r"], abs=1e-5)
                assert mine["rewards"] == pytest.approx(other["rewards"])
    assert ends > 3
    batch.close()
    single.close()


def test_the_doors_of_a_vec_env():
    envs = make_vec_env("racer/highway-fast-v0", 4, config={"vehicles_count": 5}, render_mode="rgb_array")
    assert envs.reset().shape == (4, 5, 5)
    assert envs.env_is_wrapped(Monitor) == [True] * 4
    assert envs.env_is_wrapped(gymnasium.Wrapper, indices=[0, 2]) == [False] * 2
    assert envs.get_attr("render_mode") == ["rgb_array"] * 4
    assert [config["vehicles_count"] for config in envs.get_attr("config", indices=[1, 3])] == [5, 5]
    assert len(envs.get_images()) == 4
    with pytest.raises(UsageError, match="cannot be set"):
        envs.set_attr("config", {})
    wrapped = VecNormalize(envs)
    wrapped.reset()
    assert wrapped.step(np.zeros(4, int))[0].shape == (4, 5, 5)
    wrapped.close()


def test_racers_own_world_and_its_policies():
    policy = racer.load_policy("highway-ppo")
    envs = make_vec_env("racer/RiskHighway-v0", 4, seed=10_000, config=policy.env_config)
    returns, lengths = evaluate_policy(policy, envs, n_eval_episodes=4, return_episode_rewards=True)
    envs.close()
    assert len(returns) == len(lengths) == 4
    assert np.mean(returns) > 20.0


def test_other_ids_are_refused_by_name():
    with pytest.raises(UsageError, match="'Pendulum-v1' has no batched environment"):
        make_vec_env("Pendulum-v1", 2)
    with pytest.raises(UsageError, match="SAME_STEP"):
        BatchedVecEnv(gymnasium.make_vec("racer/highway-v0", 2))


def test_single_environments_pass_their_checker():
    env = gymnasium.make("racer/highway-v0")
    check_env(env.unwrapped, warn=False)
    env.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("script", "words"), [("sb3_highway.py", ["--steps", "40000"]), ("ppo_one_file.py", ["--steps", "80000"])]
)
def test_the_examples_learn(script, words, tmp_path):
    save = ["--save", str(tmp_path / "model.zip")] if script.startswith("sb3") else []
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *words, *save], cwd=ROOT, text=True, capture_output=True,
        timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines()[::-1] if "before" in line or "first 100" in line)
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d+", line)]
    before, after = (numbers[0], numbers[1]) if "before" in line else (numbers[1], numbers[0])
    assert after > before + 5.0, done.stdout
