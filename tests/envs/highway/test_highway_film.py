"""The panel below the road: every number is on it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from racer.envs.highway.film import FILM, choice_name, reward_rows
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
        told(min_distance=3.0),
        told(reward_components={**INFO["reward_components"], "safety_reward": -1.0}),
        replace(STEP, episode_return=-2.0),
        replace(STEP, reward=-0.5),
        replace(STEP, action=np.array([0.5, 0.9])),
    ],
)
def test_the_panel_shows_each_number(changed):
    assert differs(changed)


def test_the_panel_shows_the_parts_that_count():
    assert [name for name, _, _ in reward_rows(STEP, shaped=True)] == [
        "base reward", "speed term, taken out", "forward speed, put in", "safety", "training reward",
    ]  # fmt: skip
    assert reward_rows(STEP, shaped=True)[-1][1] == 0.3
    off_road = told(reward_components={**INFO["reward_components"], "offroad_penalty": -2.0})
    assert [row[:2] for row in reward_rows(replace(off_road, reward=-1.6), shaped=False)] == [
        ("base reward", 0.4), ("off the road", -2.0), ("training reward", -1.6),
    ]  # fmt: skip
    assert differs(STEP, reward="base")


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
