"""The evaluation on the real environment."""

import numpy as np
import pytest
from evaluation_standins import SMALL_ENV, write_tiny_checkpoint

from racer.evaluation.checkpoints import load_policy
from racer.evaluation.episodes import evaluate_policy, make_evaluation_env, run_episode

SEEDS = [10_000, 10_001, 10_002, 10_003, 10_004]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return load_policy(write_tiny_checkpoint(tmp_path_factory.mktemp("run"), 3))


@pytest.fixture(scope="module")
def alone(trained):
    return evaluate_policy(trained.policy, trained.params, SMALL_ENV, SEEDS, num_envs=1, deterministic=False)


@pytest.mark.parametrize("num_envs", [2, 3, 5])
def test_highway_results_do_not_depend_on_the_number_of_environments(trained, alone, num_envs):
    found = evaluate_policy(
        trained.policy, trained.params, SMALL_ENV, SEEDS, num_envs=num_envs, deterministic=False
    )  # fmt: skip
    assert found.episodes == alone.episodes
    assert len({e.metrics["return"] for e in found.episodes}) == len(SEEDS)


def test_highway_single_environment_gives_the_same_episode(trained, alone):
    env = make_evaluation_env(SMALL_ENV)
    try:
        for expected in alone.episodes[:2]:
            steps = list(run_episode(trained.policy, trained.params, env, expected.seed, deterministic=False))
            assert steps[-1].result == expected
            np.testing.assert_allclose(steps[-1].episode_return, expected.metrics["return"], rtol=1e-12)
    finally:
        env.close()
