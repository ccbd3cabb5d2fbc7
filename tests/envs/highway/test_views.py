"""Lane slots against a loop over cars, and the controller against the car it steers."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.highway import make_vector_env
from racer.envs.highway.views import CONTROLLERS, VIEWS, LaneSlots, Targets


def random_rows(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = np.zeros((count, 15, 6), np.float32)
    rows[:, 0] = np.stack(
        [np.ones(count), rng.uniform(0, 100, count), rng.uniform(-1, 13, count), rng.uniform(20, 40, count),
         rng.uniform(-2, 2, count), rng.uniform(-0.1, 0.1, count)], axis=1,
    )  # fmt: skip
    present = rng.random((count, 14)) < 0.8
    others = np.stack(
        [np.ones((count, 14)), rng.uniform(-60, 100, (count, 14)), rng.uniform(-13, 13, (count, 14)),
         rng.uniform(-15, 15, (count, 14)), rng.choice([0.0, 0.1, -1.5, 2.0], (count, 14)),
         rng.uniform(-0.1, 0.1, (count, 14))], axis=2,
    )  # fmt: skip
    rows[:, 1:] = others * present[..., None]
    return rows


def slots_by_hand(rows: np.ndarray, lanes: int) -> list[float]:
    _, _, y, vx, vy, heading = (float(v) for v in rows[0])
    lane = min(max(round(y / 4.0), 0), lanes - 1)
    found: list[float] = []
    for offset in range(-2, 3):
        alongside, ahead = [], []
        for present, dx, dy, dvx, dvy, _ in rows[1:].astype(float):
            if present < 0.5:
                continue
            place, w = (dy + y) / 4.0, dvy + vy
            inside = {int(np.floor(place)), int(np.ceil(place))} if abs(w) > 0.25 else {round(place)}
            if lane + offset in inside:
                slot = [1.0, 0.04 * dx, 0.1 * dvx, 0.25 * dy, 0.3 * w]
                (ahead if dx > 6.0 else alongside).append((abs(dx), slot))
        alongside.sort()
        ahead.sort()
        chosen = [alongside[:1], ahead[:1], ahead[1:2]]
        for part in chosen:
            found += part[0][1] if part else [0.0] * 5
    found += [0.5 * (y - 4 * lane), 8 * heading, 0.1 * (vx - 35), 0.25 * vy]
    return found + [float(0 <= lane + offset < lanes) for offset in range(-2, 3)]


@pytest.mark.parametrize("lanes", [3, 4])
def test_lane_slots_are_what_a_loop_over_cars_finds(lanes):
    rows = random_rows(np.random.default_rng(lanes), 300)
    view = LaneSlots(lanes)
    found = view(rows)
    assert found.shape == (300, *view.shape((15, 6)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [slots_by_hand(row, lanes) for row in rows], atol=1e-5)
    assert (found[:, 0:75:5] == 1.0).any(axis=0).all()  # every slot was filled somewhere
    np.testing.assert_allclose(jax.jit(view)(rows), found, atol=1e-5)


def test_lane_slots_do_not_depend_on_the_order_of_the_others():
    rng = np.random.default_rng(0)
    rows = random_rows(rng, 50)
    shuffled = rows.copy()
    shuffled[:, 1:] = shuffled[:, 1 + rng.permutation(14)]
    np.testing.assert_array_equal(VIEWS["lane_slots"](rows), VIEWS["lane_slots"](shuffled))


def test_lane_slots_refuse_other_observations():
    with pytest.raises(UsageError, match="reads rows of presence, x, y, vx, vy, heading"):
        LaneSlots().shape((90,))


@pytest.mark.parametrize(("speed", "offset"), [(1.0, 0.0), (-1.0, 0.0), (0.0, 0.8), (0.5, -0.8)])
def test_a_car_reaches_what_it_aims_at(speed, offset):
    config = {"vehicles_count": 0, "initial_lane_id": 1, "flatten_observation": False}
    env = make_vector_env(config, 1)
    observation, _ = env.reset(seed=3)
    target = observation[0, 0, 2] + 4.5 * offset
    controller = CONTROLLERS["targets"]
    for _ in range(60):
        # The place aimed at is given relative to the car, so the remaining distance is what is asked for.
        rest = np.clip((target - observation[0, 0, 2]) / 4.5, -1.0, 1.0)
        action = controller(observation, np.array([[speed, rest]], np.float32))
        assert (np.abs(action) <= 1.0).all()
        observation, *_ = env.step(action.astype(np.float32))
    env.close()
    assert observation[0, 0, 2] == pytest.approx(target, abs=0.2)
    assert observation[0, 0, 3] == pytest.approx(30.0 + 10.0 * speed, abs=0.5)
    assert abs(observation[0, 0, 5]) < 0.02


def test_the_place_aimed_at_stays_on_the_road():
    rows = random_rows(np.random.default_rng(1), 200)
    rows[:, 0, 2], rows[:, 0, 5] = 12.0, 0.0
    outwards = Targets()(rows, np.tile(np.array([0.0, 1.0], np.float32), (200, 1)))
    further = Targets(lanes=5)(rows, np.tile(np.array([0.0, 1.0], np.float32), (200, 1)))
    assert (outwards[:, 1] < further[:, 1] + 1e-9).all()
    still = np.zeros((200, 2), np.float32)
    np.testing.assert_allclose(jax.jit(Targets())(rows, still), Targets()(rows, still), atol=1e-5)
