import itertools
import math

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.highway.episode import EPISODE_METRICS
from racer.envs.highway.metrics import METRICS
from racer.envs.metric import Metric
from racer.evaluation.summary import aggregate_episodes, lower_tail_cvar, mean_interval, proportion_interval


def episode(**values: float) -> dict[str, float]:
    return dict.fromkeys(EPISODE_METRICS, 0.0) | {"length": 1.0} | values


def test_cvar_is_the_mean_of_the_worst_share():
    values = [5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    assert lower_tail_cvar(values, 0.8) == pytest.approx((1 + 2) / 2)
    assert lower_tail_cvar(values, 0.5) == pytest.approx((1 + 2 + 3 + 4 + 5) / 5)


def test_cvar_counts_the_last_value_of_the_tail_in_part():
    # A quarter of 10 values is 2.5 of them: 1, 2 and half of 3.
    assert lower_tail_cvar(range(1, 11), 0.75) == pytest.approx((1 + 2 + 0.5 * 3) / 2.5)


def test_cvar_ends_at_the_mean_and_at_the_minimum():
    values = [3.0, -1.0, 8.0]
    assert lower_tail_cvar(values, 0.0) == pytest.approx(np.mean(values))
    assert lower_tail_cvar(values, 1.0) == -1.0
    assert lower_tail_cvar(values, 0.99) == -1.0


def test_cvar_never_exceeds_the_mean_and_falls_with_the_level():
    values = np.random.default_rng(0).normal(size=37)
    levels = [lower_tail_cvar(values, level) for level in np.linspace(0, 1, 21)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(levels))


@pytest.mark.parametrize("level", [-0.1, 1.1, math.nan])
def test_cvar_level_out_of_range_is_named(level):
    with pytest.raises(UsageError, match="cvar_level"):
        lower_tail_cvar([1.0], level)


def test_cvar_of_nothing_is_an_error():
    with pytest.raises(UsageError, match="at least one episode"):
        lower_tail_cvar([], 0.5)


def test_mean_interval_is_students():
    # Mean 3, sample SD sqrt(2.5), n 5; the table's t quantile for 4 degrees of freedom at 97.5 % is 2.776.
    low, high = mean_interval([1, 2, 3, 4, 5])
    assert (low, high) == pytest.approx((3 - 2.776 * math.sqrt(2.5 / 5), 3 + 2.776 * math.sqrt(2.5 / 5)), abs=1e-3)


def test_mean_interval_of_one_value_is_unknown():
    assert all(math.isnan(x) for x in mean_interval([4.0]))


def test_proportion_interval_is_wilsons():
    # Wilson's centre and half width for 2 of 10 with z = 1.96, by hand.
    z = 1.959964
    centre = (0.2 + z * z / 20) / (1 + z * z / 10)
    half = z * math.sqrt(0.2 * 0.8 / 10 + z * z / 400) / (1 + z * z / 10)
    assert proportion_interval(2, 10) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_proportion_interval_is_honest_at_zero():
    low, high = proportion_interval(0, 20)
    assert low == 0.0
    assert proportion_interval(20, 20)[1] == 1.0
    assert high == pytest.approx(1.959964**2 / (20 + 1.959964**2), abs=1e-6)


def test_aggregate_of_hand_made_episodes():
    episodes = [
        episode(**{"return": 10.0}, length=30.0, crashed=0.0, success=1.0, mean_speed=30.0, violation_rate=0.1,
                min_distance=4.0, reverse_share=0.5),
        episode(**{"return": 4.0}, length=10.0, crashed=1.0, success=0.0, mean_speed=10.0, violation_rate=0.5,
                min_distance=2.0),
    ]  # fmt: skip
    found = aggregate_episodes(episodes, METRICS, cvar_level=0.5)
    assert found["mean_return"] == 7.0
    assert found["std_return"] == pytest.approx(math.sqrt(18.0))  # sample SD: (9 + 9) / (2 - 1)
    assert found["cvar_return"] == 4.0
    assert found["mean_length"] == 20.0
    assert found["success_rate"] == found["collision_rate"] == 0.5
    assert (found["collision_rate_low"], found["collision_rate_high"]) == proportion_interval(1, 2)
    assert found["off_road_rate"] == 0.0
    assert (found["off_road_rate_low"], found["off_road_rate_high"]) == proportion_interval(0, 2)
    assert found["mean_min_distance"] == 3.0
    # Shares and speeds are pooled over the 40 steps, not averaged over the two episodes.
    assert found["safety_violation_rate"] == pytest.approx((0.1 * 30 + 0.5 * 10) / 40)
    assert found["mean_ego_speed"] == pytest.approx((30 * 30 + 10 * 10) / 40)
    assert found["reverse_share"] == pytest.approx(0.5 * 30 / 40)


def test_aggregate_leaves_out_episodes_that_saw_nobody():
    episodes = [episode(min_distance=math.inf), episode(min_distance=6.0)]
    assert aggregate_episodes(episodes, METRICS, cvar_level=0.8)["mean_min_distance"] == 6.0
    assert math.isnan(aggregate_episodes(episodes[:1], METRICS, cvar_level=0.8)["mean_min_distance"])


def test_aggregate_needs_an_episode():
    with pytest.raises(UsageError, match="at least one episode"):
        aggregate_episodes([], METRICS, cvar_level=0.8)


def test_the_entries_are_what_the_environment_reports():
    assert {metric.key for metric in METRICS} == set(EPISODE_METRICS)


def test_the_names_of_an_evaluation_file_stay():
    """Files of earlier evaluations are read by these names."""
    names = {
        "num_episodes", "total_steps", "mean_return", "std_return", "mean_return_low", "mean_return_high", "confidence",
        "median_return", "min_return", "max_return", "cvar_level", "cvar_return", "mean_base_return", "mean_length",
        "success_rate", "collision_rate", "collision_rate_low", "collision_rate_high", "off_road_rate",
        "off_road_rate_low", "off_road_rate_high", "mean_min_distance", "mean_ego_speed", "mean_forward_speed",
        "safety_violation_rate", "mean_safety_reward", "reverse_share", "spin_share", "standstill_share",
    }  # fmt: skip
    assert names <= aggregate_episodes([episode()], METRICS, cvar_level=0.8).keys()


def test_a_metric_says_how_it_is_averaged():
    values, lengths = np.array([0.0, 2.0, np.inf]), np.array([1.0, 3.0, 0.0])
    assert Metric("a", "a", "rate").average(values, lengths) == pytest.approx(2 / 3)
    assert Metric("a", "a", "finite_mean").average(values, lengths) == 1.0
    assert Metric("a", "a").average(values[:2], lengths[:2]) == 1.0
    assert Metric("a", "a", "share").average(values[:2], lengths[:2]) == 1.5
    with pytest.raises(UsageError, match=r"'shar'.*'share'"):
        Metric("a", "a", "shar")
    with pytest.raises(ValueError, match="interval"):
        Metric("a", "a", "share", interval=True)


def test_no_interval_reaches_beyond_what_a_metric_can_be():
    free = Metric("part", "part", interval=True)
    bounded = Metric("part", "part", interval=True, bounds=(0.0, 1.0))
    episodes = [{"return": 0.0, "length": 1.0, "part": value} for value in (0.0, 0.0, 1.0)]
    wide, narrow = (aggregate_episodes(episodes, [metric], cvar_level=0.8) for metric in (free, bounded))
    assert wide["mean_part_low"] < 0.0 < 1.0 < wide["mean_part_high"]
    assert (narrow["mean_part_low"], narrow["mean_part_high"]) == (0.0, 1.0)
