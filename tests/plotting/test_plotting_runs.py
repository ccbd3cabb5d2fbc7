import json

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.highway.episode import EPISODE_METRICS
from racer.envs.registry import get_world
from racer.evaluation.episodes import EpisodeResult, EvaluationResult
from racer.evaluation.report import write_evaluation
from racer.evaluation.summary import aggregate_episodes
from racer.plotting.runs import Curve, group_runs, load_run, mean_curve, smooth


def write_metrics(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_run_file(folder, seed, **agent_config):
    folder.mkdir(parents=True, exist_ok=True)
    document = {"agent_name": "SACLearner", "agent_config": agent_config, "env_config": {"duration": 40}, "seed": seed}
    (folder / "run.json").write_text(json.dumps(document))


def make_run(folder, seed, returns=(1.0, 2.0), **agent_config):
    write_run_file(folder, seed, **agent_config)
    write_metrics(folder, [{"step": 10 * i, "time": 0.0, "training/return": r} for i, r in enumerate(returns)])
    return load_run(folder)


def test_curve_leaves_out_what_is_no_number(tmp_path):
    write_metrics(tmp_path, [
        {"step": 20, "time": 1.0, "a": 2.0}, {"step": 10, "time": 0.5, "a": 1.0}, {"step": 30, "time": 2.0, "a": None},
        {"step": 40, "time": 3.0, "b": "text"},
    ])  # fmt: skip
    run = load_run(tmp_path)
    curve = run.curve("a")
    assert (curve.steps.tolist(), curve.values.tolist()) == ([10.0, 20.0], [1.0, 2.0])
    assert run.curve("b") is None
    assert run.metric_names() == {"a"}


def test_runs_that_differ_by_seed_only_form_a_group(tmp_path):
    runs = [
        make_run(tmp_path / "one", 1, cvar_risk=0.8),
        make_run(tmp_path / "other", 1, cvar_risk=0.0),
        make_run(tmp_path / "two", 2, cvar_risk=0.8),
    ]
    groups = group_runs(runs)
    assert [[run.name for run in group.runs] for group in groups] == [["one", "two"], ["other"]]
    assert [run.seed for run in groups[0].runs] == [1, 2]


def test_runs_that_collect_or_learn_otherwise_are_drawn_apart(tmp_path):
    document = {"agent_name": "A", "agent_config": {}, "env_config": {}}
    for name, seed, options in (
        ("one-1", 1, {"num_envs": 32, "utd_ratio": 16, "log_interval": 1}),
        ("one-2", 2, {"num_envs": 32, "utd_ratio": 16, "log_interval": 2}),
        ("workers", 1, {"num_workers": 4, "utd_ratio": 16}),
    ):
        write_metrics(tmp_path / name, [{"step": 1, "training/return": 0.0}])
        (tmp_path / name / "run.json").write_text(json.dumps({**document, "seed": seed, "options": options}))
    groups = group_runs(load_run(tmp_path / name) for name in ("one-1", "workers", "one-2"))
    assert [[run.name for run in group.runs] for group in groups] == [["one-1", "one-2"], ["workers"]]


def test_a_key_that_a_run_is_too_old_to_have_counts_as_its_default(tmp_path):
    agent = {"agent_name": "SACLearner", "env_config": {}}
    for name, seed, config in (
        ("old", 1, {"tau": 0.005}),
        ("new", 2, {"tau": 0.005, "lr_schedule": "constant"}),
        ("other", 3, {"tau": 0.005, "lr_schedule": "linear"}),
    ):
        write_metrics(tmp_path / name, [{"step": 1, "training/return": 0.0}])
        (tmp_path / name / "run.json").write_text(json.dumps({**agent, "seed": seed, "agent_config": config}))
    groups = group_runs(load_run(tmp_path / name) for name in ("old", "new", "other"))
    assert [[run.name for run in group.runs] for group in groups] == [["old", "new"], ["other"]]


def test_names_group_runs_that_say_nothing_of_themselves(tmp_path):
    for name in ("highway_run_1", "highway_run_2", "fast_seed_1"):
        write_metrics(tmp_path / name, [{"step": 1, "training/return": 0.0}])
    groups = group_runs(load_run(tmp_path / name) for name in ("highway_run_1", "highway_run_2", "fast_seed_1"))
    assert [group.label for group in groups] == ["highway_run (2 seeds)", "fast_seed_1"]
    assert groups[0].runs[1].seed == 2


def test_labels_are_never_shared(tmp_path):
    runs = [make_run(tmp_path / "a" / "run_1", 1, cvar_risk=0.1), make_run(tmp_path / "b" / "run_1", 1, cvar_risk=0.2)]
    labels = [group.label for group in group_runs(runs)]
    assert len(set(labels)) == 2


def test_mean_curve_has_the_t_interval_of_its_runs():
    curves = [Curve(np.array([0.0, 10.0]), np.array([0.0, value])) for value in (1.0, 2.0, 3.0)]
    mean = mean_curve(curves)
    assert (mean.steps.tolist(), mean.values.tolist()) == ([0.0, 10.0], [0.0, 2.0])
    # t quantile of 2 degrees of freedom at 97.5 % is 4.303; the SD is 1.
    assert mean.high[-1] - mean.values[-1] == pytest.approx(4.303 / np.sqrt(3), abs=1e-3)
    assert mean.values[-1] - mean.low[-1] == pytest.approx(mean.high[-1] - mean.values[-1])


def test_the_band_of_two_curves_is_their_range():
    mean = mean_curve([Curve(np.array([0.0, 10.0]), np.array([value, -value])) for value in (1.0, 4.0)])
    assert (mean.low.tolist(), mean.values.tolist(), mean.high.tolist()) == ([1.0, -4.0], [2.5, -2.5], [4.0, -1.0])


def test_mean_curve_covers_only_the_steps_that_all_runs_reached():
    curves = [
        Curve(np.array([0.0, 10.0, 20.0]), np.array([0.0, 1.0, 2.0])),
        Curve(np.array([5.0, 30.0]), np.array([0.0, 5.0])),
    ]
    mean = mean_curve(curves)
    assert mean.steps.tolist() == [5.0, 10.0, 20.0]
    # At 10 the first run has 1 and the second a fifth of the way from 0 to 5.
    assert mean.values[1] == pytest.approx((1.0 + 1.0) / 2)


def test_mean_curve_of_runs_without_common_steps_is_refused():
    curves = [Curve(np.array([0.0]), np.array([1.0])), Curve(np.array([5.0]), np.array([1.0]))]
    with pytest.raises(UsageError, match="no steps in common"):
        mean_curve(curves)


def test_smoothing_is_a_centred_mean():
    curve = Curve(np.arange(5.0), np.array([0.0, 3.0, 6.0, 3.0, 0.0]))
    assert smooth(curve, 0.5).values.tolist() == [1.5, 3.0, 4.0, 3.0, 1.5]
    assert smooth(curve, 0.0) is curve


def test_evaluation_files_are_found_and_identified(tmp_path):
    metrics = dict.fromkeys(EPISODE_METRICS, 0.0) | {"length": 2.0}
    episodes = tuple(EpisodeResult(i, "time_limit", metrics | {"return": float(i)}) for i in range(3))
    world = get_world("highway")
    aggregate = aggregate_episodes([e.metrics for e in episodes], world.metrics, cvar_level=0.5)
    configuration = {
        "agent_name": "SACLearner", "agent_config": {"tau": 0.005}, "env_config": {}, "training_seed": 9,
        "policy_file": "policies/highway_run_9/checkpoint_100",
    }  # fmt: skip
    result = EvaluationResult(world, episodes, aggregate, configuration)
    path = write_evaluation(tmp_path / "run" / "evaluation", result)
    from_folder, from_file = load_run(tmp_path / "run"), load_run(path)
    assert from_folder.evaluations[0].returns().tolist() == [0.0, 1.0, 2.0]
    assert from_folder.seed == from_file.seed == 9
    assert from_folder.identity == from_file.identity
    assert from_folder.name == from_file.name == "highway_run_9"


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_nothing_to_plot_is_named(tmp_path, kind):
    if kind == "empty":
        (tmp_path / kind).mkdir()
    with pytest.raises(UsageError, match=kind):
        load_run(tmp_path / kind)
