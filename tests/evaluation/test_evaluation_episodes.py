import gymnasium
import jax
import numpy as np
import pytest
from evaluation_standins import COUNTING, FEEDBACK_PARAMS, CountingEnv, FeedbackPolicy

from racer.core.errors import UsageError
from racer.evaluation.episodes import check_spaces, evaluate_policy, evaluation_seeds, run_episode
from racer.evaluation.rows import RowGenerators
from racer.networks.policy import Policy
from racer.networks.torso import build_torso
from racer.networks.uniform import uniform_policy

SEEDS = [10_000 + i for i in range(7)]


def evaluate(num_envs: int, *, deterministic: bool = True, seeds=SEEDS):
    return evaluate_policy(
        FeedbackPolicy(), FEEDBACK_PARAMS, COUNTING, {}, seeds, num_envs=num_envs, deterministic=deterministic
    )


@pytest.mark.parametrize("deterministic", [True, False])
def test_result_does_not_depend_on_the_number_of_environments(deterministic):
    alone = evaluate(1, deterministic=deterministic)
    for num_envs in (2, 3, 7, 16):
        assert evaluate(num_envs, deterministic=deterministic).episodes == alone.episodes


@pytest.mark.parametrize("kind", ["squashed_gaussian", "beta"])
def test_a_policy_with_a_memory_begins_each_episode_without_it(kind):
    fields = {"hidden_dims": (8,), "memory": {"kind": "gru", "size": 6}}
    policy = Policy(kind=kind, observation_shape=(3,), torso=build_torso((3,), fields), size=2)
    bounds = {"action_low": np.full(2, -1, np.float32), "action_high": np.full(2, 1, np.float32)}
    params = {name: 3.0 * np.asarray(value) for name, value in policy.init(jax.random.PRNGKey(0)).items()} | bounds
    found = [
        evaluate_policy(policy, params, COUNTING, {}, SEEDS, num_envs=num_envs, deterministic=False).episodes
        for num_envs in (1, 3, 7)
    ]
    assert found[0] == found[1] == found[2]
    single = list(run_episode(policy, params, COUNTING, CountingEnv(), SEEDS[-1], deterministic=False))
    assert single[-1].result == found[0][-1]


def test_exactly_one_episode_per_seed_in_order():
    result = evaluate(3)
    assert [e.seed for e in result.episodes] == SEEDS
    assert [e.metrics["length"] for e in result.episodes] == [4 + seed % 5 for seed in SEEDS]
    assert [e.end_reason for e in result.episodes] == ["fall" if s % 2 else "time_limit" for s in SEEDS]


def test_vector_evaluation_equals_single_episodes():
    env = CountingEnv()
    for found in evaluate(4, deterministic=False).episodes:
        steps = list(run_episode(FeedbackPolicy(), FEEDBACK_PARAMS, COUNTING, env, found.seed, deterministic=False))
        assert steps[-1].result == found
        assert [step.result for step in steps[:-1]] == [None] * (len(steps) - 1)
        assert steps[-1].episode_return == pytest.approx(found.metrics["return"])


def test_sampled_actions_differ_from_deterministic_ones():
    assert evaluate(2, deterministic=False).returns.tolist() != evaluate(2).returns.tolist()


def test_each_finished_episode_is_announced_once():
    announced = []
    evaluate_policy(
        FeedbackPolicy(), FEEDBACK_PARAMS, COUNTING, {}, SEEDS, num_envs=4,
        on_episode=lambda e: announced.append(e.seed),
    )  # fmt: skip
    assert sorted(announced) == SEEDS


def test_rows_draw_what_a_generator_of_their_seed_alone_would():
    key, alone = RowGenerators([3, None, 5]), [np.random.default_rng(seed) for seed in (3, 5)]
    shape, one = (3, 2), np.full((3, 2), 2.0)
    for drawn, expected in (
        (key.standard_normal(shape, np.float32), [rng.standard_normal(2, np.float32) for rng in alone]),
        (key.random(shape), [rng.random(2) for rng in alone]),
        (key.random((3,)), [rng.random() for rng in alone]),
        (key.gumbel(size=shape), [rng.gumbel(size=2) for rng in alone]),
        (key.beta(one, 2 * one), [rng.beta(2.0, 4.0, size=2) for rng in alone]),
    ):
        np.testing.assert_array_equal(drawn[[0, 2]], expected)
        assert not drawn[1].any()
    key.restart(1, 9)
    np.testing.assert_array_equal(key.random(shape)[1], np.random.default_rng(9).random(2))
    with pytest.raises(ValueError, match="3 rows"):
        key.random((4, 2))


def test_seed_list_is_fixed_and_held_out():
    assert evaluation_seeds(3) == [10_000, 10_001, 10_002]
    assert evaluation_seeds(2, first=5) == [5, 6]


@pytest.mark.parametrize(("count", "first", "word"), [(0, 0, "num_episodes"), (3, -1, "at least 0")])
def test_bad_seed_lists_are_refused(count, first, word):
    with pytest.raises(UsageError, match=word):
        evaluation_seeds(count, first)


def test_no_seeds_and_bad_levels_are_refused():
    with pytest.raises(UsageError, match="seeds"):
        evaluate(2, seeds=[])
    with pytest.raises(UsageError, match="cvar_level"):
        evaluate_policy(FeedbackPolicy(), {}, COUNTING, {}, SEEDS, cvar_level=2.0)


def test_spaces_that_do_not_fit_are_named():
    env = CountingEnv()
    policy = FeedbackPolicy()
    check_spaces(policy, env.observation_space, env.action_space)
    policy.observation_shape = (15, 6)
    with pytest.raises(UsageError, match=r"observation shape mismatch.*\(15, 6\).*\(3,\)"):
        check_spaces(policy, env.observation_space, env.action_space)
    policy.observation_shape, policy.size = (1, 3), 4
    with pytest.raises(UsageError, match=r"action shape mismatch.*\(4,\).*\(2,\)"):
        check_spaces(policy, env.observation_space, env.action_space)


def test_choices_and_continuous_actions_are_told_apart():
    env, five = CountingEnv(), gymnasium.spaces.Discrete(5)
    with pytest.raises(UsageError, match=r"one of 5 choices.*Box"):
        check_spaces(uniform_policy(five), env.observation_space, env.action_space)
    check_spaces(uniform_policy(five), env.observation_space, five)
    with pytest.raises(UsageError, match=r"action shape mismatch.*\(2,\).*\(\)"):
        check_spaces(FeedbackPolicy(), env.observation_space, five)


def test_scalars_carry_metric_names():
    scalars = evaluate(2).scalars()
    assert {"evaluation/return", "evaluation/fall_rate", "evaluation/cvar_return"} <= scalars.keys()
    assert scalars["evaluation/return"] == pytest.approx(np.mean(evaluate(2).returns))
    assert scalars["evaluation/fall_rate"] == pytest.approx(3 / 7)
