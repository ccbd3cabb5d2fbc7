"""What each world's replay records is what happened, and a page plays it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_browser

from racer.envs.highway.replay import CRASHED
from racer.envs.registry import get_world
from racer.envs.trials.env import HighwayTrialsEnv
from racer.envs.trials.scenes import HOLD, LANE_HALF
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.episodes import evaluate_policy, run_episode
from racer.evaluation.html_report import Group, write_report
from racer.evaluation.program import EvaluationOptions, evaluate_checkpoint
from racer.evaluation.recording import mined, record_episodes
from racer.networks.uniform import uniform_policy

WORLDS = {
    "lateral": {"max_steps": 30},
    "tmaze": {"length": 3, "max_episode_steps": 40},
    "trials": {"k_scenarios": 3, "scene": "hidden_lane"},
    "gym:Pendulum-v1": {"max_episode_steps": 20},
    "gym:CartPole-v1": {},
}


def prepared(name):
    world = get_world(name)
    config = world.held_out(world.resolve(WORLDS[name]))
    env = world.make(config, 1)
    policy = uniform_policy(env.single_action_space)
    env.close()
    return world, config, policy


@pytest.mark.parametrize("name", WORLDS)
def test_recorded_episodes_are_the_evaluated_ones(name):
    world, config, policy = prepared(name)
    evaluated = evaluate_policy(policy, {}, world, config, range(5, 9), deterministic=False)
    recorded = record_episodes(policy, world, config, range(5, 9), deterministic=False)
    assert [recording.episode for recording in recorded] == list(evaluated.episodes)
    for recording in recorded:
        assert len(recording.moments) == (0 if world.replay.scene is None else recording.steps + 1)
        for curves in recording.traces:
            assert len(curves.values) == recording.steps
            assert np.isfinite(curves.values).all()
        assert recording.traces[-1].values[-1] == pytest.approx(recording.episode.metrics["return"], rel=1e-6)
        assert set(recording.facts) == set(recorded[0].facts)


def test_lateral_control_shows_target_and_car():
    world, config, policy = prepared("lateral")
    recording, = record_episodes(policy, world, config, [3], deterministic=False)
    env = world.replay.make(config)
    infos = [step.info for step in run_episode(policy, {}, world, env, 3, deterministic=False)]
    env.close()
    target, actual = (np.array([info[name] for info in infos]) for name in ("target", "lataccel"))
    np.testing.assert_array_equal(recording.traces[0].values, np.stack([target, actual], axis=1))
    assert recording.facts["greatest error [m/s^2]"] == np.abs(target - actual).max()
    costs = recording.traces[3].values.sum()
    assert costs == pytest.approx(-recording.episode.metrics["return"])


def test_the_maze_shows_where_the_agent_is():
    world, config, _ = prepared("tmaze")
    env = world.replay.make(config)
    env.reset(seed=4)
    goal = "north" if env.state.goal[0] == 0 else "south"
    places = []
    for action in (3, 2, 2, 2, 2, 2, 0 if goal == "north" else 1):
        env.step(action)
        places.append(tuple(world.replay.scene.shapes(env).boxes[-1, :2]))
    junction, side = float(config["length"] + 1), -1.0 if goal == "north" else 1.0
    assert places == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (4, 0), (junction, side)]
    goal_box = world.replay.scene.shapes(env).boxes[0]
    assert tuple(goal_box[:2]) == places[-1]
    env.close()


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_the_end_of_every_trial_is_seen(seed):
    """A step that ends a trial shows the next one's first moment; the replay shows where the car came to."""
    world, config, _ = prepared("trials")
    plain, env = HighwayTrialsEnv(config), world.replay.make(config)
    for each in (plain, env):
        each.reset(seed=seed)
    start, ends = plain.world.travelled[0], []
    while True:
        *_, terminated, _, info = plain.step(1)
        env.step(1)
        moment = world.replay.scene.shapes(env)
        goal, ego = moment.boxes[[0, -1]]
        before_goal = goal[0] + HOLD / 2 - ego[0]
        if not info["trial_end"]:
            assert before_goal == pytest.approx(plain.world.scene.distance - plain.world.travelled[0])
            continue
        ends.append("crashed" if info["crashed"] else "missed" if info["missed"] else "reached")
        inside = abs(ego[1] - goal[1]) < LANE_HALF
        if info["crashed"]:
            assert ego[5] == CRASHED
        else:
            assert before_goal <= (0.0 if info["goal_reached"] else HOLD)
            assert inside == info["goal_reached"]
        if terminated:
            break
        assert plain.world.travelled[0] == start
    assert len(ends) == 3
    plain.close()
    env.close()


def page_data(path: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])


def page_of(name, folder, count=4):
    world, config, policy = prepared(name)
    result = evaluate_policy(policy, {}, world, config, range(count), deterministic=False)
    recorded = record_episodes(policy, world, config, range(count), deterministic=False)
    mining = mined(policy, world, config, result.episodes, count=2, deterministic=False)
    groups = [Group("worst", [(recording,) for recording in recorded])]
    page = write_report(
        folder, world, {"random": result}, groups, mining,
        players=["random"], differences={}, seconds=0.5, cvar_risk=0.8,
    )  # fmt: skip
    return page, recorded


@pytest.mark.parametrize("name", ["lateral", "gym:CartPole-v1"])
def test_pages_without_a_scene_hold_the_traces(name, tmp_path):
    page, recorded = page_of(name, tmp_path)
    data = page_data(page)
    assert data["scene"] is None
    for (packed,), recording in zip(data["groups"][0]["episodes"], recorded, strict=True):
        assert "boxes" not in packed
        assert packed["steps"] == recording.steps
        for shown, curves in zip(packed["traces"], recording.traces, strict=True):
            values = np.array(shown["values"]).T.reshape(curves.values.shape)
            np.testing.assert_allclose(values, curves.values, rtol=1e-3, atol=1e-9)


def test_a_shipped_trial_policy_has_a_whole_report(tmp_path):
    options = EvaluationOptions(tmp_path, num_episodes=3, report=True, mine=4)
    outcome = evaluate_checkpoint(load_policy("trials-hidden-lane"), options)
    data = page_data(outcome.report)
    assert [kind[0] for kind in data["scene"]["kinds"]][-1] == "the goal's lane"
    packed = data["groups"][0]["episodes"][0][0]
    rows = np.split(np.frombuffer(base64.b64decode(packed["boxes"]), "<i2").reshape(-1, 5), np.cumsum(packed["counts"]))
    assert any((row[:, 4] == 3).any() for row in rows)
    assert "trials that missed the lane" in outcome.table


def test_pages_of_all_worlds_play_in_a_browser(tmp_path):
    browser = Browser(*find_browser())
    try:
        for name in WORLDS:
            page, _ = page_of(name, tmp_path)
            browser.open(page)
            scenes = 0 if get_world(name).replay.scene is None else 1
            assert browser.run("return document.querySelectorAll('.player canvas').length") == 1 + scenes
            drawn = (
                "return new Set(document.querySelector('.traces').getContext('2d').getImageData(0, 0, 600, 200).data)"
                ".size"
            )
            assert browser.run(drawn) > 10
            browser.run("state.playing = false; state.time = 1e9; drawAll();")
            assert browser.errors() == [], name
    finally:
        browser.close()
