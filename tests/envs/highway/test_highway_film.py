"""The panel below the road: every number is on it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from racer.envs.highway.closing import ClosingCar
from racer.envs.highway.film import FILM, choice_name, mark, reward_rows
from racer.envs.registry import get_world
from racer.envs.world import Step
from racer.evaluation.episodes import EvaluationStep, run_episode
from racer.evaluation.film import Caption, Pictures
from racer.networks.uniform import uniform_policy

WORLD = get_world("highway")
CONFIG = WORLD.resolve(None)
INFO = {
    "speed": 31.0, "forward_speed": 30.5, "time_to_collision": 3.0, "min_distance": 12.0,
    "reward_components": {"base_reward": 0.4, "original_speed": 0.5, "forward_speed": 0.1, "safety_reward": 0.0},
}  # fmt: skip
STEP = Step(1, np.zeros(90, np.float32), np.array([0.5, -0.1]), 0.3, 4.0, INFO)


def told(**info) -> Step:
    return replace(STEP, info={**INFO, **info})


def compose(step: Step | None, time: float = 0.0, end: str | None = None, **config) -> np.ndarray:
    pictures = Pictures(FILM, {**CONFIG, **config}, Caption("checkpoint_7", 0, 3))
    if step is not None:
        pictures.push(EvaluationStep(**vars(step), chosen=step.action, result=None))
    return pictures.compose(np.full((150, 600, 3), 100, np.uint8), time, end)


def differs(step: Step, **config) -> bool:
    return int(np.abs(compose(STEP).astype(int) - compose(step, **config)).max()) > 60


@pytest.mark.parametrize(
    "changed",
    [
        told(speed=12.0),
        told(forward_speed=-3.0),
        told(time_to_collision=1.0),
        told(time_to_collision=math.inf),
        told(closing_car=ClosingCar((22.0, 4.0), (23.0, 4.0))),
        told(min_distance=3.0),
        told(reward_components={**INFO["reward_components"], "safety_reward": -1.0}),
        replace(STEP, episode_return=-2.0),
        replace(STEP, reward=-0.5),
        replace(STEP, action=np.array([0.5, 0.9])),
    ],
)
def test_the_panel_shows_each_number(changed):
    assert differs(changed)


def test_the_rows_are_the_parts_as_they_enter_the_sum():
    weights = {**CONFIG, "speed_weight": 0.4, "safety_coeff": 0.5}
    parts = {**INFO["reward_components"], "safety_reward": -0.2}
    rows = reward_rows(replace(told(reward_components=parts), reward=0.14), weights)
    assert [row[:2] for row in rows] == [
        ("base reward", 0.4), ("speed term, taken out", -0.2), ("forward speed, put in", pytest.approx(0.04)),
        ("safety", -0.1), ("training reward", 0.14),
    ]  # fmt: skip
    off_road = told(reward_components={**INFO["reward_components"], "offroad_penalty": -2.0})
    assert [row[:2] for row in reward_rows(replace(off_road, reward=-1.6), {**CONFIG, "reward": "base"})] == [
        ("base reward", 0.4), ("off the road", -2.0), ("training reward", -1.6),
    ]  # fmt: skip
    assert differs(STEP, reward="base")


@pytest.mark.parametrize("reward", ["training", "base"])
def test_the_rows_of_a_drive_off_the_road_add_up(reward):
    config = WORLD.resolve({"offroad_penalty": -3.0, "safety_coeff": 0.7, "reward": reward, "vehicles_count": 3})
    env = FILM.make(config)
    env.reset(seed=3)
    ended, index, kinds = False, 0, set()
    while not ended:
        # Straight on, then off to the right.
        action = np.array([1.0, 0.0 if index < 10 else 0.3], np.float32)
        observation, paid, terminated, truncated, info = env.step(action)
        ended, index = terminated or truncated, index + 1
        rows = reward_rows(Step(index, observation, action, paid, 0.0, info), config)
        assert sum(value for _, value, _ in rows[:-1]) == pytest.approx(rows[-1][1], abs=1e-9)
        assert len(rows) <= 5
        kinds |= {name for name, *_ in rows}
    env.close()
    assert "off the road" in kinds


def test_the_car_that_the_time_to_collision_is_that_of_is_named_and_ringed():
    config = WORLD.resolve({"vehicles_count": 30, **FILM.video})
    env, found = FILM.make(config), 0
    observation, _ = env.reset(seed=4)
    env.render()
    for _ in range(60):
        observation, *_, terminated, _, info = env.step(np.array([1.0, 0.0], np.float32))
        frames, car = env.render(), info["closing_car"]
        assert (car is None) == math.isinf(info["time_to_collision"])
        if car is not None:
            away = observation[1:, 1:3] - np.array(car.place)
            row = observation[1:][np.hypot(*away.T).argmin()].astype(float)
            distance = math.hypot(row[1], row[2])
            closing = -(row[1] * row[3] + row[2] * row[4]) / distance
            assert (distance - 5.0) / closing == pytest.approx(info["time_to_collision"], rel=1e-3, abs=1e-3)
            found += ringed(frames, Step(1, observation, np.zeros(2), 0.0, 0.0, info), config)
        if terminated:
            break
    env.close()
    assert found > 20


def ringed(frames: list[np.ndarray], step: Step, config: dict) -> int:
    """In how many of a step's frames the ring is whole; there the car is in its middle."""
    count = 0
    for number, frame in enumerate(frames, 1):
        picture = Image.fromarray(frame)
        mark(picture, step, number / len(frames), config)
        rows, columns = np.nonzero((np.asarray(picture) != frame).any(axis=-1))
        beside = step.info["closing_car"].place[0] < 12.0  # where the ego is in the ring too
        if beside or not len(rows) or columns.max() >= frame.shape[1] - 1:
            continue
        inside = frame[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(int)
        painted = np.nonzero(np.ptp(inside, axis=-1) > 60)
        middle = [(axis.min() + axis.max()) / 2 for axis in painted]
        assert middle == pytest.approx([(size - 1) / 2 for size in inside.shape[:2]], abs=3.0)
        count += 1
    return count


@pytest.mark.parametrize(
    ("place", "words"),
    [((22.0, -1.9), "car ahead, 22 m"), ((21.6, -4.0), "car ahead left, 22 m"), ((30.0, 4.0), "car ahead right, 30 m")],
)
def test_the_car_is_named_as_its_driver_sees_it(place, words):
    assert ClosingCar(place, place).words() == words


def test_steps_of_the_world_can_be_drawn():
    config = WORLD.resolve({"vehicles_count": 3, "duration": 1, "reward": "base"})
    env = FILM.make(config)
    try:
        step = next(iter(run_episode(uniform_policy(env.action_space), {}, WORLD, env, 10_000, deterministic=False)))
    finally:
        env.close()
    assert step.reward == step.info["reward_components"]["base_reward"]
    pictures = Pictures(FILM, config, Caption("p", 0, 1))
    pictures.push(step)


def test_choices_are_named():
    assert choice_name(np.int64(3), {"type": "DiscreteMetaAction"}) == "faster"
    assert choice_name(0, {"type": "DiscreteMetaAction", "lateral": False}) == "slower"
    assert choice_name(7, {"type": "DiscreteAction"}) == "choice 7"
    action = {"type": "DiscreteMetaAction"}
    chosen = [compose(replace(STEP, action=np.int64(number)), action=action) for number in (1, 3)]
    assert np.abs(chosen[0].astype(int) - chosen[1]).max() > 60


def test_a_picture_shows_the_clock_and_the_end():
    picture = compose(STEP, 3.0)
    np.testing.assert_array_equal(picture, compose(STEP, 3.0))
    assert (picture != compose(STEP, 3.1)).any()
    assert len({compose(STEP, 3.0, end).tobytes() for end in ("collision", "off_road", "time_limit")}) == 3
    assert (picture != compose(STEP, 3.0, "collision")).any()


def test_a_picture_widens_the_road_and_keeps_its_shape():
    # 600 x 150 becomes 1280 x 320: that many rows of the road's grey on the left edge.
    assert (compose(STEP)[:, 2] == 100).all(axis=1).sum() == 320


def test_the_clock_is_the_worlds():
    assert FILM.clock(CONFIG) == (0.2, 200)
    assert FILM.clock({**CONFIG, "max_episode_steps": 50}) == (0.2, 50)
