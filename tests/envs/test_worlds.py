"""Worlds by name: any gymnasium id is one, and what cannot be one says why in a line."""

from __future__ import annotations

import inspect
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from racer.core.errors import EnvironmentFault, UsageError
from racer.core.trust import name_code
from racer.envs.gym import BACKSTOP, PlainEnv
from racer.envs.registry import get_world
from racer.envs.world import World
from racer.evaluation.episodes import evaluate_policy, run_episode
from racer.evaluation.film import Caption, Pictures, record
from racer.networks.uniform import uniform_policy
from racer.replay import Collector

SEEDS = [10_000, 10_001, 10_002, 10_003]
IDS = ("Pendulum-v1", "CartPole-v1", "FrozenLake-v1", "Blackjack-v1")


class Rooms(gymnasium.Env):
    """Observes a mapping; the episode ends with the third step."""

    metadata = {"render_modes": []}
    action_space = spaces.Discrete(2, start=3)

    def __init__(self, parts: dict[str, spaces.Space] | None = None, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Dict(parts or {"b": spaces.Discrete(3), "a": spaces.Box(-1, 1, (2, 2))})
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        assert action in (3, 4)
        self.steps += 1
        return self._observation(), 1.5, self.steps == 3, False, {"told": "text"}

    def _observation(self):
        return {"b": np.int64(min(self.steps, 2)), "a": np.full((2, 2), 0.1 * self.steps, np.float32)}


gymnasium.register("Rooms-v0", lambda **kwargs: Rooms(**kwargs))
IMAGES = {"camera": spaces.Box(0, 255, (8, 8, 3), np.uint8), "speed": spaces.Box(0, 1, (1,))}
gymnasium.register("RoomsSeen-v0", lambda **kwargs: Rooms(IMAGES, **kwargs))


def spaces_of(name: str):
    world = get_world(name)
    env = world.make(world.resolve(None), 2)
    env.close()
    return env.single_observation_space, env.single_action_space


@pytest.mark.parametrize("env_id", IDS)
def test_an_installed_id_is_evaluated_whatever_the_number_of_environments(env_id):
    world = get_world(f"gym:{env_id}")
    policy = uniform_policy(spaces_of(world.name)[1])
    alone, many = (
        evaluate_policy(policy, {}, world, {}, SEEDS, num_envs=n, deterministic=False) for n in (1, 3)
    )  # fmt: skip
    assert alone.episodes == many.episodes
    assert [episode.metrics.keys() for episode in alone.episodes] == [{"return", "length"}] * len(SEEDS)
    assert {episode.end_reason for episode in alone.episodes} <= {"terminated", "time_limit"}


def test_an_id_is_filmed(tmp_path):
    world = get_world("gym:CartPole-v1")
    config = world.resolve({"max_episode_steps": 5})
    env = world.get_film().make(config)
    policy = uniform_policy(env.action_space)
    steps = run_episode(policy, {}, world, env, 10_000, deterministic=False)
    found = record(tmp_path / "a.mp4", env, steps, Pictures(world.film, config, Caption("p", 0, 10_000)))
    env.close()
    assert found.metrics["length"] == 5.0
    assert found.end_reason == "time_limit"
    assert (tmp_path / "a.mp4").stat().st_size > 1000


def test_a_mapping_is_flattened_by_name():
    observation_space, action_space = spaces_of("gym:Rooms-v0")
    assert observation_space == spaces.Box(
        np.array([-1] * 4 + [0] * 3, np.float32), np.array([1] * 7, np.float32)
    )  # fmt: skip
    assert action_space == spaces.Discrete(2, start=3)
    env = PlainEnv(Rooms())
    env.reset(seed=0)
    observation, *_ = env.step(3)
    np.testing.assert_allclose(observation, [0.1, 0.1, 0.1, 0.1, 0, 1, 0])
    env.step(4)
    *_, terminated, _, info = env.step(3)
    assert terminated
    assert info == {"episode_metrics": {"return": 4.5, "length": 3.0}}


def test_rows_of_numbers_keep_their_shape():
    name_code("gym:highway_env:highway-v0")
    assert spaces_of("gym:highway_env:highway-v0")[0].shape == (5, 5)


def test_environments_reset_within_the_step_and_one_by_one():
    world = get_world("gym:Rooms-v0")
    env = world.make(world.resolve(None), 2)
    env.reset(seed=[1, 2])
    env.step(np.array([3, 3]))
    env.reset(seed=[None, 5], options={"reset_mask": np.array([False, True])})
    env.step(np.array([3, 4]))
    observations, _, terminated, _, infos = env.step(np.array([3, 4]))
    assert terminated.tolist() == [True, False]
    assert infos["final_info"]["episode_metrics"]["length"][0] == 3.0
    np.testing.assert_allclose(observations[0], [0, 0, 0, 0, 1, 0, 0])
    np.testing.assert_allclose(infos["final_obs"][0][:4], 0.3, atol=1e-6)
    env.close()


def test_the_configuration_is_completed_and_checked():
    pendulum = get_world("gym:Pendulum-v1")
    assert pendulum.resolve(None) == {"max_episode_steps": 200, "kwargs": {}}
    config = pendulum.resolve({"kwargs": {"g": 9.0}, "max_episode_steps": 3})
    assert pendulum.resolve(config) == config
    assert get_world("gym:CliffWalking-v1").resolve(None)["max_episode_steps"] == BACKSTOP
    for wrong, words in (
        ({"max_episode_stps": 3}, "'max_episode_steps'"),
        ({"max_episode_steps": 0}, "whole number"),
        ({"kwargs": {"render_mode": "human"}}, "render_mode"),
        ({"kwargs": {"gravity": 1}}, "gravity"),
        ({"kwargs": {"g": object()}}, "JSON"),
    ):
        with pytest.raises(UsageError, match=words):
            pendulum.resolve(wrong)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("highwy", "did you mean 'highway'"),
        ("Pendulum-v1", "gym:<id>"),
        ("gym:Pendulm-v1", "did you mean 'gym:Pendulum-v1'"),
        ("gym:Pendulum-v0", "did you mean 'gym:Pendulum-v1'"),
        ("gym:qqqqqqqq", "gym:<module>:<id>"),
        ("gym:no_such_module:Thing-v0", "there is no module 'no_such_module' on Python's path"),
    ],
)
def test_an_unknown_world_names_the_nearest(name, words):
    name_code(name)
    with pytest.raises(UsageError, match=words) as error:
        get_world(name)
    assert "\n" not in str(error.value)


def test_a_module_that_is_not_there_recommends_no_package_but_the_nearest_file(monkeypatch, tmp_path):
    (tmp_path / "reg.py").write_text("import sensors_of_mine\n")
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "__init__.py").touch()
    (tmp_path / "fleet" / "corridor.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    for module, words in (
        ("rge", r"no module 'rge' on Python's path \(PYTHONPATH\); did you mean 'reg'\?"),
        ("fleet.coridor", r"no module 'fleet.coridor' on .*; did you mean 'fleet.corridor'\?"),
        ("qqqqqqqqqqqq", r"no module 'qqqqqqqqqqqq' on Python's path \(PYTHONPATH\)$"),
        ("reg", "needs module 'sensors_of_mine', which is not installed"),
    ):
        name = f"gym:{module}:My/Corridor-v0"
        name_code(name)
        with pytest.raises(UsageError, match=words) as error:
            get_world(name)
        assert "pip install" not in str(error.value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    name_code("gym:rge:Other-v0")
    with pytest.raises(UsageError, match="did you mean 'reg'"):
        get_world("gym:rge:Other-v0")


class Lossy(Rooms):
    """Loses its sensor in the step or the reset that its seed names."""

    def reset(self, *, seed=None, options=None):
        self.fails = seed is not None and seed % 7 == 0
        if self.fails and seed == 14:
            raise KeyError("no road")
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if self.fails:
            np.linalg.inv(np.zeros((2, 2)))  # raises within NumPy, for which this line is to blame
        return super().step(action)


gymnasium.register("My/Lossy-v0", lambda **kwargs: Lossy(**kwargs))


def test_a_fault_of_an_environment_names_its_id_its_row_and_the_line_of_its_code():
    world = get_world("gym:My/Lossy-v0")
    env = world.make(world.resolve(None), 3)
    env.reset(seed=[1, 2, 14 + 7])
    where = r"My/Lossy-v0, environment 2, test_worlds.py:{}: {} \(in {}, seed 19, step 0, action {}\)$"
    collector = Collector(env, seed=19)
    line = inspect.getsourcelines(Lossy.step)[1] + 2
    with pytest.raises(EnvironmentFault, match=where.format(line, "LinAlgError: Singular matrix", "step", 4)):
        collector.collect(1, lambda observations, memory: (np.array([3, 3, 4]), {}, {}))
    line = inspect.getsourcelines(Lossy.reset)[1] + 3
    with pytest.raises(EnvironmentFault, match=f"environment 0, test_worlds.py:{line}: KeyError: 'no road'"):
        evaluate_policy(uniform_policy(env.single_action_space), {}, world, {}, [14], deterministic=False)


def test_what_cannot_be_a_world_says_why(monkeypatch):
    with pytest.raises(UsageError, match=r"observation\['camera'\] is an image \(8, 8, 3\)"):
        get_world("gym:RoomsSeen-v0").resolve(None)
    many = Rooms()
    many.action_space = spaces.MultiDiscrete([2, 3])
    with pytest.raises(UsageError, match="Discrete or a Box"):
        PlainEnv(many)
    many.action_space = spaces.Box(-np.inf, np.inf, (2,))
    with pytest.raises(UsageError, match="no bounds"):
        PlainEnv(many)
    with pytest.raises(UsageError, match=r"gym:Rooms-v0.*cannot be filmed"):
        get_world("gym:Rooms-v0").get_film()
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(UsageError, match=r"not installed.*pip install.*mujoco"):
        get_world("gym:HalfCheetah-v5").resolve(None)


@pytest.mark.parametrize(
    ("env_id", "key"),
    [("RiskHighway-v0", "vehicles_count"), ("TMaze-v0", "length"), ("HighwayTrials-v0", "scene"),
     ("LateralControl-v0", "plant")],
)  # fmt: skip
def test_a_key_beside_the_config_is_told_its_place(env_id, key):
    words = rf"has no argument '{key}'; keys of its world go into config: config={{'{key}': 3}}"
    with pytest.raises(UsageError, match=words):
        gymnasium.make(f"racer/{env_id}", **{key: 3})
    with pytest.raises(UsageError, match=words):
        gymnasium.make_vec(f"racer/{env_id}", 2, **{key: 3})


def test_keys_go_back_to_the_defaults_of_their_scenario():
    highway = get_world("highway")
    fast = highway.resolve({"scenario": "highway-fast-v0", "lanes_count": 7, "vehicles_count": 5})
    back = highway.with_defaults(fast, ["vehicles_count"])
    assert (back["vehicles_count"], back["lanes_count"]) == (20, 7)
    with pytest.raises(UsageError, match="'vehicles_count'"):
        highway.with_defaults(fast, ["vehicle_count"])


def test_a_world_without_transforms_says_so():
    world = World("plain", dict, lambda config, num_envs: None)
    with pytest.raises(UsageError, match="has no views"):
        world.view("lanes")


def test_worlds_need_no_jax():
    code = "import sys; from racer.envs.registry import get_world; get_world('highway'); get_world('gym:Pendulum-v1');"
    code += "sys.exit(bool({'jax', 'flax', 'numba', 'pygame'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
