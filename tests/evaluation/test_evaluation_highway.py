"""The evaluation on the real environment."""

import gymnasium
import numpy as np
import pytest
from evaluation_standins import SMALL_ENV, write_tiny_checkpoint

from racer.envs.registry import get_world
from racer.evaluation import film, program
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.episodes import EpisodeResult, evaluate_policy, run_episode
from racer.evaluation.film import Caption, Pictures, record
from racer.networks.uniform import uniform_policy

HIGHWAY = get_world("highway")
SEEDS = [10_000, 10_001, 10_002, 10_003, 10_004]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return load_policy(write_tiny_checkpoint(tmp_path_factory.mktemp("run"), 3))


@pytest.fixture(scope="module")
def alone(trained):
    return evaluate_policy(trained.policy, trained.params, HIGHWAY, SMALL_ENV, SEEDS, num_envs=1, deterministic=False)


@pytest.mark.parametrize("num_envs", [2, 3, 5])
def test_highway_results_do_not_depend_on_the_number_of_environments(trained, alone, num_envs):
    found = evaluate_policy(
        trained.policy, trained.params, HIGHWAY, SMALL_ENV, SEEDS, num_envs=num_envs, deterministic=False
    )  # fmt: skip
    assert found.episodes == alone.episodes
    assert len({e.metrics["return"] for e in found.episodes}) == len(SEEDS)


def test_highway_single_environment_gives_the_same_episode(trained, alone):
    env = HIGHWAY.film.make(HIGHWAY.resolve(SMALL_ENV))
    try:
        for expected in alone.episodes[:2]:
            steps = list(run_episode(trained.policy, trained.params, HIGHWAY, env, expected.seed, deterministic=False))
            assert steps[-1].result == expected
            np.testing.assert_allclose(steps[-1].episode_return, expected.metrics["return"], rtol=1e-12)
    finally:
        env.close()


def test_discrete_actions_are_evaluated_and_filmed(tmp_path):
    policy = uniform_policy(gymnasium.spaces.Discrete(5))
    config = HIGHWAY.resolve({**SMALL_ENV, "duration": 1, "action": {"type": "DiscreteMetaAction"}})
    found = evaluate_policy(policy, {}, HIGHWAY, config, SEEDS[:3], num_envs=2, deterministic=False)
    alone = evaluate_policy(policy, {}, HIGHWAY, config, SEEDS[:3], num_envs=1, deterministic=False)
    assert found.episodes == alone.episodes
    env = HIGHWAY.film.make(config)
    try:
        steps = run_episode(policy, {}, HIGHWAY, env, SEEDS[0], deterministic=False)
        pictures = Pictures(HIGHWAY.film, config, Caption("random", 0, SEEDS[0]))
        assert record(tmp_path / "a.mp4", env, steps, pictures) == found.episodes[0]
    finally:
        env.close()


def test_a_film_of_another_course_is_reported(trained, tmp_path, monkeypatch, caplog):
    other = EpisodeResult(SEEDS[0], "collision", {})
    monkeypatch.setattr(film, "record", lambda *_: other)
    outcome = program.evaluate_checkpoint(trained, program.EvaluationOptions(tmp_path, num_episodes=1, num_videos=1))
    assert "another course of seed 10000" in caplog.text
    assert outcome.videos == (tmp_path / "highway_eval_checkpoint_3_episode_0.mp4",)


def test_films_show_what_was_evaluated(trained, tmp_path, caplog):
    outcome = program.evaluate_checkpoint(trained, program.EvaluationOptions(tmp_path, num_episodes=2, num_videos=1))
    assert caplog.text == ""
    assert [path.name for path in outcome.videos] == ["highway_eval_checkpoint_3_episode_0.mp4"]
