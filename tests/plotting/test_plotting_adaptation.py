"""Scores of trials, what they gain over a key of the world, and attention over a real episode's memory."""

from __future__ import annotations

import json

import numpy as np
import pytest

from racer.core.checkpoint import write_checkpoint
from racer.core.errors import UsageError
from racer.envs.registry import get_world
from racer.evaluation.attention import record_attention
from racer.evaluation.checkpoints import load_policy
from racer.plotting.adaptation import adaptation, attention_map, trial_scores
from racer.plotting.runs import group_runs, load_run
from racer.training.run_spec import create_agent, spec_from_config
from racer.training.saving import policy_metadata

TRIALS, STEPS, EARLY = 3, 6, 4


def write_evaluation(folder, rates, frequency=5, episodes=200):
    drawn = np.random.default_rng(0).uniform(size=(episodes, 1)) < np.asarray(rates)
    rows = [{"return": 1.0, **{f"trial_{k}_score": float(won) for k, won in enumerate(row)}} for row in drawn]
    document = {
        "schema_version": 1, "aggregate": {"mean_return": 1.0}, "episodes": rows,
        "configuration": {"env_config": {"policy_frequency": frequency, "scene": "x"}},
        "comparisons": {"memory wiped": {"aggregate": {}, "episodes": rows[:10]}},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "evaluation_metrics.json").write_text(json.dumps(document))
    return drawn.astype(float)


def test_every_trial_of_every_line_is_drawn_with_its_interval(tmp_path):
    drawn = write_evaluation(tmp_path / "ev", [0.2, 0.5, 0.8])
    figure = trial_scores(group_runs([load_run(tmp_path / "ev")]))
    lines = [container.lines for container in figure.axes[0].containers]
    assert len(lines) == 2
    np.testing.assert_allclose(lines[0][0].get_ydata(), drawn.mean(axis=0))
    np.testing.assert_allclose(lines[1][0].get_ydata(), drawn[:10].mean(axis=0))
    (bars,) = lines[0][2]
    for (low, high), mean in zip([s[:, 1] for s in bars.get_segments()], drawn.mean(axis=0), strict=True):
        # Wilson's interval of 200 episodes is 1.96 standard errors to 2 %, and holds the mean.
        assert low < mean < high
        assert high - low == pytest.approx(2 * 1.96 * np.sqrt(mean * (1 - mean) / 200), rel=0.04)


def test_evaluations_of_one_run_are_told_apart(tmp_path):
    for name in ("calm", "wild"):
        write_evaluation(tmp_path / "all" / name, [0.2, 0.5])
    containers = trial_scores(group_runs([load_run(tmp_path / "all")])).axes[0].containers
    assert [c.get_label() for c in containers] == [
        "all: calm", "all: calm, memory wiped", "all: wild", "all: wild, memory wiped"
    ]  # fmt: skip
    calm, calm_wiped, wild, _ = [c.lines[0].get_color() for c in containers]
    assert calm == calm_wiped != wild


def test_the_gain_stands_over_the_key_that_was_named(tmp_path):
    gains = {}
    for frequency, last in ((1, 0.9), (3, 0.5)):
        drawn = write_evaluation(tmp_path / "all" / str(frequency), [0.2, last], frequency)
        gains[float(frequency)] = (drawn[:, 1] - drawn[:, 0]).mean()
    groups = group_runs([load_run(tmp_path / "all")])
    axis = adaptation(groups, "policy_frequency").axes[0]
    (line,) = [line for line in axis.lines if line.get_label() == groups[0].label]
    assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == pytest.approx(gains)
    for across, words in ((None, "--across"), ("policy_frequenc", "policy_frequency")):
        with pytest.raises(UsageError, match=words):
            adaptation(groups, across)


def test_what_is_no_number_stands_side_by_side(tmp_path):
    gains = []
    for name, last in (("b", 0.9), ("a", 0.5)):
        drawn = write_evaluation(tmp_path / "all" / name, [0.2, last], [name, "c"])
        gains.insert(0, (drawn[:, 1] - drawn[:, 0]).mean())
    groups = group_runs([load_run(tmp_path / "all")])
    axis = adaptation(groups, "policy_frequency").axes[0]
    (line,) = [line for line in axis.lines if line.get_label() == groups[0].label]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a, c", "b, c"]
    np.testing.assert_allclose(line.get_ydata(), gains)


@pytest.fixture(scope="module", params=["long cache", "short cache"])
def trained(request, tmp_path_factory):
    length = TRIALS * STEPS if request.param == "long cache" else EARLY
    memory = {"kind": "transformer", "embed": 8, "layers": 2, "heads": 2, "length": length}
    env_config = {"k_scenarios": TRIALS, "scenario_length": STEPS}
    spec = spec_from_config(
        {"model_cls": "PPOLearner", "world": "trials", "memory": memory, "hidden_dims": (8,), "env": env_config}, 1
    )
    env = get_world("trials").make(spec.env_config, 1)
    agent = create_agent(spec, env.single_observation_space, env.single_action_space)
    env.close()
    groups = {"policy": agent.policy_params, "agent": agent.state_arrays()}
    path = write_checkpoint(tmp_path_factory.mktemp("run"), 5, groups, policy_metadata(spec, agent))
    return load_policy(path), length


def test_steps_read_their_own_episode_up_to_themselves_and_no_more_than_the_cache_holds(trained):
    policy, length = trained
    episode = record_attention(policy, policy.env_config, 10_000)
    assert len(episode.weights) == TRIALS * STEPS
    assert episode.borders.tolist() == [STEPS, 2 * STEPS]
    t = np.arange(len(episode.weights))
    readable = (t[None, :] <= t[:, None]) & (t[:, None] - t[None, :] < length)
    assert (episode.weights.transpose(1, 2, 0, 3)[..., ~readable] == 0.0).all()
    assert (episode.weights.transpose(1, 2, 0, 3)[..., readable] > 0.0).all()
    np.testing.assert_allclose(episode.weights.sum(axis=-1), 1.0, atol=1e-6)
    figure = attention_map(episode)
    assert len(figure.axes) == 2 * 2 + 1


def test_limbo_after_an_early_end_reads_itself_alone(trained):
    policy, _ = trained
    # A decision a second: the way is behind the ego after about 25 of the 60 steps.
    config = {**policy.env_config, "scenario_length": 60, "k_scenarios": 1, "policy_frequency": 1}
    episode = record_attention(policy, policy.world.resolve(config), 10_001)
    removed = np.flatnonzero(episode.removed)
    assert len(removed) > 0
    assert len(episode.weights) == 60
    for t in removed:
        expected = np.zeros(len(episode.weights))
        expected[t] = 1.0
        np.testing.assert_array_equal(episode.weights[t], np.broadcast_to(expected, episode.weights[t].shape))


def test_a_policy_without_a_transformer_is_refused():
    path = "policies/trials-hidden-lane"
    policy = load_policy(path)
    with pytest.raises(UsageError, match="transformer"):
        record_attention(policy, policy.env_config, 1)
