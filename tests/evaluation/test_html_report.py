"""The report: what is recorded is what happened, and it fits into one file that needs nothing else."""

from __future__ import annotations

import base64
import json
import math
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_browser
from evaluation_standins import COUNTING, write_tiny_checkpoint

import racer
from racer.__main__ import main as racer_main
from racer.core.errors import UsageError
from racer.envs.highway.env import RiskHighwayEnv
from racer.envs.highway.replay import REPLAY, last_moments
from racer.envs.registry import get_world
from racer.envs.replay import Shapes
from racer.envs.world import Step
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.episodes import EpisodeResult, evaluate_policy
from racer.evaluation.html_report import REPORT_BYTES, Group, write_report
from racer.evaluation.program import EvaluationOptions, evaluate_checkpoint
from racer.evaluation.recording import CriticTrace, Curves, Recording, mined, record_episodes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("policies") / "run", 10)


@pytest.fixture(scope="module")
def outcome(checkpoint, tmp_path_factory):
    options = EvaluationOptions(
        tmp_path_factory.mktemp("report"), num_episodes=12, against=load_policy("driver:rules"), report=True, mine=8,
        env_overrides={"vehicles_count": 12},
    )  # fmt: skip
    return evaluate_checkpoint(load_policy(checkpoint), options)


def page_data(path: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def array(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_the_page_holds_the_states_of_the_worst_episodes(outcome):
    data = page_data(outcome.report)
    worst = sorted(outcome.result.episodes, key=lambda episode: episode.metrics["return"])[:10]
    shown = data["groups"][0]["episodes"]
    assert [pair[0]["button"].split(":")[0] for pair in shown] == [str(episode.seed) for episode in worst]
    packed, trained = shown[0][0], load_policy(outcome.result.configuration["policy_file"])
    env = RiskHighwayEnv(outcome.result.configuration["env_config"])
    observation, _ = env.reset(seed=worst[0].seed)
    counts, eyes = packed["counts"], array(packed["eyes"], "<f4").reshape(-1, 2)
    rows = np.split(array(packed["boxes"], "<i2").reshape(-1, 5), np.cumsum(counts)[:-1])
    for moment, row in enumerate(rows):
        cars = dict(enumerate(np.roll(env.world.engine.cars(0), -1, axis=0)))
        place = eyes[moment] + row[:, 1:3] * packed["quantum"]
        for number, (x, y), heading in zip(row[:, 0], place, row[:, 3] / 10_000, strict=True):
            np.testing.assert_allclose([x, y, heading], cars.pop(int(number))[:3], atol=0.02)
        # What is left out is out of sight.
        for car in cars.values():
            away = np.abs(car[:2] - eyes[moment])
            assert away[0] > 0.7 * data["scene"]["extent"][0] or away[1] > 15
        if moment < len(rows) - 1:
            observation, *_, info = env.step(trained.predict(observation)[0])
            assert packed["traces"][0]["values"][0][moment] == pytest.approx(info["forward_speed"], rel=1e-3, abs=1e-3)
    env.close()
    assert packed["traces"][-1]["values"][0][-1] == pytest.approx(worst[0].metrics["return"], rel=1e-3)
    assert packed["end"] == worst[0].end_reason.replace("_", " ")


def test_both_policies_and_the_mined_episodes_are_there(outcome):
    data = page_data(outcome.report)
    assert [(group["title"], group["whose"], len(group["episodes"])) for group in data["groups"]] == [
        ("run/checkpoint_10: worst of the 12 evaluated episodes", 0, 10),
        ("driver:rules: worst of the 12 evaluated episodes", 1, 10),
        ("run/checkpoint_10: worst of 8 mined episodes", 0, 4),
    ]
    for group in data["groups"]:
        for first, second in group["episodes"]:
            assert first["policy"] == "run/checkpoint_10"
            assert second["policy"] == "driver:rules"
            assert first["button"].split(":")[0] == second["button"].split(":")[0]
    document = json.loads(outcome.metrics_path.read_text())
    assert document["mining"]["episodes"] == 8
    seeds = {row["seed"] for row in document["mining"]["worst"]}
    assert seeds <= set(range(10_012, 10_020))
    second = document["comparisons"]["driver:rules"]
    worst = sorted(second["episodes"], key=lambda episode: episode["return"])[:10]
    shown = [pair[1]["button"].split(":")[0] for pair in data["groups"][1]["episodes"]]
    assert shown == [str(episode["seed"]) for episode in worst]
    difference = document["paired_differences"]["driver:rules"]["mean_return"]
    means = document["aggregate"]["mean_return"], second["aggregate"]["mean_return"]
    assert difference["value"] == pytest.approx(means[0] - means[1])
    assert difference["low"] < difference["value"] < difference["high"]


def test_the_page_says_whose_episodes_it_shows_and_how_the_two_differ(outcome):
    text = outcome.report.read_text()
    assert "return of each episode of run/checkpoint_10:" in text
    assert "<h2>run/<wbr>checkpoint_<wbr>10: what the worst of 8 further episodes" in text
    assert "less driver:rules, paired by seed" in text
    assert "run/checkpoint_10 less driver:rules, paired by seed" in outcome.table


def test_a_page_of_very_many_episodes_is_no_larger(outcome, tmp_path):
    episodes = outcome.result.episodes * 5_000
    result = replace(outcome.result, episodes=episodes)
    recording = long_recording(300, 50, 11)
    groups = [Group("worst", [(recording,)] * 10)]
    path = write_report(tmp_path, get_world("highway"), {"many": result}, groups, None, players=["many"],
                        differences={}, seconds=0.2, cvar_risk=0.5)  # fmt: skip
    assert path.stat().st_size < REPORT_BYTES
    assert len(page_data(path)["groups"][0]["episodes"]) == 10
    assert "return of one episode in 12 of many:" in path.read_text()


def test_the_page_needs_no_network_and_is_small(outcome):
    text = outcome.report.read_text()
    assert "://" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"\b(src|href)=", text)
    assert len(text) < REPORT_BYTES


def test_numbers_of_the_page_are_those_of_the_table(outcome):
    text = outcome.report.read_text()
    for line in outcome.table.splitlines():
        found = re.search(r"(\[[-\d., %]+\]|-?\d+\.\d+%?)$", line.split("   ")[-1].strip())
        if found and "typical" not in line:
            assert f"<td>{found[1]}</td>" in text, line


def long_recording(steps: int, boxes: int, atoms: int) -> Recording:
    rng = np.random.default_rng(0)
    moments = [
        Shapes(np.column_stack([rng.uniform(-60, 60, (boxes, 2)), np.ones((boxes, 4))]), np.zeros(2))
        for _ in range(steps + 1)
    ]
    metrics = {metric.key: 1.0 for metric in get_world("highway").metrics} | {"length": float(steps)}
    critic = CriticTrace(np.linspace(0.0, 1.0, atoms), rng.dirichlet(np.ones(atoms), steps))
    return Recording(
        EpisodeResult(1, "time_limit", metrics), moments, [Curves("x [m]", None, rng.normal(size=steps))], {}, critic
    )


def test_long_episodes_are_thinned_and_keep_their_end(outcome, tmp_path):
    scene = replace(REPLAY.scene, extent=(200.0, 200.0))
    world = replace(get_world("highway"), replay=replace(REPLAY, scene=scene))
    recording = long_recording(1000, 100, 101)
    groups = [Group("worst", [(recording, recording)] * 10)]
    results = {"<a>": outcome.result, "</script>": outcome.result}
    path = write_report(tmp_path, world, results, groups, None, players=list(results), differences={},
                        seconds=0.2, cvar_risk=0.5)  # fmt: skip
    assert path.stat().st_size < REPORT_BYTES
    packed = page_data(path)["groups"][0]["episodes"][9][1]
    assert packed["policy"] == "</script>"
    assert packed["seconds"] > 0.2
    assert packed["steps"] * packed["seconds"] == pytest.approx(200.0, abs=2 * packed["seconds"])
    assert packed["traces"][0]["values"][0][-1] == pytest.approx(recording.traces[0].values[-1], rel=1e-3)
    assert len(array(packed["critic"]["probs"], "u1")) == packed["steps"] * len(packed["critic"]["atoms"])


def moments_of(positions: np.ndarray) -> list[Shapes]:
    """[T + 1, V, 2] positions, the ego last."""
    return [Shapes(np.column_stack([moment, np.zeros((len(moment), 4))]), np.zeros(2)) for moment in positions]


def test_facts_of_the_last_seconds_by_hand():
    config = {"policy_frequency": 1}
    # Ego at 30 m/s, changing from lane 1 to 0; a car at 20 m/s ahead in lane 0; one cuts in from lane 1 to lane 0
    # 20 m ahead; a third is behind.
    ego = [[0, 4], [30, 4], [60, 0], [90, 0]]
    slow = [[60, 0], [80, 0], [100, 0], [120, 0]]
    cutter = [[20, 4], [50, 4], [80, 4], [110, 0]]
    behind = [[-20, 4], [0, 4], [10, 0], [80, 0]]
    positions = np.stack([np.array(car, float) for car in (slow, cutter, behind, ego)], axis=1)
    steps = [Step(i, np.zeros(1), np.zeros(1), 0.0, 0.0, {"speed": 10.0 * i}) for i in (1, 2, 3)]
    facts = last_moments(steps, moments_of(positions), config)
    # Step 2: the slow car is 40 m ahead, closing at 10 m/s; step 3: the cutter 20 m, at the ego's speed.
    assert list(facts.values()) == [110.0 - 90.0 - 5.0, 10.0, 1.0, 1.0, 25.0]


def test_facts_without_a_car_ahead_are_not_numbers():
    positions = np.array([[[-50.0, 0.0], [0.0, 0.0]], [[-50.0, 0.0], [30.0, 0.0]]])
    steps = [Step(1, np.zeros(1), np.zeros(1), 0.0, 0.0, {"speed": 30.0})]
    facts = last_moments(steps, moments_of(positions), {"policy_frequency": 1})
    assert math.isnan(facts["least gap to the car ahead [m]"])
    assert facts["speed [m/s]"] == 30.0


def test_mining_compares_the_lowest_returns_with_the_middle(checkpoint):
    trained = load_policy(checkpoint)
    result = evaluate_policy(trained.policy, trained.params, trained.world, trained.env_config, range(30, 50))
    mining = mined(trained, trained.world, trained.env_config, result.episodes, count=4)
    ordered = np.sort(result.returns)
    assert [recording.episode.metrics["return"] for recording in mining.worst] == list(ordered[:4])
    assert [recording.episode.metrics["return"] for recording in mining.typical] == list(ordered[8:12])
    for recording in [*mining.worst, *mining.typical]:
        assert recording.episode in result.episodes
    name, bad, low, high, _ = mining.common()[-1]
    speeds = [recording.facts[name] for recording in mining.worst]
    assert (bad, low, high) == pytest.approx((np.median(speeds), min(speeds), max(speeds)))


def test_engines_show_the_same_cars():
    worlds = [RiskHighwayEnv({"engine": engine, "vehicles_count": 6}) for engine in ("compiled", "highway-env")]
    for env in worlds:
        env.reset(seed=3)
        env.step(np.array([0.5, 0.02], np.float32))
    ours, theirs = (env.world.engine.cars(0) for env in worlds)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    for env in worlds:
        env.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"mine": 1}, "mine must be at least 2"), ({"mine": -3}, "mine must be at least 2")],
)
def test_wrong_options(checkpoint, tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        evaluate_checkpoint(load_policy(checkpoint), EvaluationOptions(tmp_path, **options))


def test_worlds_without_replays_say_so():
    with pytest.raises(UsageError, match="world 'counting' has no replay"):
        record_episodes(load_policy("driver:rules"), COUNTING, {}, [1])


@pytest.mark.slow
def test_a_critic_is_asked_where_there_is_one(tmp_path):
    small = {"actor_hidden_dims": (8,), "critic_hidden_dims": (8,), "num_atoms": 11}
    run = racer.train(
        "highway", "cvar", config=small, env={"vehicles_count": 3}, policy_dir=tmp_path, max_steps=64, num_envs=2,
        start_training=32, batch_size=8, utd_ratio=1, eval_interval=0, progress=False,
    )  # fmt: skip
    trained = run.policy()
    recording, = record_episodes(trained, trained.world, trained.env_config, [5], critic=True)
    assert recording.critic is not None
    assert recording.critic.probs.shape == (len(recording.moments) - 1, 11)
    np.testing.assert_allclose(recording.critic.probs.sum(axis=1), 1.0, atol=1e-5)
    outcome = evaluate_checkpoint(trained, EvaluationOptions(tmp_path / "out", num_episodes=2, report=True))
    packed = page_data(outcome.report)["groups"][0]["episodes"][0][0]
    assert packed["critic"]["risk"] == trained.agent_config["cvar_risk"]


def test_it_opens_and_plays_in_a_browser(outcome):
    browser = Browser(*find_browser())
    try:
        browser.open(outcome.report)
        assert browser.run("return document.querySelectorAll('.episodes button').length") == 24
        assert browser.run("return document.querySelectorAll('.player canvas').length") == 4
        before = browser.run("return state.time")
        deadline = time.monotonic() + 20.0
        while browser.run("return state.time") <= before and time.monotonic() < deadline:
            time.sleep(0.1)
        assert browser.run("return state.time") > before
        colours = "return new Set(document.querySelector('.road').getContext('2d')" \
            ".getImageData(0, 0, 600, 100).data).size"  # fmt: skip
        assert browser.run(colours) > 10
        browser.run("document.getElementById('scrub').value = 0.4; document.getElementById('scrub').oninput("
                    "{target: document.getElementById('scrub')})")  # fmt: skip
        assert browser.run("return [state.time, state.playing]") == [0.4, False]
        browser.run("document.querySelectorAll('.episodes button')[21].click()")
        assert browser.run("return [state.group, state.index, state.playing]") == [2, 1, True]
        assert browser.run("return document.querySelector('.player h3').textContent").startswith("run/checkpoint_10")
        # The scene agrees with the recorded state: an ego-coloured pixel where the ego is.
        assert browser.run("return between(chosen()[0], 0).boxes.length") > 3
        assert browser.errors() == []
    finally:
        browser.close()


def test_the_programs_write_it(checkpoint, tmp_path):
    done = subprocess.run(
        [sys.executable, "scripts/sim/run_highway_policy.py", "--policy_file", str(checkpoint), "--num_episodes=2",
         "--report", "--mine=4", "--against=driver:rules", "--render=false", "--video_output_dir", str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"report:  {tmp_path / 'evaluation_report.html'}" in done.stdout
    assert "of 4 mined episodes" in done.stdout
    assert (tmp_path / "evaluation_report.html").exists()


def test_racer_evaluate_writes_it(checkpoint, tmp_path, capsys):
    words = ["evaluate", str(checkpoint), "--num_episodes=2", "--report", "--render=false"]
    assert racer_main([*words, f"--video_output_dir={tmp_path}"]) == 0
    assert str(tmp_path / "evaluation_report.html") in capsys.readouterr().out
