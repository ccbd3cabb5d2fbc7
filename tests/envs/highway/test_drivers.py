"""The drivers: their model against the simulator, their search on hand-made scenes, and how they drive."""

from __future__ import annotations

import math

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.highway import make_vector_env
from racer.envs.highway.drivers import DRIVERS, observed
from racer.envs.highway.drivers.base import Road, aim, read_rows
from racer.envs.highway.drivers.observed import Scratch, drive, forecast, score, sift
from racer.envs.highway.drivers.planners import ObservationPlanner, StatePlanner, judgement
from racer.envs.highway.drivers.plans import FASTEST, SLOWEST, propose_first, propose_next
from racer.envs.highway.drivers.rules import RuleDriver, leaders, occupancy
from racer.envs.highway.world import RiskWorld

EGO = (1.0, 50.0, 4.0, 30.0, 0.0, 0.0)


def scene(*others: tuple[float, float, float, float], ego: tuple[float, ...] = EGO) -> np.ndarray:
    """One observation [1, 15, 6]; others are (dx, dy, dvx, dvy)."""
    rows = np.zeros((1, 15, 6), np.float32)
    rows[0, 0] = ego
    for row, other in enumerate(others, start=1):
        rows[0, row] = (1.0, *other, 0.0)
    return rows


def drive_world(name: str, seeds: list[int], steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drive the default world; returns the actions [T, N, 2], the summed rewards and who ended [N]."""
    env = make_vector_env({}, len(seeds))
    driver = DRIVERS[name](env)
    observations, _ = env.reset(seed=list(seeds))
    memory = driver.initial_memory(len(seeds))
    taken, total, ended = [], np.zeros(len(seeds)), np.zeros(len(seeds), bool)
    for _ in range(steps):
        actions, memory, _ = driver.act({}, observations, memory, None)
        observations, rewards, terminated, _, _ = env.step(actions)
        taken.append(actions)
        total += np.where(ended, 0.0, rewards)
        ended |= terminated
    return np.array(taken), total, ended


def test_plans_stay_in_range_and_depend_on_the_step_alone() -> None:
    best = np.zeros((25, 2))
    plans, again, later = (np.zeros((96, 25, 2)) for _ in range(3))
    draws = np.zeros(1, np.uint64)
    propose_first(draws, 0, best, 2.0, 4, plans)
    assert (best == (2.0, FASTEST)).all()
    np.testing.assert_array_equal(plans[0], best)
    children = np.zeros((64, 25, 2))
    propose_next(draws, plans[:3], 4, children)
    for found in (plans, children):
        assert set(np.unique(found[..., 0])) == {0.0, 1.0, 2.0, 3.0}
        assert found[..., 1].min() >= SLOWEST
        assert found[..., 1].max() <= FASTEST
        assert len(np.unique(found.reshape(len(found), -1), axis=0)) > len(found) // 2
    propose_first(draws, 0, best, 2.0, 4, again)
    propose_first(draws, 1, best, 2.0, 4, later)
    np.testing.assert_array_equal(again, plans)
    assert not np.array_equal(later, plans)


def test_the_planners_car_moves_as_the_simulators() -> None:
    world = RiskWorld({"vehicles_count": 0}, 1)
    judge = judgement(world.config, Road.of(world))
    observations, _ = world.reset([5])
    rng, farthest = np.random.default_rng(0), 0.0
    lane, speed = 1.0, 30.0
    for step in range(150):
        if step % 10 == 0:
            lane, speed = float(rng.integers(4)), float(rng.uniform(20, 40))
        row = read_rows(observations)[0, 0].astype(float)
        x, y = world.engine.simulator.ego_position[0]  # type: ignore[attr-defined]
        moved = drive.py_func(0.0, row[2], row[5], math.hypot(row[3], row[4]), lane, speed, judge)
        observations = world.step(aim(read_rows(observations), np.array([lane]), np.array([speed]), 4)).observations
        after = read_rows(observations)[0, 0].astype(float)
        assert moved[0] == pytest.approx(world.engine.simulator.ego_position[0, 0] - x, abs=0.01)  # type: ignore[attr-defined]
        assert moved[1:] == pytest.approx((after[2], after[5], math.hypot(after[3], after[4])), abs=2e-3)
        farthest = max(farthest, abs(after[2] - y))
    assert farthest > 0.5


def test_others_keep_their_speed_and_finish_their_lane_change() -> None:
    world = RiskWorld({}, 1)
    judge = judgement(world.config, Road.of(world))
    scratch = Scratch.make(1, 1, 25, 15)
    rows = scene((20.0, 4.0, -5.0, 0.0), (30.0, 1.0, -10.0, 1.0), (40.0, 1.0, 0.0, 0.0)).astype(float)
    assert forecast.py_func(rows[0], judge, scratch.cars) == 3
    along, across = scratch.cars[..., :3, 0], scratch.cars[..., :3, 1]
    np.testing.assert_allclose(along[0], [25.0, 34.0, 46.0])
    np.testing.assert_allclose(along[-1], [145.0, 130.0, 190.0])
    np.testing.assert_allclose(across[0], [8.0, 5.75, 4.75])
    np.testing.assert_allclose(across[-1], [8.0, 8.0, 4.0], atol=0.01)


def test_a_plan_is_paid_until_it_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "drive", drive.py_func)  # kernels cannot be called from Python
    monkeypatch.setattr(observed, "future", observed.future.py_func)
    world = RiskWorld({"right_lane_reward": 0.0}, 1)
    judge = judgement(world.config, Road.of(world))._replace(near=0.0)
    scratch = Scratch.make(1, 1, 25, 15)
    plan = np.tile([1.0, 40.0], (25, 1))
    ego = (1.0, 50.0, 4.0, 40.0, 0.0, 0.0)
    rows = scene((20.0, 0.0, -20.0, 0.0), ego=ego).astype(float)[0]
    count = forecast.py_func(rows, judge, scratch.cars)
    sift.py_func(40.0, count, judge, scratch)
    # 15 m between the bumpers close by 4 m a step: the fourth is one too many.
    step = 0.4 * 10 / 15
    expected = step * (1 + 0.98 + 0.98**2) - 20.0 * 0.98**3
    assert score.py_func(plan, rows[0], count, judge, -np.inf, scratch) == pytest.approx(expected)
    sift.py_func(40.0, 0, judge, scratch)
    assert score.py_func(plan, rows[0], 0, judge, -np.inf, scratch) == pytest.approx(step * (1 - 0.98**25) / 0.02)
    assert score.py_func(plan, rows[0], 0, judge, 1000.0, scratch) == -np.inf


@pytest.mark.parametrize("make", [RuleDriver, ObservationPlanner])
def test_a_blocked_lane_is_left_for_the_free_one(make: type) -> None:
    driver = make(RiskWorld({}, 1))
    wall = [(14.0, 0.0, -10.0, 0.0), (12.0, 4.0, -10.0, 0.0), (12.0, 8.0, -10.0, 0.0), (2.0, 4.0, 0.0, 0.0)]
    actions, _, extras = driver.act({}, scene(*wall), driver.initial_memory(1), None)
    assert actions.shape == (1, 2)
    assert actions.dtype == np.float32
    assert actions[0, 1] < -0.02
    assert extras == {}
    shut = [*wall, (0.0, -4.0, 0.0, 0.0), (-8.0, -4.0, 0.0, 0.0), (8.0, -4.0, 0.0, 0.0)]
    actions, _, _ = driver.act({}, scene(*shut), driver.initial_memory(1), None)
    assert abs(actions[0, 1]) < 0.02
    assert actions[0, 0] < 0.0


def test_the_rules_see_a_changing_car_in_both_lanes() -> None:
    rows = scene((30.0, 2.0, -5.0, 1.0))
    inside = occupancy(rows, 4)
    np.testing.assert_array_equal(inside[0, :, 0], [False, True, True, False])
    gap, closing = leaders(rows, inside)
    np.testing.assert_allclose(gap[0], [np.inf, 25.0, 25.0, np.inf])
    np.testing.assert_allclose(closing[0], [0.0, 5.0, 5.0, 0.0])


@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_a_row_is_driven_alike_in_any_batch(name: str) -> None:
    together, _, _ = drive_world(name, [10_000, 10_001], 4)
    alone, _, _ = drive_world(name, [10_001], 4)
    np.testing.assert_array_equal(together[:, 1:], alone)


def test_the_state_planner_leaves_its_world_alone_and_gets_out_of_what_it_foresees() -> None:
    world = RiskWorld({"vehicles_count": 3}, 1)
    observations, _ = world.reset([3])
    world.engine.simulator.set_scene(  # type: ignore[attr-defined]
        0, x=np.array([100.0, 140, 140, 140]), y=np.array([4.0, 4, 8, 12]), heading=np.zeros(4),
        speed=np.array([40.0, 20, 20, 20]), target_lane=np.array([1, 1, 2, 3]), target_speed=np.full(4, 20.0),
    )  # fmt: skip
    planner = StatePlanner(world, plans=64)
    memory = planner.initial_memory(1)
    observations = world.set_state(world.get_state())
    for _ in range(15):
        before = world.get_state()
        actions, memory, _ = planner.act({}, observations, memory, None)
        after = world.get_state()
        assert all(np.array_equal(before[name], after[name]) for name in before)
        step = world.step(actions)
        observations = step.observations
        assert not step.terminated[0]
    assert world.engine.simulator.ego_position[0, 0] > 205  # type: ignore[attr-defined]


def test_the_observation_planner_is_faster_than_the_rules_and_both_stay_whole() -> None:
    seeds = [10_000, 10_001, 10_002]
    _, planned, planner_ended = drive_world("observation-planner", seeds, 100)
    _, ruled, rules_ended = drive_world("rules", seeds, 100)
    assert not planner_ended.any()
    assert not rules_ended.any()
    assert planned.min() > 20.0
    assert planned.mean() > ruled.mean() + 10.0


@pytest.mark.parametrize("name", sorted(DRIVERS))
@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"action": {"type": "DiscreteMetaAction"}}, "action.type"),
        ({"action": {"steering_range": [-0.1, 0.1]}}, "action.steering_range"),
        ({"observation": {"normalize": True}}, "observation.normalize"),
    ],
)
def test_a_world_that_drivers_do_not_know_is_refused(name: str, config: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        DRIVERS[name](make_vector_env(config, 1))


def test_the_state_planner_needs_a_world_that_can_be_copied() -> None:
    with pytest.raises(UsageError, match="compiled"):
        DRIVERS["planner"](make_vector_env({"engine": "highway-env"}, 1))
