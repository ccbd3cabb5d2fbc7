"""racer/RiskHighway-v0 as gymnasium sees it."""

from __future__ import annotations

import math
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from highway_env.envs.highway_env import HighwayEnv, HighwayEnvFast

import racer.envs  # noqa: F401 - registers the ids
from racer.core.errors import UsageError
from racer.envs.highway import ENV_ID, make_vector_env
from racer.envs.highway.config import (
    OBSERVATION_KEYS,
    default_config,
    highway_config,
    resolve_config,
)
from racer.envs.highway.defaults import highway_defaults
from racer.envs.highway.episode import EPISODE_METRICS, EpisodeRecorder

SMALL = {"engine": "highway-env", "vehicles_count": 6, "duration": 4}
KEEP = np.array([0.0, 0.0], dtype=np.float32)


def test_defaults_are_highway_envs_own() -> None:
    assert highway_defaults(fast=False) == HighwayEnv.default_config()
    assert highway_defaults(fast=True) == HighwayEnvFast.default_config()


def test_spaces_and_defaults() -> None:
    config = default_config()
    assert (config["lanes_count"], config["vehicles_count"], config["duration"]) == (4, 50, 40)
    assert (config["simulation_frequency"], config["policy_frequency"]) == (15, 5)
    env = gymnasium.make(ENV_ID, config=SMALL)
    assert env.observation_space == gymnasium.spaces.Box(-100.0, 100.0, (15, 6), np.float32)
    assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert env.unwrapped.action_names == ("acceleration", "steering")


def test_gymnasium_checkers_are_content() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ENV_ID, config=SMALL).unwrapped, skip_render_check=False)


def test_steering_steers_and_acceleration_accelerates() -> None:
    """The names address the right component of the real environment, whose order is [acceleration, steering]."""
    env = gymnasium.make(ENV_ID, config={**SMALL, "vehicles_count": 0, "offroad_terminal": False})
    names = env.unwrapped.action_names

    def drive(name: str) -> tuple[float, float]:
        env.reset(seed=1)
        action = KEEP.copy()
        action[names.index(name)] = 0.5
        *_, info = env.step(action)
        vehicle = env.unwrapped.world.engine.envs[0].vehicle
        return info["speed"] - 25.0, vehicle.heading

    gained, turned = drive("acceleration")
    assert gained == pytest.approx(2.5 * 0.2, abs=1e-6)
    assert turned == 0.0
    gained, turned = drive("steering")
    slip = math.atan(0.5 * math.tan(0.5 * math.pi / 4))
    assert gained == 0.0
    assert turned == pytest.approx(25.0 * math.sin(slip) / 2.5 * 0.2, rel=1e-6)


def test_single_and_batched_environments_agree() -> None:
    config = {**SMALL, "duration": 2}
    vector = gymnasium.make_vec(ENV_ID, num_envs=2, config=config)
    assert vector.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    singles = [gymnasium.make(ENV_ID, config=config) for _ in range(2)]
    observations, _ = vector.reset(seed=11)
    for i, env in enumerate(singles):
        np.testing.assert_array_equal(env.reset(seed=11 + i)[0], observations[i])
    rng, ends = np.random.default_rng(0), 0
    for _ in range(24):
        actions = rng.uniform([-1, -0.05], [1, 0.05], (2, 2)).astype(np.float32)
        observations, rewards, terminated, truncated, infos = vector.step(actions)
        for i, env in enumerate(singles):
            obs, reward, term, trunc, info = env.step(actions[i])
            assert (reward, term, trunc) == (rewards[i], terminated[i], truncated[i])
            if term or trunc:
                ends += 1
                np.testing.assert_array_equal(infos["final_obs"][i], obs)
                final = infos["final_info"]
                assert infos["_final_info"][i]
                assert final["_episode_metrics"][i]
                for name in EPISODE_METRICS:
                    assert final["episode_metrics"][name][i] == info["episode_metrics"][name]
                assert final["reward_components"]["training_reward"][i] == info["reward_components"]["training_reward"]
                obs, info = env.reset()
            else:
                assert infos["reward_components"]["safety_reward"][i] == info["reward_components"]["safety_reward"]
            np.testing.assert_array_equal(observations[i], obs)
            assert infos["speed"][i] == info["speed"]
    assert ends >= 2


def test_state_is_restored_exactly() -> None:
    vector = make_vector_env({**SMALL, "duration": 2}, 2)
    vector.reset(seed=4)
    actions = np.random.default_rng(1).uniform(-0.1, 0.1, (12, 2, 2)).astype(np.float32)
    for action in actions[:4]:
        vector.step(action)
    state = vector.get_state()
    first = [vector.step(action)[:4] for action in actions[4:]]
    vector.set_state(state)
    for action, expected in zip(actions[4:], first, strict=True):
        for got, want in zip(vector.step(action)[:4], expected, strict=True):
            np.testing.assert_array_equal(got, want)


def test_offroad_penalty_only_where_an_episode_ends() -> None:
    vector = make_vector_env({**SMALL, "vehicles_count": 0, "offroad_penalty": -2.0, "initial_lane_id": 0}, 2)
    vector.reset(seed=0)
    hard_left, straight = [0.0, -1.0], [0.0, 0.0]
    for _ in range(10):
        _, rewards, terminated, _, infos = vector.step(np.array([hard_left, straight], dtype=np.float32))
        assert rewards[1] > -0.1
        if terminated[0]:
            assert infos["final_info"]["reward_components"]["offroad_penalty"][0] == -2.0
            assert rewards[0] < -1.9
            break
        assert rewards[0] > -0.1
    else:
        pytest.fail("the car never left the road")


def test_time_limit_truncates_and_does_not_terminate() -> None:
    env = gymnasium.make(ENV_ID, config={**SMALL, "vehicles_count": 0, "max_episode_steps": 3})
    env.reset(seed=0)
    ends = [env.step(KEEP)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_exploits_would_be_seen() -> None:
    recorder = EpisodeRecorder(3, policy_frequency=5.0)
    recorder.start(np.arange(3), np.zeros(3), np.full(3, 20.0))
    still = np.zeros(3)
    for step in range(1, 5):
        recorder.add(
            reward=still, base_reward=still, safety_reward=still, speed=np.array([-3.0, 20.0, 0.0]),
            forward_speed=np.array([-3.0, 5.0, 0.0]), heading=np.array([0.0, 0.4 * step, 0.0]),
            distance=np.full(3, 9.0),
        )  # fmt: skip
    none = np.zeros(3, dtype=bool)
    metrics = recorder.metrics(none, none, ~none)
    assert metrics["reverse_share"].tolist() == [1.0, 0.0, 0.0]
    assert metrics["spin_share"].tolist() == [0.0, 1.0, 0.0]
    assert metrics["standstill_share"].tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"vehicle_count": 3}, "'vehicles_count'"),
        ({"observation": {"feature": ["x"]}}, "observation.features"),
        ({"action": {"type": "ContinousAction"}}, "ContinuousAction"),
        ({"safety_mode": "tcc"}, "'ttc'"),
        ({"engine": "compield"}, "'compiled'"),
        ({"policy_frequency": 30}, "simulation_frequency"),
        ({"forward_speed_range": [45, 30]}, "low < high"),
        ({"lanes_count": 0}, "at least 1"),
        ({"duration": float("nan")}, "finite"),
        ({"controlled_vehicles": 2}, "must be 1"),
        ({"initial_lane_id": 9}, "0 to 3"),
        ({"observation": {"type": "OccupancyGrid"}}, "Kinematics"),
    ],
)
def test_wrong_configuration_is_named(config: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve_config(config)


def test_highway_env_gets_only_its_own_keys() -> None:
    config = highway_config(resolve_config())
    assert set(config) == set(HighwayEnv.default_config())
    assert set(config["observation"]) <= set(OBSERVATION_KEYS)
