import json
import math
import os

import pytest

from racer.core.errors import UsageError
from racer.envs.highway.episode import EPISODE_METRICS
from racer.envs.registry import get_world
from racer.envs.world import World
from racer.evaluation.episodes import EpisodeResult, EvaluationResult
from racer.evaluation.paired import paired_differences, verdict
from racer.evaluation.report import format_table, read_evaluation, write_evaluation
from racer.evaluation.summary import aggregate_episodes

HIGHWAY = get_world("highway")


def make_result(returns=(1.0, 3.0), **metrics: float) -> EvaluationResult:
    base = dict.fromkeys(EPISODE_METRICS, 0.0) | {"length": 10.0, "min_distance": 5.0} | metrics
    episodes = tuple(EpisodeResult(10_000 + i, "time_limit", base | {"return": r}) for i, r in enumerate(returns))
    aggregate = aggregate_episodes([e.metrics for e in episodes], HIGHWAY.metrics, cvar_level=0.8)
    return EvaluationResult(HIGHWAY, episodes, aggregate, {"cvar_level": 0.8, "limit": math.inf})


def parse_strictly(text: str):
    def refuse(token: str):
        raise AssertionError(f"{token} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_file_is_strict_json_with_null_for_what_is_not_finite(tmp_path):
    path = write_evaluation(tmp_path, make_result(returns=[1.0], min_distance=math.inf))
    document = parse_strictly(path.read_text())
    assert path.name == "evaluation_metrics.json"
    assert document["aggregate"]["std_return"] is None
    assert document["aggregate"]["mean_min_distance"] is None
    assert document["episodes"][0]["min_distance"] is None
    assert document["configuration"]["limit"] is None


@pytest.mark.parametrize(
    ("returns", "words"),
    [
        ((10.0, 11.0, 12.0), "Better than random actions: mean return 11.00 against 1.00"),
        ((-10.0, -11.0, -12.0), "Worse than random actions"),
        ((0.0, 2.0, 4.0), "Not to be told from random actions"),
    ],
)
def test_verdict_asks_for_a_difference_whose_interval_leaves_out_zero(returns, words):
    ours, random = make_result(returns), make_result((0.0, 1.0, 2.0))
    assert verdict(ours, random, paired_differences(ours, random)).startswith(words)


def test_verdict_of_one_episode_is_none():
    ours, random = make_result((50.0,)), make_result((0.0,))
    said = verdict(ours, random, paired_differences(ours, random))
    assert said.startswith("Not to be told from random actions")
    assert said.endswith("paired difference +50.00, 95% interval [-, -].")


def test_file_holds_episodes_with_their_seeds_and_the_aggregate(tmp_path):
    document = read_evaluation(write_evaluation(tmp_path, make_result(), {"random": make_result(returns=(0.0, 0.0))}))
    found = [(e["episode"], e["seed"], e["return"]) for e in document["episodes"]]
    assert found == [(0, 10_000, 1.0), (1, 10_001, 3.0)]
    assert document["episodes"][0]["crashed"] is False
    assert document["episodes"][0]["length"] == 10
    assert document["aggregate"]["mean_return"] == 2.0
    assert document["comparisons"]["random"]["aggregate"]["mean_return"] == 0.0


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_evaluation(tmp_path, make_result())
    before = path.read_text()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_evaluation(tmp_path, make_result(returns=(9.0, 9.0)))
    assert path.read_text() == before
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(("text", "word"), [("{", "cannot be read as JSON"), ("[]", "not an evaluation file")])
def test_broken_files_are_named(tmp_path, text, word):
    path = tmp_path / "evaluation_metrics.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=word):
        read_evaluation(path)
    with pytest.raises(UsageError, match=r"missing\.json"):
        read_evaluation(tmp_path / "missing.json")


def test_table_shows_the_numbers_under_its_heading():
    table = format_table({"policy": make_result(), "random": make_result(returns=(-5.0, -5.0))})
    lines = table.splitlines()
    assert lines[1].strip() == "HIGHWAY POLICY EVALUATION RESULTS"
    row = next(line for line in lines if line.startswith("Mean return"))
    assert row.split()[2:] == ["2.00", "-5.00"]
    assert any("CVaR 0.8 of return (worst 20%)" in line and line.split()[-2:] == ["1.00", "-5.00"] for line in lines)


def test_table_of_one_episode_shows_a_dash_for_the_unknown():
    table = format_table({"policy": make_result(returns=[1.0])})
    row = next(line for line in table.splitlines() if "standard deviation" in line)
    assert row.split()[-1] == "-"


def test_rows_stand_in_the_order_of_the_metrics():
    labels = [line[:30].rstrip() for line in format_table({"policy": make_result()}).splitlines()[3:-1]]
    assert labels == [
        "Episodes", "Mean return", "  standard deviation", "  95% interval of the mean",
        "CVaR 0.8 of return (worst 20%)", "Mean episode length [steps]", "Success rate", "Collision rate",
        "  95% interval", "Off-road rate", "Safety violation rate (steps)", "Mean minimum distance [m]",
        "Mean ego speed [m/s]", "Mean forward speed [m/s]", "Driving backwards (steps)", "Spinning (steps)",
        "Standing still (steps)",
    ]  # fmt: skip


def test_a_world_that_reports_return_and_length_has_a_table_too():
    world = World("gym:Some/Thing-v1", lambda config: {}, lambda config, num_envs: None)
    episodes = tuple(EpisodeResult(i, "terminated", {"return": 1.0, "length": 3.0}) for i in range(2))
    aggregate = aggregate_episodes([e.metrics for e in episodes], world.metrics, cvar_level=1.0)
    lines = format_table({"policy": EvaluationResult(world, episodes, aggregate)}).splitlines()
    assert lines[1].strip() == "GYM:SOME/THING-V1 POLICY EVALUATION RESULTS"
    assert [line.split("  ")[0] for line in lines[3:-1] if not line.startswith(" ")] == [
        "Episodes", "Mean return", "CVaR 1 of return (worst episode)", "Mean episode length [steps]",
    ]  # fmt: skip
