"""Update-to-data: exact counts, whatever the batch sizes, and settings that cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.distributed.config import OffPolicyConfig, ServiceConfig
from racer.distributed.rate_limiter import RateLimiter


@pytest.mark.parametrize("sizes", [[1], [128], [7, 300], [1000]])
def test_updates_follow_the_definition(sizes):
    config = OffPolicyConfig(start_training=100, experience_batch_size=128, learner_update_ratio=4, utd_ratio=16)
    limiter = RateLimiter(config)
    for number in range(3000 // max(sizes)):
        limiter.transitions += sizes[number % len(sizes)]
        while limiter.updates_due:
            limiter.updates += 1
        assert limiter.updates == max(0, limiter.transitions - 100) // 128 * 4
        assert limiter.gradient_steps == 16 * limiter.updates
    assert config.update_to_data == 0.5
    whole = (limiter.transitions - 100) // 128 * 128
    assert limiter.achieved == pytest.approx(0.5 * whole / (limiter.transitions - 100))


def test_warm_up_pays_for_nothing():
    limiter = RateLimiter(OffPolicyConfig(start_training=1000, experience_batch_size=1))
    limiter.transitions = 999
    assert (limiter.warming_up, limiter.updates_due, limiter.achieved) == (True, 0, 0.0)
    limiter.transitions = 1000
    assert (limiter.warming_up, limiter.updates_due) == (False, 0)
    limiter.transitions = 1001
    assert limiter.updates_due == 4


@pytest.mark.parametrize(
    ("cls", "values", "named"),
    [
        (OffPolicyConfig, {"batch_size": 300, "replay_buffer_size": 200}, "'batch_size' .300."),
        (OffPolicyConfig, {"utd_ratio": 0}, "utd_ratio"),
        (OffPolicyConfig, {"learner_update_ratio": 1.5}, "learner_update_ratio"),
        (ServiceConfig, {"num_workers": 0}, "num_workers"),
        (ServiceConfig, {"seed": -1}, "seed"),
        (ServiceConfig, {"seed": 0.5}, "seed"),
        (ServiceConfig, {"policy_update_frequency": float("nan")}, "policy_update_frequency"),
        (ServiceConfig, {"policy_update_frequency": 0}, "policy_update_frequency"),
        (ServiceConfig, {"step_timeout": float("inf")}, "step_timeout"),
        (ServiceConfig, {"num_workers": 4, "max_queue_size": 3}, "max_queue_size 3"),
    ],
)
def test_settings_that_cannot_be_are_named(cls, values, named):
    with pytest.raises(UsageError, match=named):
        cls(**values)


def test_credits_never_exceed_the_queue():
    for workers in range(1, 9):
        config = ServiceConfig(num_workers=workers, max_queue_size=8)
        assert config.credits >= 1
        assert config.credits * workers <= 8
    assert np.isclose(ServiceConfig().policy_update_frequency, 2.0)
