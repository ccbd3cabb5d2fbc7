"""What public code reads around a step: the vehicles, the road, the clock; and that none of it can be written."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from highway_env.envs.common.finite_mdp import compute_ttc_grid
from highway_env.envs.highway_env import HighwayEnv, HighwayEnvFast
from highway_env.vehicle.behavior import IDMVehicle
from highway_env.vehicle.kinematics import Vehicle
from highway_env.vehicle.objects import Obstacle
from twin_pairs import CONTINUOUS, SMALL, pair, same, same_reset, same_step, same_vehicle, same_vehicles

from racer.core.errors import UsageError

LINEAR = {**SMALL, "other_vehicles_type": "highway_env.vehicle.behavior.LinearVehicle", "vehicles_density": 2}


@pytest.mark.parametrize("env_id", ["highway-v0", "highway-fast-v0"])
@pytest.mark.parametrize("config", [{**SMALL, "vehicles_density": 2}, CONTINUOUS, LINEAR])
def test_every_attribute_follows_the_episode(env_id: str, config: dict[str, Any]) -> None:
    theirs, ours = pair(env_id, config=config)
    assert isinstance(ours.unwrapped, HighwayEnvFast if "fast" in env_id else HighwayEnv)
    same_reset(theirs, ours, seed=7)
    rng = np.random.default_rng(1)
    for _ in range(12):
        same_vehicles(theirs.unwrapped, ours.unwrapped)
        a, b = theirs.unwrapped, ours.unwrapped
        assert b.vehicle is b.road.vehicles[0] is b.controlled_vehicles[0]
        ego, twin = a.vehicle, b.vehicle
        numbers = [[e.road.vehicles.index(v) for v in e.road.close_vehicles_to(e.vehicle, 80, 4)] for e in (a, b)]
        assert numbers[0] == numbers[1]
        same(a.road.network.all_side_lanes(ego.lane_index), b.road.network.all_side_lanes(twin.lane_index))
        around = [[v and e.road.vehicles.index(v) for v in e.road.neighbour_vehicles(e.vehicle)] for e in (a, b)]
        assert around[0] == around[1]
        same(ego.lane_distance_to(a.road.vehicles[1]), twin.lane_distance_to(b.road.vehicles[1]))
        same(a.observation_type.observe(), b.observation_type.observe(), "observe")
        same(a.observation_type.features_range, b.observation_type.features_range)
        if "action" in config:
            action: Any = (rng.normal(size=2) * 0.1).astype(np.float32)
        else:
            assert a.get_available_actions() == b.get_available_actions()
            assert np.flatnonzero(b.action_masks()).tolist() == sorted(a.get_available_actions())
            same(compute_ttc_grid(a, 1.0, 5.0), compute_ttc_grid(b, 1.0, 5.0), "time to collision")
            assert a.action_type.actions == b.action_type.actions
            action = int(rng.integers(5))
        assert type(a.action_type) is type(b.action_type)
        if same_step(theirs, ours, action):
            break
    same_vehicles(theirs.unwrapped, ours.unwrapped)


def test_a_trajectory_is_predicted_from_a_copy() -> None:
    """highway-env copies the vehicle and drives the copy; the scene stays where it is."""
    theirs, ours = pair(config=SMALL)
    same_reset(theirs, ours, seed=1)
    same_step(theirs, ours, 2)
    before = ours.unwrapped.get_state()
    plan = ["FASTER", "LANE_LEFT"]
    predicted = [e.unwrapped.vehicle.predict_trajectory(plan, 1, 0.5, 1 / 15) for e in (theirs, ours)]
    assert len(predicted[0]) > 2
    for a, b in zip(*predicted, strict=True):
        same_vehicle(a, b)
    times = np.arange(3.0)
    same(*[list(e.unwrapped.vehicle.predict_trajectory_constant_speed(times)[0]) for e in (theirs, ours)])
    same(before, ours.unwrapped.get_state())


def assign(name: str, value: Any) -> Callable[[Any], None]:
    return lambda env: setattr(env.vehicle, name, copy.copy(value))


def in_place(env: Any) -> None:
    env.vehicle.position += np.array([1.0, 0.0])


def one_number(env: Any) -> None:
    env.road.vehicles[1].position[0] = 3.0


def stored_action(env: Any) -> None:
    env.vehicle.action["steering"] = 1.0


def lane_speed(env: Any) -> None:
    env.road.network.get_lane(("0", "1", 0)).speed_limit = 10


WRITES: list[Callable[[Any], Any]] = [
    assign("position", np.zeros(2)), assign("speed", 3.0), assign("crashed", True),
    assign("target_lane_index", ("0", "1", 0)), assign("LENGTH", 3.0), assign("route", []),
    in_place, one_number, stored_action, lane_speed,
    lambda env: setattr(env.road.vehicles[2], "DELTA", 3.0),
    lambda env: setattr(env.road.vehicles[2], "enable_lane_change", False),
    lambda env: env.vehicle.act("FASTER"),
    lambda env: env.road.vehicles[1].plan_route_to("1"),
    lambda env: env.road.vehicles.append(Vehicle(env.road, [0, 0])),
    lambda env: env.road.vehicles.pop(),
    lambda env: env.road.objects.append(Obstacle(env.road, [300, 0])),
    lambda env: env.road.step(0.1),
    lambda env: env.road.act(),
    lambda env: env.road.network.graph.clear(),
    lambda env: env.road.network.graph["0"]["1"].pop(),
    lambda env: setattr(env, "vehicle", env.road.vehicles[1]),
    lambda env: setattr(env, "road", None),
    lambda env: setattr(env, "time", 0),
    lambda env: env.controlled_vehicles.append(env.road.vehicles[1]),
    lambda env: env.action_type.act(3),
    lambda env: env.set_vehicle_field(("crashed", False)),
    lambda env: env.randomize_behavior(),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(WRITES)))
def test_writing_is_an_error_that_says_what_to_do(number: int) -> None:
    env = gymnasium.make("racer/highway-v0", config=SMALL).unwrapped
    env.reset(seed=0)
    env.step(1)
    before = env.get_state()
    with pytest.raises(UsageError, match=r'options=.*scene.*set_state.*engine="highway-env"'):
        WRITES[number](env)
    same(before, env.get_state())
    env.step(1)


def test_marks_and_colours_may_be_set() -> None:
    """What highway-env's physics does not know may be put on a vehicle, as scripts do before they film."""
    theirs, ours = pair(config=SMALL, render_mode="rgb_array")
    same_reset(theirs, ours, seed=0)
    frames = []
    for env in (theirs.unwrapped, ours.unwrapped):
        plain = env.render()
        env.vehicle.color = (1, 2, 250)
        env.road.vehicles[1].mark = "near"
        frames.append(env.render())
        assert not np.array_equal(plain, frames[-1])
        env.close()
    assert np.array_equal(*frames)


def test_vehicles_of_an_episode_that_is_over_keep_their_values() -> None:
    theirs, ours = pair(config=SMALL)
    same_reset(theirs, ours, seed=0)
    same_step(theirs, ours, 1)
    kept = [[e.unwrapped.vehicle, e.unwrapped.road.vehicles[3]] for e in (theirs, ours)]
    same_reset(theirs, ours)
    same_step(theirs, ours, 0)
    for a, b in zip(*kept, strict=True):
        same_vehicle(a, b)
        assert b is not ours.unwrapped.vehicle


def test_copies_of_vehicles_and_roads_are_free() -> None:
    theirs, ours = pair(config=LINEAR)
    same_reset(theirs, ours, seed=0)
    for copied in (copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))):
        roads = [copied(env.unwrapped.road) for env in (theirs, ours)]
        vehicles = [copied(env.unwrapped.road.vehicles[2]) for env in (theirs, ours)]
        for _ in range(20):
            for road in (*roads, *[vehicle.road for vehicle in vehicles]):
                road.act()
                road.step(1 / 15)
        for a, b in zip(roads[0].vehicles, roads[1].vehicles, strict=True):
            same_vehicle(a, b)
        same_vehicle(*vehicles)
        assert type(vehicles[1]) is type(vehicles[0])
        vehicles[1].position = np.zeros(2)
    both = copy.deepcopy([ours.unwrapped.vehicle, ours.unwrapped.road])
    assert both[0] is both[1].vehicles[0]
    same_vehicles(theirs.unwrapped, ours.unwrapped)


def test_arithmetic_on_positions_gives_plain_arrays() -> None:
    env = gymnasium.make("racer/highway-v0", config=SMALL).unwrapped
    env.reset(seed=0)
    position = env.vehicle.position
    copies = (position.copy(), np.array(position), copy.copy(position), copy.deepcopy(position))
    for plain in (position + 1, np.sqrt(position), *copies):
        assert type(plain) is np.ndarray
        plain[0] = 3.0
    for part in (position[:1], np.asarray(position)):
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 3.0
    assert isinstance(position[0], np.floating)
    assert np.linalg.norm(position) > 100
    assert isinstance(env.road.vehicles[1], IDMVehicle)
    linear = gymnasium.make("racer/highway-v0", config=LINEAR).unwrapped.road.vehicles[1]
    with pytest.raises(UsageError, match="not collected"):
        linear.data  # noqa: B018
