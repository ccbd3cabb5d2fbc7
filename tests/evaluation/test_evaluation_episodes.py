import gymnasium
import numpy as np
import pytest
from evaluation_standins import FEEDBACK_PARAMS, CountingEnv, FeedbackPolicy, counting_vector_env

from racer.core.errors import UsageError
from racer.evaluation.episodes import check_spaces, evaluate_policy, evaluation_seeds, run_episode

SEEDS = [10_000 + i for i in range(7)]


def evaluate(num_envs: int, *, deterministic: bool = True, seeds=SEEDS):
    return evaluate_policy(
        FeedbackPolicy(), FEEDBACK_PARAMS, {}, seeds, num_envs=num_envs, deterministic=deterministic,
        make_vector_env=counting_vector_env,
    )  # fmt: skip


@pytest.mark.parametrize("deterministic", [True, False])
def test_result_does_not_depend_on_the_number_of_environments(deterministic):
    alone = evaluate(1, deterministic=deterministic)
    for num_envs in (2, 3, 7, 16):
        assert evaluate(num_envs, deterministic=deterministic).episodes == alone.episodes


def test_exactly_one_episode_per_seed_in_order():
    result = evaluate(3)
    assert [e.seed for e in result.episodes] == SEEDS
    assert [e.metrics["length"] for e in result.episodes] == [4 + seed % 5 for seed in SEEDS]
    assert [e.end_reason for e in result.episodes] == ["collision" if s % 2 else "time_limit" for s in SEEDS]


def test_vector_evaluation_equals_single_episodes():
    env = CountingEnv()
    for found in evaluate(4, deterministic=False).episodes:
        steps = list(run_episode(FeedbackPolicy(), FEEDBACK_PARAMS, env, found.seed, deterministic=False))
        assert steps[-1].result == found
        assert [step.result for step in steps[:-1]] == [None] * (len(steps) - 1)
        assert steps[-1].episode_return == pytest.approx(found.metrics["return"])


def test_sampled_actions_differ_from_deterministic_ones():
    assert evaluate(2, deterministic=False).returns.tolist() != evaluate(2).returns.tolist()


def test_each_finished_episode_is_announced_once():
    announced = []
    evaluate_policy(
        FeedbackPolicy(), FEEDBACK_PARAMS, {}, SEEDS, num_envs=4, make_vector_env=counting_vector_env,
        on_episode=lambda e: announced.append(e.seed),
    )  # fmt: skip
    assert sorted(announced) == SEEDS


def test_seed_list_is_fixed_and_held_out():
    assert evaluation_seeds(3) == [10_000, 10_001, 10_002]
    assert evaluation_seeds(2, first=5) == [5, 6]


@pytest.mark.parametrize(("count", "first", "word"), [(0, 0, "num_episodes"), (3, -1, "negative")])
def test_bad_seed_lists_are_refused(count, first, word):
    with pytest.raises(UsageError, match=word):
        evaluation_seeds(count, first)


def test_no_seeds_and_bad_levels_are_refused():
    with pytest.raises(UsageError, match="seeds"):
        evaluate(2, seeds=[])
    with pytest.raises(UsageError, match="cvar_level"):
        evaluate_policy(FeedbackPolicy(), {}, {}, SEEDS, cvar_level=2.0, make_vector_env=counting_vector_env)


def test_shape_mismatch_names_both_shapes():
    env = CountingEnv()
    with pytest.raises(UsageError, match=r"observation shape mismatch.*\(90,\).*\(3,\)"):
        check_spaces(env, {"observation_dim": 90, "action_dim": 2})
    with pytest.raises(UsageError, match=r"action shape mismatch.*\(4,\).*\(2,\)"):
        check_spaces(env, {"observation_dim": 3, "action_dim": 4})


def test_choices_and_continuous_actions_are_told_apart():
    env = CountingEnv()
    with pytest.raises(UsageError, match=r"one of 5 choices.*Box"):
        check_spaces(env, {"observation_dim": 3, "num_choices": 5})
    env.action_space = gymnasium.spaces.Discrete(5)
    check_spaces(env, {"observation_dim": 3, "num_choices": 5})
    with pytest.raises(UsageError, match=r"action shape mismatch.*\(2,\).*\(\)"):
        check_spaces(env, {"observation_dim": 3, "action_dim": 2})


def test_scalars_carry_metric_names():
    scalars = evaluate(2).scalars()
    assert {"evaluation/return", "evaluation/collision_rate", "evaluation/cvar_return"} <= scalars.keys()
    assert scalars["evaluation/return"] == pytest.approx(np.mean(evaluate(2).returns))
