"""Statistics of few runs against sums by hand, scipy and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from racer.core.errors import UsageError
from racer.core.statistics import bootstrap, improvement, interquartile_mean, paired_difference
from racer.sweeps.analysis.tables import comparison


def test_the_interquartile_mean_is_the_trimmed_mean_where_quarters_are_whole() -> None:
    values = np.random.default_rng(0).normal(size=(3, 20))
    np.testing.assert_allclose(interquartile_mean(values), stats.trim_mean(values, 0.25, axis=1))
    # Of six runs a quarter is 1.5: half of the second and fifth count.
    assert float(interquartile_mean(np.array([0.0, 2.0, 3.0, 4.0, 6.0, 99.0]))) == pytest.approx((1 + 3 + 4 + 3) / 3)
    assert float(interquartile_mean(np.array([7.0]))) == 7.0


def test_bootstrap_intervals_agree_with_scipy_and_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    values = rng.gamma(2.0, size=40)
    mine = bootstrap(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=rng, n_resamples=10_000).confidence_interval
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    covered = 0
    for _ in range(100):
        estimate = bootstrap(rng.normal(size=40))
        covered += estimate.low <= 0.0 <= estimate.high
    assert covered >= 85
    assert np.isnan(bootstrap(np.array([1.0])).low)
    with pytest.raises(UsageError, match="a run at least"):
        bootstrap(np.array([]))


def test_pairs_take_out_what_a_seed_makes_hard() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(0.0, 20.0, 30)
    first, second = hard + rng.normal(0.0, 1.0, 30), hard + 3.0 + rng.normal(0.0, 1.0, 30)
    paired = paired_difference(first, second)
    assert paired.separates
    assert paired.high < 0.0
    assert paired.high - paired.low < 2.0
    assert not paired_difference(first, rng.permutation(second)).separates
    with pytest.raises(UsageError, match="as many runs"):
        paired_difference(first, second[:3])


def test_the_chance_of_improvement_is_mann_whitneys() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.5, 1.0, 25), np.round(rng.normal(0.0, 1.0, 31), 1)
    estimate = improvement(a, b)
    assert estimate.value == pytest.approx(stats.mannwhitneyu(a, b).statistic / (25 * 31))
    assert estimate.low < estimate.value < estimate.high
    assert improvement(np.array([1.0, 1.0]), np.array([1.0])).value == 0.5


@pytest.mark.parametrize(("scale", "shown"), [(100.0, "-50.0 [-50.0, -50.0]"), (1.0, "-0.500 [-0.500, -0.500]")])
def test_comparisons_show_figures_at_the_scale_of_the_results(scale: float, shown: str) -> None:
    values = [(arm, value * scale, seed) for seed in range(4) for arm, value in (("a", 1.0), ("b", 1.5))]
    rows = [{"arm": arm, "x": value, "seed": seed} for arm, value, seed in values]
    line = next(line for line in comparison(rows, "arm", "x", ["seed"]).splitlines() if line.startswith("a - b"))
    assert line.count(shown) == 2
    assert line.endswith("  separable")


def test_a_difference_that_many_comparisons_would_find_is_told_apart_from_one_that_holds_for_all() -> None:
    rng = np.random.default_rng(4)
    arms = {arm: rng.normal(size=40) for arm in "ab"}
    noise = rng.normal(size=40)
    noise = (noise - noise.mean()) / noise.std()
    # Student's t of these pairs: between the 97.5 % point, 1.96, and that for six comparisons, 2.64.
    arms["c"] = arms["a"] + noise + 2.3 / np.sqrt(40)
    arms["d"] = arms["a"] + noise + 3.3 / np.sqrt(40)
    rows = [{"arm": arm, "seed": i, "x": x} for arm, values in arms.items() for i, x in enumerate(values)]
    lines = {line[:5]: line for line in comparison(rows, "arm", "x", ["seed"]).splitlines()}
    assert lines["a - b"].endswith("  not separable")
    assert lines["a - c"].endswith("  separable")
    assert lines["a - d"].endswith("  separable, also at 95 % for all 6")
