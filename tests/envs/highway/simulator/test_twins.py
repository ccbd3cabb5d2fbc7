"""The gymnasium twins: highway-env's own interface, one environment and batches."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from highway_env.envs.highway_env import HighwayEnv, HighwayEnvFast

from racer.core.errors import UsageError
from racer.envs.highway.twins import register

register()

CONTINUOUS: dict[str, Any] = {
    "action": {"type": "ContinuousAction"},
    "policy_frequency": 5,
    "vehicles_count": 6,
}
PAIRS = [("racer/highway-v0", HighwayEnv), ("racer/highway-fast-v0", HighwayEnvFast)]


def test_registering_is_cheap_and_repeatable() -> None:
    """Only making an environment loads the compiler and highway-env."""
    code = (
        "import sys; from racer.envs.highway.twins import register; register(); register();"
        "print([name for name in ('numba', 'highway_env', 'pygame', 'jax') if name in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert child.stdout.strip() == "[]"


def make(env_id: str, **options: Any) -> gymnasium.Env:
    return gymnasium.make(env_id, **options).unwrapped


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environment_makes_no_warning(mode: AutoresetMode) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gymnasium.make_vec("racer/highway-v0", num_envs=3, config=CONTINUOUS, autoreset_mode=mode)
        assert envs.metadata["autoreset_mode"] is mode
        observations, _ = envs.reset(seed=1)
        assert observations in envs.observation_space
        assert envs.step(envs.action_space.sample())[0] in envs.observation_space
        envs.close()


@pytest.mark.parametrize(("env_id", "reference"), PAIRS)
@pytest.mark.parametrize("config", [{"vehicles_count": 8, "duration": 5}, {**CONTINUOUS, "duration": 3}])
def test_steps_as_highway_env(env_id: str, reference: type, config: dict[str, Any]) -> None:
    theirs, ours = reference(config=config), make(env_id, config=config)
    assert theirs.action_space == ours.action_space
    assert theirs.observation_space.shape == ours.observation_space.shape
    rng = np.random.default_rng(0)
    for seed in (0, None, 9):
        observation, info = theirs.reset(seed=seed if seed is not None else 77)
        twin_observation, twin_info = ours.reset(seed=seed if seed is not None else 77)
        np.testing.assert_allclose(observation, twin_observation, rtol=0, atol=1e-9)
        assert info.keys() == twin_info.keys()
        assert twin_info["action"] in ours.action_space
        for env in (theirs, ours):  # an unseeded space draws other actions in every run
            env.action_space.seed(int(rng.integers(2**31)))
        for _ in range(20):
            action = theirs.action_space.sample() if rng.random() < 0.5 else ours.action_space.sample()
            observation, reward, *ends, info = theirs.step(action)
            twin_observation, twin_reward, *twin_ends, twin_info = ours.step(action)
            np.testing.assert_allclose(observation, twin_observation, rtol=0, atol=1e-7)
            assert twin_reward == pytest.approx(reward, abs=1e-9)
            assert ends == twin_ends
            assert np.array_equal(info["action"], twin_info["action"])
            assert info["crashed"] == twin_info["crashed"]
            assert twin_info["speed"] == pytest.approx(info["speed"], abs=1e-9)
            assert twin_info["rewards"] == pytest.approx(info["rewards"], abs=1e-9)
    assert theirs.np_random.bit_generator.state == ours.np_random.bit_generator.state


def test_generator_is_shared_with_the_user() -> None:
    """Draws between episodes, and a shuffled observation's, leave both generators in the same state."""
    config = {"vehicles_count": 5, "observation": {"type": "Kinematics", "order": "shuffled"}}
    theirs, ours = HighwayEnv(config=config), make("racer/highway-v0", config=config)
    theirs.reset(seed=3)
    ours.reset(seed=3)
    for env in (theirs, ours):
        env.np_random.uniform(size=3)
        env.reset()
        env.step(1)
    assert theirs.np_random.bit_generator.state == ours.np_random.bit_generator.state
    assert np.array_equal(theirs.step(1)[0], ours.step(1)[0])


def test_one_observed_vehicle_means_all_of_them() -> None:
    config = {"vehicles_count": 5, "observation": {"type": "Kinematics", "vehicles_count": 1}}
    theirs, ours = HighwayEnv(config=config), make("racer/highway-v0", config=config)
    observation, twin_observation = theirs.reset(seed=3)[0], ours.reset(seed=3)[0]
    assert observation.shape[0] > 1
    np.testing.assert_allclose(observation, twin_observation, rtol=0, atol=1e-9)
    with pytest.raises(UsageError, match="vehicles_count"):
        gymnasium.make_vec("racer/highway-v0", num_envs=2, config=config)


def test_reset_options_change_the_configuration() -> None:
    theirs, ours = HighwayEnv(config=CONTINUOUS), make("racer/highway-v0", config=CONTINUOUS)
    change = {"config": {"lanes_count": 2, "action": {"type": "DiscreteMetaAction"}}}
    theirs.reset(seed=1)
    ours.reset(seed=1)
    observation = theirs.reset(seed=2, options=copy.deepcopy(change))[0]
    np.testing.assert_allclose(observation, ours.reset(seed=2, options=change)[0], rtol=0, atol=1e-9)
    assert ours.action_space == theirs.action_space
    np.testing.assert_allclose(theirs.step(3)[0], ours.step(3)[0], rtol=0, atol=1e-9)


def test_a_copy_goes_its_own_way() -> None:
    env = make("racer/highway-v0", config=CONTINUOUS)
    env.reset(seed=0)
    twin = copy.deepcopy(env)
    action = np.array([0.5, 0.01], np.float32)
    expected = twin.step(action)[0]
    for _ in range(3):
        env.step(-action)
    twin.reset(seed=0)
    assert np.array_equal(twin.step(action)[0], expected)


@pytest.mark.parametrize(
    "config",
    [CONTINUOUS, {"vehicles_count": 6, "other_vehicles_type": "highway_env.vehicle.behavior.LinearVehicle"}],
)
def test_frames_equal_highway_envs_pixel_for_pixel(config: dict[str, Any]) -> None:
    theirs = HighwayEnv(config=config, render_mode="rgb_array")
    ours = make("racer/highway-v0", config=config, render_mode="rgb_array")
    theirs.reset(seed=2)
    ours.reset(seed=2)
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(6):
        action = (
            np.array([1.0, rng.normal() * 0.3], np.float32) if "action" in config else int(rng.integers(5))
        )
        theirs.step(action)
        ours.step(action)
        frames.append(ours.render())
        assert np.array_equal(theirs.render(), frames[-1])
    assert len({frame.tobytes() for frame in frames}) == len(frames)
    theirs.close()
    ours.close()


def test_a_crash_is_drawn_as_highway_env_draws_it() -> None:
    theirs = HighwayEnv(config=CONTINUOUS, render_mode="rgb_array")
    ours = make("racer/highway-v0", config=CONTINUOUS, render_mode="rgb_array")
    theirs.reset(seed=2)
    ours.reset(seed=2)
    calm = ours.render()
    x = np.array([v.position[0] for v in theirs.road.vehicles])
    x[1] = x[0] + 4
    y = np.array([v.position[1] for v in theirs.road.vehicles])
    y[1] = y[0]
    ours.simulator.set_scene(0, x=x, y=y)
    for vehicle, vx, vy in zip(theirs.road.vehicles, x, y, strict=True):
        vehicle.position = np.array([vx, vy])
        vehicle.on_state_update()
    for env in (theirs, ours):
        assert env.step(np.zeros(2, np.float32))[2]
    assert np.array_equal(theirs.render(), ours.render())
    assert not np.array_equal(calm, ours.render())
    theirs.close()
    ours.close()


def test_films_every_simulation_frame() -> None:
    class Recorder:
        frames_per_sec = 0
        frames: list[np.ndarray] = []

        def _capture_frame(self) -> None:
            self.frames.append(env.render())

    env = make("racer/highway-v0", config=CONTINUOUS, render_mode="rgb_array")
    env.reset(seed=0)
    recorder = Recorder()
    env.set_record_video_wrapper(recorder)
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    assert recorder.frames == []  # nothing has been rendered yet
    env.render()
    env.step(np.zeros(2, np.float32))
    assert len(recorder.frames) == 2  # 15 Hz over 5 Hz, the last frame being left to render()
    assert recorder.frames_per_sec == 30
    env.close()


def equal_infos(a: Any, b: Any, path: str = "info") -> None:
    """Assert that two nested infos hold the same arrays, whatever their order."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            if key != "action":
                equal_infos(a[key], b[key], f"{path}.{key}")
    elif a.dtype == object:
        for x, y in zip(a, b, strict=True):
            assert (x is None) == (y is None), path
            if x is not None:
                assert np.array_equal(x, y), path
    else:
        assert a.dtype == b.dtype, path
        assert np.array_equal(a, b), path


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("kind", ["ContinuousAction", "DiscreteMetaAction"])
def test_batches_behave_as_gymnasiums_own_vector_environment(mode: AutoresetMode, kind: str) -> None:
    config = {
        "action": {"type": kind},
        "vehicles_count": 6,
        "vehicles_density": 2,
        "policy_frequency": 5,
        "duration": 4,
        "observation": {"type": "Kinematics", "order": "shuffled"},
    }
    batch = gymnasium.make_vec("racer/highway-v0", num_envs=4, config=config, autoreset_mode=mode)
    singles = SyncVectorEnv([lambda: make("racer/highway-v0", config=config)] * 4, autoreset_mode=mode)
    observations, infos = batch.reset(seed=11)
    expected, expected_infos = singles.reset(seed=11)
    assert np.array_equal(observations, expected)
    equal_infos(expected_infos, infos)
    batch.action_space.seed(0)
    ended = 0
    for _ in range(50):
        actions = batch.action_space.sample()
        got = batch.step(actions)
        want = singles.step(actions)
        for ours, theirs in zip(got[:4], want[:4], strict=True):
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)
        equal_infos(want[4], got[4])
        shown = np.ones(4, bool) if mode is AutoresetMode.NEXT_STEP else ~(got[2] | got[3])
        if mode is AutoresetMode.SAME_STEP:
            assert np.array_equal(got[4]["action"][shown], want[4]["action"][shown])
        ended += int((got[2] | got[3]).sum())
    assert ended > 4
    batch.close()
    singles.close()


def test_disabled_autoreset_leaves_it_to_the_caller() -> None:
    config = {**CONTINUOUS, "duration": 0.4}
    envs = gymnasium.make_vec(
        "racer/highway-v0", num_envs=2, config=config, autoreset_mode=AutoresetMode.DISABLED
    )
    envs.reset(seed=0)
    action = np.zeros((2, 2), np.float32)
    envs.step(action)
    _, _, _, truncated, _ = envs.step(action)
    assert truncated.all()
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        envs.step(action)
    before = envs.simulator.get_state()["real"]
    _, infos = envs.reset(options={"reset_mask": np.array([True, False])})
    assert infos["_speed"].tolist() == [True, False]
    assert np.array_equal(before[1], envs.simulator.get_state()["real"][1])
    with pytest.raises(UsageError, match="reset_mask"):
        envs.reset(options={"reset_mask": np.array([False, False])})


def test_vector_environment_draws_all() -> None:
    envs = gymnasium.make_vec("racer/highway-v0", num_envs=2, config=CONTINUOUS, render_mode="rgb_array")
    envs.reset(seed=0)
    frames = envs.render()
    assert len(frames) == 2
    assert frames[0].shape == (150, 600, 3)
    assert not np.array_equal(frames[0], frames[1])
    envs.close()


def test_unknown_render_mode_is_refused() -> None:
    from racer.envs.highway.twin_env import HighwayTwin

    with pytest.raises(UsageError, match="rgb_array"):
        HighwayTwin(render_mode="ansi")
