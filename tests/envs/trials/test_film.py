"""Films of trials: every car is visible in every trial, and the strip above says which trial it is."""

from __future__ import annotations

import numpy as np
import pytest

from racer.envs.registry import get_world
from racer.envs.trials.drawing import DRAWING, OVERLAY
from racer.envs.trials.env import HighwayTrialsEnv

IDLE = 1
CAR_COLORS = {(100, 200, 255), (50, 200, 0), (255, 100, 100), (200, 200, 0)}
"""highway-env's blue, green (the ego), red (crashed) and yellow."""


def visible(frame, scene, followed=0):
    """Return for each car whether its colour stands where it is, and whether that is inside the picture."""
    height, width = DRAWING["screen_height"], DRAWING["screen_width"]
    left, middle = DRAWING["centering_position"]
    px = np.rint((scene["x"] - scene["x"][followed]) * DRAWING["scaling"] + left * width).astype(int)
    py = np.rint((scene["y"] - scene["y"][followed]) * DRAWING["scaling"] + middle * height).astype(int)
    inside = (px > 15) & (px < width - 15) & (py > 5) & (py < height - 5)
    road = frame[OVERLAY:]
    shown = np.array([
        bool(ok) and any(tuple(pixel) in CAR_COLORS for pixel in road[y - 3 : y + 4, x - 6 : x + 7].reshape(-1, 3))
        for x, y, ok in zip(px, py, inside, strict=True)
    ])  # fmt: skip
    return shown, inside


@pytest.mark.parametrize("scene", ["hidden_lane", "courteous"])
def test_every_car_is_visible_in_every_trial(scene):
    env = HighwayTrialsEnv({"scene": scene, "k_scenarios": 3, "scenario_length": 4}, render_mode="rgb_array")
    env.reset(seed=2)
    frames = []
    for tick in range(12):
        assert env.world.trial[0] == tick // 4
        frame = env.render()
        assert frame.shape == (DRAWING["screen_height"] + OVERLAY, DRAWING["screen_width"], 3)
        shown, inside = visible(frame, env.world.simulator.scene(0))
        assert inside[0]
        assert inside.sum() >= 3
        np.testing.assert_array_equal(shown, inside)
        frames.append(frame)
        env.step(IDLE)
    for tick in range(4):
        for k in (1, 2):
            later = frames[4 * k + tick]
            np.testing.assert_array_equal(frames[tick][OVERLAY:], later[OVERLAY:])
            assert (frames[tick][:OVERLAY] != later[:OVERLAY]).any(), "the strip names the trial"
    env.close()


def test_a_film_goes_on_with_the_egos_that_are_left():
    """The first ego is done early; the picture follows the other one, with the cars around it."""
    env = HighwayTrialsEnv({"egos": 2, "k_scenarios": 2, "policy_frequency": 1}, render_mode="rgb_array")
    env.reset(seed=30001)
    faster, slower = 3, 4
    for _ in range(28):
        env.step(np.array([faster, slower]))
        if env.world.removed[0]:
            break
    assert list(env.world.removed) == [True, False]
    assert env.world.followed == 1
    scene = env.world.simulator.scene(0)
    shown, inside = visible(env.render(), scene, followed=1)
    assert inside[1]
    assert inside.sum() >= 3
    np.testing.assert_array_equal(shown, inside)
    env.close()


def test_films_run_at_the_true_speed():
    film = get_world("trials").get_film()
    config = get_world("trials").resolve({"k_scenarios": 2, "scenario_length": 3})
    env = film.make(config)
    env.reset(seed=0)
    for _ in range(6):
        env.step(IDLE)
    seconds, steps = film.clock(config)
    assert len(env.render()) == round(6 * seconds * env.metadata["render_fps"]) + 1
    assert steps == 6
    env.close()


def test_every_ego_has_the_colour_of_one():
    env = HighwayTrialsEnv({"egos": 2, "k_scenarios": 2, "scenario_length": 8}, render_mode="rgb_array")
    env.reset(seed=2)
    green = (env.render()[OVERLAY:] == (50, 200, 0)).all(axis=-1)
    columns = np.flatnonzero(green.any(axis=0))
    assert (np.diff(columns) > 1).sum() == 1, "two cars, one behind the other"
    env.close()
