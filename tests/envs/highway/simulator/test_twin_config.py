"""Configuration after construction: public scripts change ``env.unwrapped.config`` and expect what highway-env does."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import RecordVideo
from twin_pairs import CONTINUOUS, SMALL, pair, same, same_episode, same_reset, same_step

from racer.core.errors import UsageError


@pytest.fixture
def films(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, list[np.ndarray]]]:
    """Collect what RecordVideo would write (name, frames a second, frames); moviepy, which writes, is replaced."""
    written: list[tuple[str, int, list[np.ndarray]]] = []

    class Clip:
        def __init__(self, frames: list[np.ndarray], fps: int) -> None:
            self.frames, self.fps = list(frames), fps

        def write_videofile(self, path: str, logger: Any = None) -> None:
            written.append((Path(path).name, self.fps, self.frames))

    for name in ("moviepy", "moviepy.video", "moviepy.video.io", "moviepy.video.io.ImageSequenceClip"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["moviepy.video.io.ImageSequenceClip"].ImageSequenceClip = Clip
    return written


@pytest.mark.parametrize("by", ["config", pytest.param("configure", marks=pytest.mark.slow)])
def test_a_film_with_a_changed_frequency(by: str, films: list[Any], tmp_path: Path) -> None:
    """Of highway-env's SB3 example: 15 Hz for the film, every frame of it, at the right number of frames a second."""
    for i, env in enumerate(pair("highway-fast-v0", render_mode="rgb_array", config={**SMALL, "duration": 2})):
        env.reset(seed=0)
        env.step(1)
        env = RecordVideo(env, video_folder=str(tmp_path / str(i)), episode_trigger=lambda _: True)
        if by == "config":
            env.unwrapped.config["simulation_frequency"] = 15
        else:
            env.unwrapped.configure({"simulation_frequency": 15})
        env.unwrapped.set_record_video_wrapper(env)
        done = truncated = False
        env.reset(seed=3)
        while not (done or truncated):
            _, _, done, truncated, _ = env.step(3)
            env.render()
        env.close()
    (name, rate, frames), (twin_name, twin_rate, twin_frames) = films
    assert (name, rate) == (twin_name, twin_rate)
    assert rate == 30
    assert len(frames) == len(twin_frames) > 10
    assert all(np.array_equal(a, b) for a, b in zip(frames, twin_frames, strict=True))


def test_changed_keys_take_effect_at_the_next_reset() -> None:
    theirs, ours = pair(config=SMALL)
    same_episode(theirs, ours, [1, 3], seed=4)
    changes: list[dict[str, Any]] = [
        {"lanes_count": 5, "vehicles_count": 4, "vehicles_density": 2, "initial_lane_id": 1, "ego_spacing": 1},
        {"action": {"type": "DiscreteMetaAction", "target_speeds": np.linspace(0, 30, 7)}},
        {"observation": {"type": "Kinematics", "features": ["x", "y", "heading"], "vehicles_count": 3}},
        {"other_vehicles_type": "highway_env.vehicle.behavior.AggressiveVehicle"},
        CONTINUOUS,
    ]
    for change in changes:
        for env in (theirs, ours):
            env.unwrapped.config.update(change)
        action = np.array([0.1, 0.02], np.float32) if change is CONTINUOUS else 3
        same_step(theirs, ours, 1)  # the present episode knows nothing of it
        same_episode(theirs, ours, [action] * 3, seed=5)
        assert theirs.action_space == ours.action_space
        assert theirs.observation_space == ours.observation_space
    nested = {"vehicles_count": 7}
    for env in (theirs, ours):
        env.unwrapped.config["observation"].update(nested)
    same_reset(theirs, ours, seed=1)


def test_times_and_rewards_take_effect_at_once() -> None:
    """As highway-env reads them in every step, its rule for when an action is applied included."""
    for config in (SMALL, {**CONTINUOUS, "simulation_frequency": 10}):
        theirs, ours = pair(config=config)
        same_reset(theirs, ours, seed=2)
        rng = np.random.default_rng(0)
        for change in (
            {"high_speed_reward": 2.0, "reward_speed_range": [10, 20]},
            {"simulation_frequency": 20},
            {"policy_frequency": 4},
            {"simulation_frequency": 7, "policy_frequency": 2},
            {"duration": 2, "normalize_reward": False, "on_road_reward": 0.3},
        ):
            for env in (theirs, ours):
                env.unwrapped.config.update(change)
            for _ in range(3):
                action = rng.normal(size=2).astype(np.float32) * 0.1 if "action" in config else int(rng.integers(5))
                same_step(theirs, ours, action)
        for env in (theirs, ours):
            env.unwrapped.config["reward_speed_range"][1] = 25  # in place
        same_step(theirs, ours, action)


def test_spaces_can_be_defined_anew() -> None:
    theirs, ours = pair(config=SMALL)
    same_reset(theirs, ours, seed=1)
    for env in (theirs, ours):
        env.unwrapped.config["observation"] = {"type": "Kinematics", "vehicles_count": 3, "see_behind": True}
        env.unwrapped.define_spaces()
    assert theirs.unwrapped.observation_space == ours.unwrapped.observation_space
    for _ in range(3):
        same(theirs.unwrapped.step(3), ours.unwrapped.step(3))
    assert theirs.unwrapped.default_config() == ours.unwrapped.default_config()


def test_another_kind_of_action_waits_for_the_next_reset() -> None:
    theirs, ours = pair("highway-v0", config=SMALL)
    for env in (theirs, ours):
        env.reset(seed=1)
        env.unwrapped.configure({"action": CONTINUOUS["action"]})
        env.unwrapped.define_spaces()
    assert theirs.unwrapped.action_space == ours.unwrapped.action_space
    with pytest.raises(UsageError, match="action"):
        ours.unwrapped.step(np.zeros(2))
    same_reset(theirs, ours, seed=2)
    for _ in range(3):
        same(theirs.unwrapped.step(np.array([0.5, 0.01])), ours.unwrapped.step(np.array([0.5, 0.01])))


def test_observation_bounds_are_highway_envs() -> None:
    """Stable-Baselines3 compares a saved model's spaces with an environment's before it loads it."""
    for env_id in ("highway-v0", "highway-fast-v0"):
        theirs, ours = pair(env_id)
        batch = gymnasium.make_vec(f"racer/{env_id}", num_envs=2)
        for space in (ours.observation_space, batch.single_observation_space):
            assert space == theirs.observation_space
            assert np.isinf(space.high).all()
            assert np.isinf(space.low).all()
        assert batch.single_action_space == ours.action_space == theirs.action_space


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        ({"vehicle_count": 3}, "vehicles_count"),
        ({"observation": {"type": "Kinematics", "vehicle_count": 3}}, "observation.vehicles_count"),
        ({"action": {"type": "ContinuousAction", "longitude": True}}, "action.longitudinal"),
        ({"zzz": 3}, "'zzz' and ignores it"),
    ],
)
def test_unknown_keys_are_kept_and_named(config: dict[str, Any], hint: str) -> None:
    with pytest.warns(UserWarning, match=hint) as caught:
        env = gymnasium.make("racer/highway-v0", config=config)
    assert env.unwrapped.config.items() >= config.items()
    with pytest.warns(UserWarning, match=hint):
        gymnasium.make_vec("racer/highway-v0", num_envs=2, config=config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.reset(seed=1)
        env.reset()
    if "vehicle_count" in config:
        assert len(caught) == 1
        assert len(env.unwrapped.road.vehicles) == 51
    env.unwrapped.config["polcy_frequency"] = 5
    with pytest.warns(UserWarning, match="policy_frequency"):
        env.reset()


def test_unknown_reset_options_are_named() -> None:
    with pytest.warns(UserWarning, match="scene"):
        gymnasium.make("racer/highway-v0").reset(options={"scnee": {}})


@pytest.mark.parametrize("engine", ["compiled", "highway-env"])
def test_an_action_that_is_not_a_number_is_an_error(engine: str) -> None:
    env = gymnasium.make("racer/highway-v0", config=CONTINUOUS, engine=engine, disable_env_checker=True)
    env.reset(seed=0)
    with pytest.raises(UsageError, match="NaN"):
        env.step(np.array([np.nan, 0.0], np.float32))
    envs = gymnasium.make_vec("racer/highway-v0", num_envs=2, config=CONTINUOUS, engine=engine)
    envs.reset(seed=0)
    with pytest.raises(UsageError, match="NaN"):
        envs.step(np.array([[0.0, 0.0], [0.0, np.nan]], np.float32))
