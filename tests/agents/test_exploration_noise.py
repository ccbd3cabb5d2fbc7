"""Correlated exploration noise: its statistics, which of the draws it touches, and that its state goes on exactly."""

from __future__ import annotations

import numpy as np
import pytest

from racer.agents.policy.noise import CorrelatedGenerator, exploration_generator
from racer.core.errors import UsageError
from racer.replay.exploration import exploration_state, restore_exploration


def test_each_draw_is_standard_normal_and_remembers_the_last() -> None:
    rng = CorrelatedGenerator(np.random.PCG64(0), 0.85)
    draws = np.stack([rng.standard_normal((4000, 2), dtype=np.float32) for _ in range(40)])
    assert draws.dtype == np.float32
    # 8000 draws a step: a standard error of 0.011 of means and correlations.
    np.testing.assert_allclose(draws.mean(axis=(1, 2)), 0.0, atol=0.06)
    np.testing.assert_allclose(draws.std(axis=(1, 2)), 1.0, atol=0.05)
    for lag in (1, 2, 5):
        correlation = np.mean(draws[lag:] * draws[:-lag])
        assert correlation == pytest.approx(0.85**lag, abs=0.02)
    assert abs(np.mean(draws[..., 0] * draws[..., 1])) < 0.02


def test_without_correlation_the_stream_is_the_plain_one() -> None:
    plain = np.random.default_rng(3)
    assert exploration_generator({"kind": "uniform"}, plain) is plain
    assert exploration_generator({"noise_correlation": 0.0}, plain) is plain
    correlated = exploration_generator({"noise_correlation": 0.5}, np.random.default_rng(3))
    np.testing.assert_array_equal(correlated.random(5), plain.random(5))


def test_another_number_of_environments_begins_anew() -> None:
    rng = CorrelatedGenerator(np.random.PCG64(0), 0.999)
    first = rng.standard_normal((3, 2))
    assert rng.standard_normal((5, 2)).shape == (5, 2)
    assert not np.allclose(rng.standard_normal((3, 2)), first, atol=0.2)


def test_a_caller_cannot_change_the_memory() -> None:
    first, second = (CorrelatedGenerator(np.random.PCG64(1), 0.9) for _ in range(2))
    first.standard_normal((2, 2))[:] = 100.0
    second.standard_normal((2, 2))
    np.testing.assert_array_equal(first.standard_normal((2, 2)), second.standard_normal((2, 2)))


@pytest.mark.parametrize("correlation", [0.0, 0.85])
def test_state_continues_bit_for_bit(correlation: float) -> None:
    spec = {"noise_correlation": correlation}
    rng = exploration_generator(spec, np.random.default_rng(5))
    rng.standard_normal((4, 2), dtype=np.float32)
    state = exploration_state(rng, "policy_")
    assert set(state) == ({"policy_rng", "policy_noise"} if correlation else {"policy_rng"})
    again = restore_exploration(spec, state, "policy_")
    assert not state
    for _ in range(3):
        got, expected = (g.standard_normal((4, 2), dtype=np.float32) for g in (again, rng))
        np.testing.assert_array_equal(got, expected)


def test_only_values_below_one_are_taken(make_agent) -> None:
    agent = make_agent(noise_correlation=0.85)
    assert agent.policy_spec["noise_correlation"] == 0.85
    for wrong in (-0.1, 1.0):
        with pytest.raises(UsageError, match="noise_correlation"):
            make_agent(noise_correlation=wrong)
