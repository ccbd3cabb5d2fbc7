"""The compiled pass over reward, metrics and observations against the NumPy functions: bits with a pinned libm."""

from __future__ import annotations

import numpy as np
import pytest
from pinning import pinned
from scoring_pairs import differences, run

from racer.core.errors import UsageError
from racer.envs.highway import make_vector_env
from racer.envs.highway.episode import EPISODE_METRICS, SUMS
from racer.envs.highway.simulator import scoring as at
from racer.envs.highway.world import RiskWorld


def test_driven_episodes_are_exact_to_the_bit() -> None:
    outcome = pinned("scoring_pairs.py", "driven", "--episodes", "24")
    assert outcome["differences"] == []
    for kind in (
        "risk",
        "penalty",
        "terminated",
        "truncated",
        "closing",
        "another view",
        "reward=base",
        "reward=training",
        "safety_mode=ttc",
        "safety_mode=proximity",
        "normalize_reward=True",
        "scenario=highway-fast-v0",
    ):
        assert outcome["seen"].get(kind, 0) > 0, f"the sample misses {kind}"


def test_made_up_scenes_are_exact_to_the_bit() -> None:
    outcome = pinned("scoring_pairs.py", "made_up", "--episodes", "120")
    assert outcome["differences"] == []
    for kind in ("risk", "time to collision", "nan", "nan distance", "nobody else"):
        assert outcome["seen"].get(kind, 0) > 0, f"the sample misses {kind}"


def test_close_without_pinning() -> None:
    outcome = run("driven", range(500, 510), 1e-12)
    assert outcome["differences"] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("suite", "episodes"), [("driven", 400), ("made_up", 2000)])
def test_long_sweep_is_exact_to_the_bit(suite: str, episodes: int) -> None:
    outcome = pinned("scoring_pairs.py", suite, "--first", "1000", "--episodes", str(episodes))
    assert outcome["differences"] == []


def test_the_comparison_itself_can_fail() -> None:
    a = np.array([1.0, 0.0, np.nan])
    assert differences({"x": a}, {"x": a.copy()}, "", 0.0) == []
    assert differences(a, np.array([np.nextafter(1.0, 2.0), 0.0, np.nan]), "", 0.0)
    assert differences(a, np.array([1.0, -0.0, np.nan]), "", 0.0)
    assert differences(a, np.array([1.0, 0.0, 0.0]), "", 1e-12)
    assert differences(a, a.astype(np.float32), "", 0.0)


def test_rows_are_counted_as_the_recorder_counts() -> None:
    assert (len(SUMS), len(EPISODE_METRICS)) == (at.SUMS, at.METRICS)
    assert at.FIGURES == at.METRICS_OUT + at.METRICS


def test_a_state_of_one_scorer_goes_on_in_the_other() -> None:
    actions = np.random.default_rng(3).uniform(-0.1, 0.1, (20, 3, 2)).astype(np.float32)
    arrays, compiled = (make_vector_env({"duration": 3}, 3, scoring=scoring) for scoring in ("arrays", "compiled"))
    arrays.reset(seed=3)
    for action in actions[:9]:
        arrays.step(action)
    np.testing.assert_array_equal(compiled.set_state(arrays.get_state()), arrays.set_state(arrays.get_state()))
    for action in actions[9:]:
        theirs, ours = arrays.step(action), compiled.step(action)
        assert differences(dict(enumerate(theirs)), dict(enumerate(ours)), "", 1e-12) == []


def test_what_a_step_returns_is_not_written_to_again() -> None:
    world = RiskWorld({"vehicles_count": 5, "max_episode_steps": 1}, 2)
    world.reset([1, 2])
    step = world.step(np.zeros((2, 2), np.float32))
    arrays = [step.observations, step.rewards, step.truncated, step.info["speed"], step.metrics["return"]]
    kept = [array.copy() for array in arrays]
    for _ in range(3):
        world.reset([None, None])
        world.step(np.ones((2, 2), np.float32))
    assert all(np.array_equal(a, b) for a, b in zip(kept, arrays, strict=True))


def test_metrics_come_where_an_episode_ends() -> None:
    world = RiskWorld({"vehicles_count": 0, "max_episode_steps": 2}, 2)
    world.reset([1, 2])
    assert [bool(world.step(np.zeros((2, 2), np.float32)).metrics) for _ in range(2)] == [False, True]


@pytest.mark.parametrize("scoring", ["arrays", "compiled"])
def test_threads_change_nothing(scoring: str) -> None:
    actions = np.random.default_rng(4).uniform(-0.3, 0.3, (12, 5, 2)).astype(np.float32)
    one, three = (make_vector_env({"duration": 2}, 5, scoring=scoring, num_threads=n) for n in (1, 3))
    first, second = (env.reset(seed=1)[0] for env in (one, three))
    np.testing.assert_array_equal(first, second)
    for action in actions:
        theirs, ours = one.step(action), three.step(action)
        assert differences(dict(enumerate(theirs)), dict(enumerate(ours)), "", 0.0) == []
    three.close()


def test_an_unknown_scoring_is_named() -> None:
    with pytest.raises(UsageError, match="'compiled'"):
        make_vector_env({}, 1, scoring="compield")
