"""The shaped reward against hand calculations and hand-made scenes in the real highway-env."""

from __future__ import annotations

import math

import numpy as np
import pytest
from highway_env.vehicle.kinematics import Vehicle

from racer.envs.highway.config import resolve_config, safety_config
from racer.envs.highway.geometry import LANE_WIDTH, VEHICLE_LENGTH
from racer.envs.highway.reference import HighwayEnvEngine
from racer.envs.highway.reward import SafetyConfig, neighbours_of, safety_reward, time_to_collision, training_reward
from racer.envs.highway.world import RiskWorld

TTC = SafetyConfig()
PROXIMITY = SafetyConfig(mode="proximity")


def rows(*others: tuple[float, float, float, float], ego_heading: float = 0.0, ego_speed: float = 30.0) -> np.ndarray:
    """One scene; others are (dx, dy, dvx, dvy), relative to the ego."""
    ego = [1.0, 50.0, 4.0, ego_speed * math.cos(ego_heading), ego_speed * math.sin(ego_heading), ego_heading]
    table = [ego, *[[1.0, *other, 0.0] for other in others], [0.0] * 6]
    return np.array([table])


def risk(scene: np.ndarray, config: SafetyConfig = TTC, off_road: bool = False) -> float:
    return float(safety_reward(scene, np.array([off_road]), config)[0])


def test_lead_car_braking_is_dangerous() -> None:
    # Gap 5.9 - 5 = 0.9 m, closing at 2 m/s: 0.45 s, below the critical second.
    assert risk(rows((5.9, 0.0, -2.0, 0.0))) == -1.0
    # Gap 0.9 m at 0.6 m/s: 1.5 s, urgency 0.5, -exp(-1.5).
    assert risk(rows((5.9, 0.0, -0.6, 0.0))) == pytest.approx(-math.exp(-1.5), abs=1e-12)


def test_lead_car_pulling_away_is_not() -> None:
    assert risk(rows((5.2, 0.0, 2.0, 0.0))) == 0.0
    assert np.isinf(time_to_collision(neighbours_of(rows((5.2, 0.0, 2.0, 0.0))), TTC)).all()


def test_equal_speeds_are_not() -> None:
    assert risk(rows((5.2, 0.0, 0.0, 0.0))) == 0.0


def test_gap_and_time_must_both_be_short() -> None:
    assert risk(rows((6.1, 0.0, -2.0, 0.0))) == 0.0  # 0.55 s, but 1.1 m
    assert risk(rows((5.9, 0.0, -0.4, 0.0))) == 0.0  # 0.9 m, but 2.25 s


def test_cars_beside_and_behind_are_outside_the_cone() -> None:
    assert risk(rows((0.0, 4.0, 0.0, -3.0))) == 0.0
    assert risk(rows((-5.5, 0.0, 3.0, 0.0))) == 0.0  # closing from behind
    assert risk(rows((5.5, 5.5 * math.tan(math.radians(11.0)), -2.0, 0.0))) < 0.0
    assert risk(rows((5.5, 5.5 * math.tan(math.radians(11.5)), -2.0, 0.0))) == 0.0


def test_the_cone_turns_with_the_ego() -> None:
    side = (0.0, 5.5, 0.0, -2.0)
    assert risk(rows(side)) == 0.0
    assert risk(rows(side, ego_heading=math.pi / 2)) == -1.0


def test_the_worst_vehicle_counts() -> None:
    mild, grave = (5.9, 0.0, -0.6, 0.0), (5.9, 0.1, -3.0, 0.0)
    assert risk(rows(mild, grave)) == risk(rows(grave, mild)) == -1.0


def test_proximity_mode() -> None:
    assert risk(rows((1.5, 0.0, 0.0, 0.0)), PROXIMITY) == -1.0
    assert risk(rows((-6.0, 0.0, 5.0, 0.0)), PROXIMITY) == pytest.approx(-math.exp(-4.0 / 8.0), abs=1e-12)
    assert risk(rows((0.0, 10.5, 0.0, 0.0)), PROXIMITY) == 0.0
    assert risk(rows(), PROXIMITY) == 0.0


def test_off_the_road_costs_half() -> None:
    assert risk(rows(), off_road=True) == -0.5
    assert risk(rows((5.9, 0.0, -2.0, 0.0)), off_road=True) == -1.5


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("speed", [18.0, 24.0, 33.0, 38.0])
def test_training_reward_matches_a_hand_calculation(normalize: bool, speed: float) -> None:
    engine_config = {"engine": "highway-env", "vehicles_count": 3, "normalize_reward": normalize}
    world = RiskWorld(engine_config, 1)
    world.reset([5])
    env = world.engine.envs[0]
    env.vehicle.position = np.array([200.0, 8.0])
    env.vehicle.speed, env.vehicle.heading = speed, 0.05
    step = world.step(np.array([[0.0, 0.0]], dtype=np.float32))

    vehicle = env.vehicle
    along = vehicle.speed * math.cos(vehicle.heading)
    original = min(max((along - 20.0) / 10.0, 0.0), 1.0)
    forward = min(max((along - 30.0) / 15.0, 0.0), 1.0)
    base = 0.4 * original + 0.1 * vehicle.lane_index[2] / 3
    scale = 1.5 if normalize else 1.0
    if normalize:
        base = (base + 1.0) / 1.5
    expected = base - 0.4 * original / scale + 0.4 * forward / scale
    assert vehicle.on_road
    assert step.rewards[0] == pytest.approx(expected, abs=1e-9)
    parts = step.info["reward_components"]
    identity = parts["base_reward"] - 0.4 * parts["original_speed"] + 0.4 * parts["forward_speed"]
    assert parts["training_reward"][0] == pytest.approx((identity + 0.01 * parts["safety_reward"])[0], abs=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_nothing_is_removed_off_the_road(normalize: bool) -> None:
    parts = training_reward(
        np.array([0.0]), np.array([28.0]), np.array([False]), np.array([-0.5]),
        reward_speed_range=(20.0, 30.0), forward_speed_range=(30.0, 45.0), speed_weight=0.4, safety_coeff=0.01,
        normalizer=1.5 if normalize else 1.0,
    )  # fmt: skip
    # highway-env multiplied its own speed term by on_road = 0, so there is nothing to take away.
    assert parts.training_reward[0] == pytest.approx(-0.005, abs=1e-15)


def scene_with(engine: HighwayEnvEngine, dx: float, dy: float, speed: float) -> float:
    """Put one car at (dx, dy) from the ego, at a speed; return the safety reward of that real scene."""
    env = engine.envs[0]
    env.vehicle.position, env.vehicle.speed, env.vehicle.heading = np.array([300.0, 4.0]), 30.0, 0.0
    env.vehicle.on_state_update()
    env.road.vehicles = [env.vehicle, Vehicle(env.road, np.add(env.vehicle.position, (dx, dy)), 0.0, speed)]
    scenes = engine.refresh()
    off = np.abs(scenes.lateral_offset) > LANE_WIDTH / 2
    return float(safety_reward(scenes.rows, off, TTC)[0])


def test_scenes_in_the_real_environment() -> None:
    config = resolve_config({"engine": "highway-env", "vehicles_count": 1})
    assert safety_config(config) == TTC
    engine = HighwayEnvEngine(config, 1)
    engine.reset([1], np.array([0]))
    near = VEHICLE_LENGTH + 0.5
    assert scene_with(engine, near, 0.0, 28.0) == -1.0  # a lead car that brakes: 0.25 s
    assert scene_with(engine, near, 0.0, 34.0) == 0.0  # a lead car that pulls away
    assert scene_with(engine, 0.0, 4.0, 30.0) == 0.0  # beside
    assert scene_with(engine, -near, 0.0, 35.0) == 0.0  # behind, closing
    assert scene_with(engine, near, 0.0, 29.6) == pytest.approx(-math.exp(-3 * (1 - (2 - 1.25))), abs=1e-4)
