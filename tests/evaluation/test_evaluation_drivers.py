"""Drivers of a world are evaluated as policies are."""

from __future__ import annotations

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.registry import get_world
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.episodes import evaluate_policy, run_episode

SHORT = {"duration": 4}


def test_a_driver_is_found_by_name() -> None:
    trained = load_policy("driver:rules")
    assert trained.name == "driver-rules"
    assert trained.world is get_world("highway")
    assert trained.env_config == trained.world.resolve(None)
    assert load_policy("driver:highway/rules").policy == trained.policy


@pytest.mark.parametrize(
    ("name", "nearest"), [("driver:ruls", "rules"), ("driver:highwy/rules", "highway"), ("driver:plannr", "planner")]
)
def test_a_typo_is_told_the_nearest_name(name: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{nearest}'"):
        load_policy(name)


@pytest.mark.parametrize("name", ["rules", "observation-planner"])
def test_a_driver_gives_the_same_numbers_in_any_batch_and_alone(name: str) -> None:
    trained = load_policy(f"driver:{name}")
    config = trained.world.resolve(SHORT)
    seeds = [10_000, 10_001, 10_002, 10_003]
    results = [
        evaluate_policy(trained.policy, trained.params, trained.world, config, seeds, num_envs=n) for n in (1, 3)
    ]
    np.testing.assert_array_equal(results[0].returns, results[1].returns)
    env = trained.world.get_film().make(config)
    *_, last = run_episode(trained.policy, trained.params, trained.world, env, seeds[2])
    assert last.result == results[0].episodes[2]


def test_the_planner_reads_the_state_of_the_environment_that_it_acts_in() -> None:
    trained = load_policy("driver:planner")
    config = trained.world.resolve({"duration": 1})
    seeds = [10_000, 10_001]
    together = evaluate_policy(trained.policy, trained.params, trained.world, config, seeds, num_envs=2)
    alone = evaluate_policy(trained.policy, trained.params, trained.world, config, seeds, num_envs=1)
    np.testing.assert_array_equal(together.returns, alone.returns)
