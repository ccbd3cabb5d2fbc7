import json

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from racer.core.errors import UsageError
from racer.envs.highway.episode import EPISODE_METRICS
from racer.envs.registry import get_world
from racer.evaluation.episodes import EpisodeResult, EvaluationResult
from racer.evaluation.report import write_evaluation
from racer.evaluation.summary import aggregate_episodes, proportion_interval
from racer.plotting.critic import CriticEpisode, atoms_cvar, critic_figure, discounted_returns
from racer.plotting.figures import learning_curves, return_histograms, trade_offs
from racer.plotting.runs import group_runs, load_run
from racer.plotting.style import COLORS, pyplot, save


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot().close("all")


def make_run(folder, seed, *, risk=0.8, level=10.0, crashes=0):
    folder.mkdir(parents=True)
    document = {"agent_name": "A", "agent_config": {"cvar_risk": risk}, "env_config": {}, "seed": seed}
    (folder / "run.json").write_text(json.dumps(document))
    rows = [
        {"step": step, "time": 0.0, "training/return": level * step + seed, "evaluation/return": level * step + seed,
         "evaluation/collision_rate": 0.5, "evaluation/mean_forward_speed": 30.0}
        for step in (0, 1, 2)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = dict.fromkeys(EPISODE_METRICS, 0.0) | {"length": 10.0, "mean_forward_speed": 20.0 + seed}
    episodes = tuple(
        EpisodeResult(i, "time_limit", base | {"return": float(i), "crashed": float(i < crashes)}) for i in range(10)
    )
    world = get_world("highway")
    aggregate = aggregate_episodes([e.metrics for e in episodes], world.metrics, cvar_level=0.8)
    write_evaluation(folder, EvaluationResult(world, episodes, aggregate, {}))
    return load_run(folder)


@pytest.fixture
def groups(tmp_path):
    runs = [make_run(tmp_path / f"run_{seed}", seed, crashes=seed) for seed in (1, 2, 3)]
    return group_runs([*runs, make_run(tmp_path / "other_4", 4, risk=0.0, level=5.0)])


def lines_of(axis, color):
    return [line for line in axis.get_lines() if to_hex(line.get_color()) == color and len(line.get_xdata()) > 1]


def test_learning_curves_draw_a_mean_and_its_interval_per_group(groups):
    figure = learning_curves(groups, ["evaluation/return"])
    axis = figure.axes[0]
    (mean,) = lines_of(axis, COLORS[0])
    np.testing.assert_allclose(mean.get_ydata(), [2.0, 12.0, 22.0])
    (single,) = lines_of(axis, COLORS[1])
    np.testing.assert_allclose(single.get_ydata(), [4.0, 9.0, 14.0])
    # One band: a single run has no interval across runs.
    (band,) = axis.collections
    heights = band.get_paths()[0].vertices[:, 1]
    half = 4.302653 / np.sqrt(3)  # t interval of the seeds 1, 2, 3
    assert heights.min() == pytest.approx(2.0 - half, abs=1e-4)
    assert heights.max() == pytest.approx(22.0 + half, abs=1e-4)


def test_learning_curves_show_training_and_evaluation(groups):
    axis = learning_curves(groups, smoothing=0.0).axes[0]
    assert sorted(line.get_linestyle() for line in lines_of(axis, COLORS[0])) == ["-", "--"]


def test_learning_curves_name_the_nearest_metric(groups):
    with pytest.raises(UsageError, match=r"'evaluation/retrn'.*'evaluation/return'"):
        learning_curves(groups, ["evaluation/retrn"])


def vertical_lines(axis):
    return [float(line.get_xdata()[0]) for line in axis.get_lines() if len(set(line.get_xdata())) == 1]


def test_histogram_marks_mean_and_cvar(groups):
    figure = return_histograms(groups[:1], cvar_level=0.7)
    assert len(figure.axes) == 3
    # Returns 0..9: mean 4.5, worst three average 1.
    assert sorted(vertical_lines(figure.axes[0])) == pytest.approx([1.0, 4.5])
    heights = [bar.get_height() for bar in figure.axes[0].containers[0]]
    assert sum(heights) == 10


def test_histogram_takes_the_level_of_the_evaluation(groups):
    assert min(vertical_lines(return_histograms(groups[1:]).axes[0])) == pytest.approx(0.5)


def test_trade_off_shows_each_run_and_the_group_mean(groups):
    axis = trade_offs(groups).axes[0]
    first = [(x, y) for x, y in points_of(axis, COLORS[0]) if np.isfinite(x)]
    np.testing.assert_allclose(sorted(first), [(0.1, 21.0), (0.2, 22.0), (0.2, 22.0), (0.3, 23.0)])
    intervals = sorted(tuple(path.vertices[:, 0]) for bar in axis.collections for path in bar.get_paths())
    assert intervals[-1] == pytest.approx(proportion_interval(3, 10))


def test_trade_off_counts_leaving_the_road_beside_it(groups):
    # No episode of the stand-ins is a success, though few collide. Success is better to the left, too.
    figure = trade_offs(groups[1:])
    assert points_of(figure.axes[0], COLORS[0])[0] == (0.0, 24.0)
    assert points_of(figure.axes[1], COLORS[0])[0] == (0.0, 24.0)
    assert not figure.axes[0].xaxis_inverted()
    assert figure.axes[1].xaxis_inverted()


def test_trade_off_falls_back_to_the_newest_line_of_the_log(tmp_path):
    rows = [
        {"step": s, "evaluation/collision_rate": 0.1 * s, "evaluation/mean_forward_speed": 30.0 + s} for s in (1, 2)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"step": 3}]))
    axis = trade_offs(group_runs([load_run(tmp_path)])).axes[0]
    assert points_of(axis, COLORS[0])[0] == pytest.approx((0.2, 32.0))


def test_a_world_without_trade_offs_has_curves_all_the_same(tmp_path):
    run = {"world": "gym:Pendulum-v1", "agent_name": "A", "agent_config": {}, "env_config": {}, "seed": 1}
    (tmp_path / "run.json").write_text(json.dumps(run))
    rows = [{"step": s, "training/return": -1.0 * s, "evaluation/length": 200.0} for s in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = group_runs([load_run(tmp_path)])
    titles = [axis.get_title() or axis.get_title(loc="left") for axis in learning_curves(groups).axes]
    assert titles[:2] == ["Mean return", "Mean episode length"]
    with pytest.raises(UsageError, match="Pendulum"):
        trade_offs(groups)


def points_of(axis, color):
    return [
        (float(x), float(y))
        for line in axis.get_lines()
        if to_hex(line.get_markerfacecolor()) == color
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def test_figures_that_the_runs_do_not_allow_are_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "agent/loss": 1.0}\n')
    groups = group_runs([load_run(tmp_path)])
    for draw, words in (
        (learning_curves, "no episode has ended yet.* such as agent/loss"),
        (return_histograms, "no run has"),
        (trade_offs, "no run has"),
    ):
        with pytest.raises(UsageError, match=words):
            draw(groups)


def test_saved_figure_is_a_png_that_is_not_empty(groups, tmp_path):
    path = save(return_histograms(groups), tmp_path / "histogram.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 600
        assert len(set(image.convert("RGB").resize((64, 64)).tobytes())) > 20


def test_cvar_on_atoms_by_hand():
    atoms = np.array([-10.0, 0.0, 10.0])
    probs = np.array([[0.1, 0.4, 0.5], [0.0, 0.0, 1.0]])
    # The worst 20 %: all of the first atom and as much of the second.
    assert atoms_cvar(atoms, probs, 0.8) == pytest.approx([(0.1 * -10 + 0.1 * 0) / 0.2, 10.0])
    assert atoms_cvar(atoms, probs, 0.0) == pytest.approx(probs @ atoms)
    assert atoms_cvar(atoms, probs, 1.0) == pytest.approx([-10.0, 10.0])


def test_discounted_returns_by_hand():
    assert discounted_returns(np.array([1.0, 2.0, 4.0]), 0.5).tolist() == [1 + 1 + 1, 2 + 2, 4]


def test_critic_figure_draws_expectation_tail_and_outcome():
    atoms = np.linspace(-5.0, 5.0, 11)
    probs = np.eye(11)[[5, 6, 7, 8]]
    episode = CriticEpisode(
        "checkpoint_1", 3, "time_limit", 0.2, atoms, probs, np.array([1.0, 1.0, 1.0, 1.0]), 1.0, 0.8,
        [np.zeros((20, 40, 3), np.uint8)] * 4,
    )  # fmt: skip
    figure = critic_figure(episode, num_frames=2)
    heat = next(axis for axis in figure.axes if axis.get_xlabel() == "time [s]")
    mean, cvar, followed = heat.get_lines()[:3]
    assert mean.get_ydata().tolist() == [0.0, 1.0, 2.0, 3.0]
    np.testing.assert_allclose(cvar.get_ydata(), [0.0, 1.0, 2.0, 3.0])
    assert followed.get_ydata().tolist() == [4.0, 3.0, 2.0, 1.0]
    assert sum(len(axis.images) for axis in figure.axes) == 3  # two pictures and the distribution
