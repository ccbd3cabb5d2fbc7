"""Subclasses, and the three engines: what is compiled, what falls back on request, what is refused by name."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from highway_env import utils
from highway_env.envs.highway_env import HighwayEnv
from highway_env.vehicle.behavior import IDMVehicle
from highway_env.vehicle.controller import MDPVehicle
from highway_env.vehicle.objects import Obstacle
from test_twin_views import WRITES
from twin_pairs import CONTINUOUS, SMALL, pair, same, same_episode, same_reset, same_step, same_vehicles

from racer.core.errors import UsageError
from racer.envs.highway.twin_env import HighwayFastTwin, HighwayTwin

GRID = {**SMALL, "observation": {"type": "OccupancyGrid"}}
WAY_OUT = r'engine="highway-env".*engine="auto"'


def keep_distance(base: type) -> type:
    """The kind of subclass that public code writes, of highway-env's class or of the twin."""

    class KeepDistance(base):  # type: ignore[misc,valid-type]
        @classmethod
        def default_config(cls) -> dict[str, Any]:
            return {**super().default_config(), "duration": 6, "vehicles_count": 12, "gap_reward": 0.2}

        def _rewards(self, action: Any) -> dict[str, float]:
            rewards = super()._rewards(action)
            front, _ = self.road.neighbour_vehicles(self.vehicle)
            gap = self.vehicle.lane_distance_to(front) if front else 100.0
            rewards["gap_reward"] = float(np.clip(utils.lmap(gap, [0, 60], [0, 1]), 0, 1))
            return rewards

    return KeepDistance


def own_reward(base: type) -> type:
    class OwnReward(base):  # type: ignore[misc,valid-type]
        def _reward(self, action: Any) -> float:
            near = self.road.close_vehicles_to(self.vehicle, 40)
            return self.vehicle.speed * np.cos(self.vehicle.heading) - len(near) - 10 * self.vehicle.crashed

        def _is_terminated(self) -> bool:
            return super()._is_terminated() or self.vehicle.speed > 29.5

        def _is_truncated(self) -> bool:
            return self.time >= 4 or super()._is_truncated()

        def _info(self, obs: Any, action: Any = None) -> dict[str, Any]:
            return {**super()._info(obs, action), "steps": self.steps, "lane": self.vehicle.lane_index[2]}

    return OwnReward


@pytest.mark.parametrize("kind", [keep_distance, own_reward])
@pytest.mark.parametrize("config", [{**SMALL, "vehicles_density": 2}, CONTINUOUS])
def test_what_a_subclass_overrides_is_called(kind: Callable[[type], type], config: dict[str, Any]) -> None:
    theirs, ours = kind(HighwayEnv)(config=config), kind(HighwayTwin)(config=config)
    assert ours.config == theirs.config
    rng = np.random.default_rng(3)
    for seed in (1, 2):
        actions = [(rng.normal(size=2) * 0.1).astype(np.float32) if "action" in config else int(rng.integers(5))
                   for _ in range(10)]  # fmt: skip
        same_episode(theirs, ours, actions, seed=seed)
    assert ours.simulator is not None


def test_what_is_patched_onto_an_environment_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def reward(self: Any, action: Any) -> float:
        return float(self.vehicle.position[1]) + action

    theirs, ours = pair(config=SMALL)
    same_reset(theirs, ours, seed=1)
    for env in (theirs, ours):
        env.unwrapped._reward = types.MethodType(reward, env.unwrapped)
    same_step(theirs, ours, 2)
    # highway-env as installed: its NumPy may round a sine otherwise than the plain arithmetic of the twin does.
    found = ours.step(0)[1]
    assert found == pytest.approx(theirs.step(0)[1], rel=1e-12)
    assert found > 4
    plain = gymnasium.make("racer/highway-v0", config=SMALL)
    plain.reset(seed=1)
    monkeypatch.setattr(HighwayEnv, "_reward", reward)
    assert plain.step(2)[1] > 4


def with_obstacle(base: type) -> type:
    class WithObstacle(base):  # type: ignore[misc,valid-type]
        def _create_vehicles(self) -> None:
            super()._create_vehicles()
            self.road.objects.append(Obstacle(self.road, [self.vehicle.position[0] + 30, 0.0]))

    return WithObstacle


def test_an_override_that_makes_the_scene_is_refused_or_served_by_highway_env() -> None:
    twin = with_obstacle(HighwayTwin)
    with pytest.raises(UsageError, match=rf"_create_vehicles.*{WAY_OUT}"):
        twin(config=SMALL)
    for engine in ("highway-env", "auto"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ours = twin(config=SMALL, engine=engine)
        assert [str(w.message) for w in caught if "_create_vehicles" in str(w.message)] or engine == "highway-env"
        theirs = with_obstacle(HighwayEnv)(config=SMALL)
        same_episode(theirs, ours, [1, 0, 0, 1, 1], seed=1)
        assert ours.simulator is None


def test_changed_constants_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public code makes traffic rougher by setting highway-env's class attributes."""
    env = gymnasium.make("racer/highway-v0", config=SMALL)
    auto = gymnasium.make("racer/highway-v0", config=SMALL, engine="auto")
    monkeypatch.setattr(IDMVehicle, "LANE_CHANGE_MAX_BRAKING_IMPOSED", 9.0)
    with pytest.raises(UsageError, match=rf"LANE_CHANGE_MAX_BRAKING_IMPOSED.*{WAY_OUT}"):
        env.reset()
    theirs = gymnasium.make("highway-v0", config=SMALL)
    with pytest.warns(UserWarning, match="LANE_CHANGE_MAX_BRAKING_IMPOSED"):
        same_episode(theirs, auto, [1, 3, 3], seed=1)
    monkeypatch.undo()
    env.reset()
    monkeypatch.setattr(MDPVehicle, "DEFAULT_TARGET_SPEEDS", np.linspace(0, 40, 5))
    with pytest.raises(UsageError, match="DEFAULT_TARGET_SPEEDS"):
        env.reset()


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (GRID, "observation.type"),
        ({**SMALL, "controlled_vehicles": 2}, "controlled_vehicles"),
        ({**SMALL, "show_trajectories": True}, "show_trajectories"),
        ({**CONTINUOUS, "action": {"type": "ContinuousAction", "dynamical": True}}, "action.dynamical"),
    ],
)
def test_every_refusal_names_the_engines_that_serve(config: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError, match=rf"{key}.*{WAY_OUT}"):
        gymnasium.make("racer/highway-v0", config=config)
    with pytest.raises(UsageError, match=rf"{key}.*{WAY_OUT}"):
        gymnasium.make_vec("racer/highway-v0", num_envs=2, config=config)
    env = gymnasium.make("racer/highway-v0", config=SMALL)
    env.unwrapped.config.update(config)
    with pytest.raises(UsageError, match=rf"{key}.*{WAY_OUT}"):
        env.reset()
    with pytest.raises(UsageError, match="did you mean 'compiled'"):
        gymnasium.make("racer/highway-v0", engine="compile")
    with pytest.raises(UsageError, match="did you mean 'compiled'"):
        gymnasium.make_vec("racer/highway-v0", num_envs=2, engine="compile")


@pytest.mark.parametrize("config", [GRID, {**CONTINUOUS, "action": {"type": "ContinuousAction", "dynamical": True}}])
def test_highway_env_serves_what_is_not_compiled(config: dict[str, Any]) -> None:
    theirs = gymnasium.make("highway-v0", config=config)
    theirs.action_space.seed(0)
    actions = [theirs.action_space.sample() for _ in range(3)]
    ours = gymnasium.make("racer/highway-v0", config=config, engine="highway-env")
    same_episode(theirs, ours, actions, seed=1)
    with pytest.warns(UserWarning, match="not covered"):
        auto = gymnasium.make("racer/highway-v0", config=config, engine="auto")
    same_episode(theirs, auto, actions, seed=1)
    assert auto.observation_space == theirs.observation_space
    served = gymnasium.make_vec("racer/highway-v0", num_envs=1, config=config, engine="highway-env")
    assert isinstance(served, SyncVectorEnv)
    with pytest.warns(UserWarning, match="not stepped as a batch"):
        gymnasium.make_vec("racer/highway-v0", num_envs=1, config=config, engine="auto")
    for env in (theirs, auto):  # back to what is compiled
        env.unwrapped.config.update(SMALL)
        env.unwrapped.config.update(observation={"type": "Kinematics"}, action={"type": "DiscreteMetaAction"})
    same_episode(theirs, auto, [1, 2], seed=3)
    assert auto.unwrapped.simulator is not None


@pytest.mark.parametrize("number", range(len(WRITES)))
def test_on_request_a_write_hands_the_episode_to_highway_env(number: int) -> None:
    theirs, ours = pair(config={**SMALL, "vehicles_density": 2})
    ours = gymnasium.make("racer/highway-v0", config={**SMALL, "vehicles_density": 2}, engine="auto")
    same_reset(theirs, ours, seed=5)
    for action in (2, 3):
        same_step(theirs, ours, action)
    assert ours.unwrapped.simulator is not None
    vehicles = list(ours.unwrapped.road.vehicles)
    try:
        WRITES[number](theirs.unwrapped)
    except (TypeError, AttributeError, IndexError):
        pytest.skip("highway-env cannot do it either")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        WRITES[number](ours.unwrapped)
    on_a_copy = {"set_vehicle_field", "randomize_behavior"} & {*WRITES[number].__code__.co_names}
    assert (ours.unwrapped.simulator is None) is not bool(on_a_copy)
    road = theirs.unwrapped.road
    if road is None or len(road.network.graph.get("0", {}).get("1", [])) < 3:
        return  # highway-env cannot go on either
    assert all(a is b for a, b in zip(vehicles, ours.unwrapped.road.vehicles, strict=False))
    same_vehicles(theirs.unwrapped, ours.unwrapped)
    for action in (1, 0, 1):
        if same_step(theirs, ours, action):
            break
    same_vehicles(theirs.unwrapped, ours.unwrapped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same_episode(theirs, ours, [1, 2, 3], seed=6)
    assert ours.unwrapped.simulator is not None  # compiled again


@pytest.mark.parametrize(
    ("config", "kind", "fast"),
    [
        (SMALL, "LinearVehicle", False),
        (CONTINUOUS, "IDMVehicle", True),
        pytest.param(SMALL, "IDMVehicle", False, marks=pytest.mark.slow),
        pytest.param(SMALL, "IDMVehicle", True, marks=pytest.mark.slow),
        pytest.param(SMALL, "LinearVehicle", True, marks=pytest.mark.slow),
        pytest.param(CONTINUOUS, "IDMVehicle", False, marks=pytest.mark.slow),
        pytest.param(CONTINUOUS, "LinearVehicle", False, marks=pytest.mark.slow),
    ],
)
def test_an_episode_handed_over_goes_on_exactly(config: dict[str, Any], kind: str, fast: bool) -> None:
    """At every moment of it, crashes included, the plain objects are those that highway-env would have."""
    config = {**config, "vehicles_density": 3, "other_vehicles_type": f"highway_env.vehicle.behavior.{kind}"}
    env_id = "highway-fast-v0" if fast else "highway-v0"
    theirs = gymnasium.make(env_id, config=config)
    rng = np.random.default_rng(0)
    for moment in (0, 4):
        ours = (HighwayFastTwin if fast else HighwayTwin)(config=config, engine="auto")
        same_reset(theirs, ours, seed=moment)
        for step in range(8):
            if step == moment:
                with pytest.warns(UserWarning, match="is written"):
                    ours.vehicle.crashed = ours.vehicle.crashed
                assert ours.simulator is None
            action = (rng.normal(size=2) * 0.3).astype(np.float32) if "action" in config else int(rng.integers(5))
            same_step(theirs, ours, action)
            same_vehicles(theirs.unwrapped, ours)


def test_check_of_a_gymnasium_environment_knows_no_other_warning_than_highway_envs() -> None:
    from gymnasium.utils.env_checker import check_env

    messages = []
    for env_id in ("highway-v0", "racer/highway-v0"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            env = gymnasium.make(env_id, config=SMALL, render_mode="rgb_array")
            check_env(env.unwrapped)
            env.close()
        messages.append({str(w.message) for w in caught if not issubclass(w.category, DeprecationWarning)})
    assert messages[1] <= messages[0]
    same(len(messages[0]) > 0, True)
