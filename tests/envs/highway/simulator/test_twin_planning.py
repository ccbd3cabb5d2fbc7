"""Planners: copies of environments, simplified ones, states to return to. Each plan equals highway-env's own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from highway_env.envs.highway_env import HighwayEnv
from twin_pairs import CONTINUOUS, SMALL, pair, same, same_episode, same_reset, same_step, same_vehicles

from racer.core.errors import UsageError
from racer.envs.highway.twin_env import HighwayFastTwin, HighwayTwin

DENSE = {**SMALL, "vehicles_density": 2, "vehicles_count": 10}
BEHAVIORS = "highway_env.vehicle.behavior."


def open_loop_plan(env: Any, depth: int, width: int = 2) -> tuple[float, list[int]]:
    """Plan by copying the environment for every action (deterministic tree search)."""
    best: tuple[float, list[int]] = (-1.0, [])
    if depth == 0:
        return 0.0, []
    for action in env.get_available_actions()[:width]:
        copied = copy.deepcopy(env)
        _, reward, terminated, _, _ = copied.step(action)
        value, rest = (0.0, []) if terminated else open_loop_plan(copied, depth - 1, width)
        if reward + 0.9 * value > best[0]:
            best = (reward + 0.9 * value, [action, *rest])
    return best


def copied_by_parts(env: Any) -> Any:
    """Copy an environment the way that planning libraries do, attribute by attribute and without viewers."""
    result = type(env).__new__(type(env))
    memo = {id(env): result}
    for name, value in env.__dict__.items():
        if name in ("viewer", "_record_video_wrapper"):
            setattr(result, name, None)
        elif isinstance(value, gymnasium.Env):
            setattr(result, name, copied_by_parts(value))
        else:
            setattr(result, name, copy.deepcopy(value, memo=memo))
    return result


@pytest.mark.parametrize("preprocess", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_planner_finds_highway_envs_plan(preprocess: bool) -> None:
    theirs, ours = pair(config={**DENSE, "vehicles_count": 5})
    same_reset(theirs, ours, seed=3)
    for _ in range(2):
        plans = []
        for env in (theirs.unwrapped, ours.unwrapped):
            if preprocess:
                env = env.simplify().change_vehicles(BEHAVIORS + "IDMVehicle")
            plans.append(open_loop_plan(env, 3, 3))
        same(*plans)
        assert len(plans[0][1]) == 3
        same_step(theirs, ours, plans[0][1][0])
    same_vehicles(theirs.unwrapped, ours.unwrapped)


@pytest.mark.parametrize("copied", [copy.deepcopy, copied_by_parts, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("config", [DENSE, CONTINUOUS])
def test_a_copy_goes_its_own_way(copied: Any, config: dict[str, Any]) -> None:
    theirs, ours = pair(config=config)
    theirs, ours = theirs.unwrapped, ours.unwrapped
    same_reset(theirs, ours, seed=2)
    ours.favourite = ours.road.vehicles[3]
    action = np.array([0.3, -0.02], np.float32) if "action" in config else 3
    same_step(theirs, ours, action)
    other, twin = copied(theirs), copied(ours)
    assert twin.vehicle is not ours.vehicle
    assert twin.action_space == ours.action_space
    for _ in range(3):
        same_step(theirs, ours, action)
    for step in (action, 0 * action):
        same_step(other, twin, step)
        same_vehicles(other, twin)
    twin.config["lanes_count"] = 5
    assert ours.config["lanes_count"] != 5
    same_reset(theirs, ours)
    twin.config["lanes_count"] = other.config["lanes_count"]
    same_reset(other, twin)
    if copied is copy.deepcopy:
        again = copy.deepcopy(ours)
        assert again.favourite is not ours.favourite


def test_a_mark_on_a_copy_is_the_copys_own_vehicle() -> None:
    env = gymnasium.make("racer/highway-v0", config=SMALL).unwrapped
    env.reset(seed=0)
    env.leader = env.road.vehicles[1]
    twin = copy.deepcopy(env)
    assert twin.leader is twin.road.vehicles[1]
    twin.step(1)
    assert twin.leader.position[0] > env.leader.position[0]


@pytest.mark.parametrize(
    ("kind", "fast"),
    [
        ("IDMVehicle", False),
        ("LinearVehicle", True),
        pytest.param("IDMVehicle", True, marks=pytest.mark.slow),
        pytest.param("LinearVehicle", False, marks=pytest.mark.slow),
        pytest.param("AggressiveVehicle", False, marks=pytest.mark.slow),
        pytest.param("DefensiveVehicle", True, marks=pytest.mark.slow),
    ],
)
def test_preprocessed_copies_drive_as_highway_envs(kind: str, fast: bool) -> None:
    env_id = "highway-fast-v0" if fast else "highway-v0"
    theirs, ours = pair(env_id, config={**DENSE, "vehicles_count": 16, "vehicles_density": 1})
    same_reset(theirs, ours, seed=9)
    for action in (2, 3, 1):
        same_step(theirs, ours, action)
    a, b = theirs.unwrapped.simplify(), ours.unwrapped.simplify()
    same_vehicles(a, b)
    assert len(b.road.vehicles) < 17
    same_step(a, b, 0)
    a, b = a.change_vehicles(BEHAVIORS + kind), b.change_vehicles(BEHAVIORS + kind)
    assert b.simulator is not None
    same_vehicles(a, b)
    for action in (1, 3, 0, 4):
        same_step(a, b, action)
        same_vehicles(a, b)
    same_reset(a, b)  # with all vehicles, of the configured class
    same_vehicles(a, b)
    same_step(theirs, ours, 1)


def test_preprocessors_that_write_need_highway_env() -> None:
    ours = HighwayTwin(config=DENSE, engine="auto")
    theirs = HighwayEnv(config=DENSE)
    same_reset(theirs, ours, seed=1)
    with pytest.warns(UserWarning, match="set_preferred_lane"):
        a, b = theirs.set_preferred_lane(0), ours.set_preferred_lane(0)
    assert b.simulator is None
    assert ours.simulator is not None
    for method, arguments in (("set_route_at_intersection", "random"), ("set_vehicle_field", ("crashed", False))):
        with pytest.warns(UserWarning, match=method):
            a, b = getattr(theirs, method)(arguments), getattr(ours, method)(arguments)
        for action in (1, 2):
            same_step(a, b, action)
    plain = HighwayTwin(config=DENSE)
    with pytest.raises(UsageError, match=r'change_vehicles|not covered.*engine="highway-env"'):
        plain.change_vehicles("highway_env.vehicle.controller.ControlledVehicle")
    with pytest.raises(UsageError, match=r'randomize_behavior.*engine="highway-env"'):
        plain.randomize_behavior()


@pytest.mark.parametrize("engine", ["compiled", "highway-env"])
@pytest.mark.parametrize("fast", [False, True])
def test_states_are_returned_to_exactly(engine: str, fast: bool) -> None:
    shuffled = {"type": "Kinematics", "order": "shuffled"}
    kind = HighwayFastTwin if fast else HighwayTwin
    env = kind(config={**DENSE, "observation": shuffled}, engine=engine)
    env.reset(seed=4)
    env.step(3)
    state = env.get_state()
    first = [env.step(action)[:4] for action in (0, 1, 2)] + [env.reset()[0], env.np_random.uniform()]
    for other in (env, kind(config={"lanes_count": 2}, engine=engine)):
        other.set_state(state)
        steps = [other.step(action)[:4] for action in (0, 1, 2)]
        same(first[:3], steps)
        if other is env:
            same(first[3:], [other.reset()[0], other.np_random.uniform()])
    simplified = env.simplify()
    kept = simplified.get_state()
    expected = simplified.step(1)[:4]
    env.set_state(kept)
    same(expected, env.step(1)[:4])


def test_a_state_of_another_engine_is_refused() -> None:
    compiled, reference = HighwayTwin(config=SMALL), HighwayTwin(config=SMALL, engine="highway-env")
    for a, b in ((compiled, reference), (reference, compiled)):
        with pytest.raises(UsageError, match="does not fit"):
            a.set_state(b.get_state())
    with pytest.raises(UsageError, match="does not fit"):
        compiled.set_state({})
    auto = HighwayTwin(config=SMALL, engine="auto")
    for env in (compiled, reference):
        auto.set_state(env.get_state())
        same(env.step(1)[:4], auto.step(1)[:4])


@pytest.mark.parametrize("axes", [{}, {"lateral": False}, {"longitudinal": False}])
def test_available_actions_are_highway_envs(axes: dict[str, Any]) -> None:
    """Wherever the ego is, off the road too."""
    action = {"type": "DiscreteMetaAction", "target_speeds": [10, 20, 30], **axes}
    theirs, ours = (HighwayTwin(config={**SMALL, "action": action}, engine=e) for e in ("highway-env", "compiled"))
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        ego = {"x": rng.choice([-3, 5, 200, 10004, 10006]), "y": rng.uniform(-14, 22), "speed": rng.uniform(0, 35)}
        for env in (theirs, ours):
            env.reset(seed=1, options={"scene": {"ego": ego, "others": []}})
        assert theirs.get_available_actions() == ours.get_available_actions()
        seen.add(tuple(ours.get_available_actions()))
    assert len(seen) > 2


def test_planning_leaves_the_episode_alone() -> None:
    theirs, ours = pair(config=DENSE)
    same_reset(theirs, ours, seed=1)
    for _ in range(3):
        open_loop_plan(ours.unwrapped, 2)
        ours.unwrapped.simplify().step(1)
        same_step(theirs, ours, 1)
    same_episode(theirs, ours, [1, 1])
