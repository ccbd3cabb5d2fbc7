"""The learner without processes: ratio, warm-up, publications, lag, guards, rollouts."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from batches import make_batch
from service_kit import make_consumer
from toy_agent import RolloutAgent, ToyAgent

from racer.core.errors import UsageError
from racer.distributed.config import ServiceConfig
from racer.distributed.consumers import OnPolicyConsumer
from racer.distributed.learner import DistributedLearner, LearningDiverged
from racer.distributed.statistics import EpisodeWindow, MeanOfDicts, Throughput
from racer.envs.metric import BASE_METRICS, Metric


class Shelf:
    """A pool of no workers: hands out what was put there, and keeps the last publication."""

    def __init__(self):
        self.batches, self.published = [], None

    def get(self, timeout):
        return self.batches.pop(0) if self.batches else None

    def publish(self, parameters):
        self.published = parameters


class Bench:
    """A learner at a shelf; ``feed`` puts batches there, ``drain`` lets the learner work until it waits."""

    def __init__(self, agent=None, consumer=None, **config):
        self.pool = Shelf()
        self.consumer = consumer or make_consumer()
        self.learner = DistributedLearner(agent or ToyAgent(), self.consumer, ServiceConfig(**config))
        self.learner.connect(self.pool)

    def feed(self, count, **kwargs):
        self.pool.batches += [make_batch(number, **kwargs) for number in range(count)]

    def drain(self):
        while self.learner.step(0.0):
            pass


def test_ratio_and_minibatch_sizes():
    bench = Bench()
    bench.feed(40)
    bench.drain()
    learner = bench.learner
    assert learner.transitions == 240
    assert learner.updates == (240 - 64) // 32 * 2 == 10
    assert learner.agent.calls == [(4 * 16, 4)] * 10
    metrics = learner.metrics()
    assert metrics["training/gradient_steps"] == 40
    assert metrics["training/update_to_data_target"] == 0.25
    assert metrics["training/update_to_data"] == 40 / 176


def test_nothing_is_taken_in_while_updates_are_due():
    bench = Bench()
    bench.feed(40)
    while not bench.consumer.updates_due():
        bench.learner.step(0.0)
    depth = len(bench.pool.batches)
    bench.learner.step(0.0)
    bench.learner.step(0.0)
    assert len(bench.pool.batches) == depth
    assert bench.consumer.updates_due() == 0
    bench.learner.step(0.0)
    assert len(bench.pool.batches) == depth - 1


def test_random_actions_until_warm_up_is_over_then_a_policy_at_once():
    bench = Bench(policy_update_frequency=1e-3)
    bench.learner.publish()
    assert (bench.pool.published.version, bench.pool.published.arrays) == (0, None)
    bench.feed(10)
    bench.drain()
    assert bench.pool.published.version == 0
    bench.feed(1)
    bench.drain()
    latest = bench.pool.published
    assert (latest.version, latest.round) == (1, 0)
    assert latest.arrays


def test_publishes_again_only_what_has_changed():
    bench = Bench(policy_update_frequency=1e6)
    bench.learner.publish()
    bench.feed(30)
    bench.drain()
    version = bench.learner.version
    assert version > 1
    for _ in range(3):
        bench.learner.step(0.0)
    assert bench.learner.version == version


def test_policy_lag_is_counted_in_publications():
    bench = Bench(policy_update_frequency=1e-3)
    bench.learner.version = 7
    bench.feed(1, version=7)
    bench.feed(1, version=3)
    bench.feed(1, version=0)
    bench.drain()
    metrics = bench.learner.metrics()
    assert (metrics["training/policy_lag_mean"], metrics["training/policy_lag_max"]) == (2.0, 4.0)
    assert bench.learner.metrics()["training/policy_lag_max"] == 0.0
    np.testing.assert_array_equal(np.unique(bench.consumer.buffer.state_arrays()["policy_versions"]), [0, 3, 7])


def test_values_that_are_not_finite_do_not_enter_the_buffer():
    bench = Bench()
    bad = make_batch(1)
    bad.experience.rewards[1, 2] = np.nan
    bad.experience.final_observations[0, 3] = np.inf
    bench.pool.batches.append(bad)
    bench.drain()
    assert bench.learner.transitions == 4
    # Two found here, two that the worker had dropped already.
    assert bench.learner.metrics()["training/nonfinite_transitions"] == 4
    assert all(np.isfinite(v).all() for v in bench.consumer.buffer.sample(64).values())


def test_stops_after_updates_in_a_row_that_are_not_finite():
    bench = Bench(agent=ToyAgent(fail_from=4), max_nonfinite_updates=3)
    bench.feed(60)
    with pytest.raises(LearningDiverged, match="3 updates in a row"):
        bench.drain()
    # One update may be under way when the last result is looked at.
    assert len(bench.learner.agent.calls) == 7
    assert bench.learner.metrics()["training/nonfinite_updates"] == 3 * 4


def test_a_single_bad_update_does_not_stop_the_run():
    agent = ToyAgent()
    plain = agent.update

    def sometimes(batch, utd_ratio):
        _, info = plain(batch, utd_ratio)
        return agent, {**info, "nonfinite_updates": len(agent.calls) % 2}

    agent.update = sometimes
    bench = Bench(agent=agent, max_nonfinite_updates=2)
    bench.feed(60)
    bench.drain()
    assert bench.learner.updates == (360 - 64) // 32 * 2


def test_parameters_that_are_not_finite_are_not_published():
    agent = ToyAgent()
    bench = Bench(agent=agent, policy_update_frequency=1e6)
    bench.learner.publish()
    bench.feed(12)
    bench.drain()
    good = bench.pool.published
    assert good.version == 1
    agent.digest[:] = np.nan
    bench.feed(12)
    bench.drain()
    assert bench.pool.published == good
    assert bench.learner.metrics()["training/skipped_publications"] > 0


def test_on_policy_takes_whole_rollouts_and_drops_stale_ones():
    got = []
    agent = RolloutAgent(lambda rollouts: got.append((rollouts["rewards"].shape, rollouts["log_probs"].shape)))
    bench = Bench(agent, OnPolicyConsumer(rollouts_per_update=2, max_policy_lag=1))
    bench.learner.publish()
    assert bench.pool.published.arrays
    bench.feed(2, version=1)
    bench.drain()
    assert got == [((2, 6), (2, 6))]
    assert bench.pool.published.version == 2
    bench.learner.version = 4
    bench.feed(3, version=2)
    bench.feed(1, version=3)
    bench.drain()
    assert len(got) == 1
    assert bench.learner.metrics()["training/stale_batches"] == 3
    assert bench.learner.transitions == 18
    assert bench.learner.metrics()["training/gradient_steps"] == 3


def test_consumer_state_continues_bit_for_bit():
    first, second = Bench(), Bench()
    first.feed(30)
    first.drain()
    second.consumer.load_state_arrays(first.consumer.state_arrays())
    second.learner.agent.digest[:] = first.learner.agent.digest
    for bench in (first, second):
        bench.feed(7)
        bench.drain()
    np.testing.assert_array_equal(first.learner.agent.digest, second.learner.agent.digest)
    with pytest.raises(UsageError, match="no counts"):
        second.consumer.load_state_arrays({})


def test_invalid_rows_do_not_count():
    bench = Bench()
    batch = make_batch(3)
    valid = batch.experience.valid.copy()
    valid[0, 0] = False
    experience = dataclasses.replace(batch.experience, valid=valid, nonfinite=0)
    bench.pool.batches.append(dataclasses.replace(batch, experience=experience))
    bench.drain()
    assert bench.learner.transitions == 5


def test_throughput_over_its_windows():
    now = [0.0]
    meter = Throughput(windows=(10, 60), clock=lambda: now[0])
    assert meter.rates("s") == {"s_10s": 0.0, "s_60s": 0.0}
    for second in range(121):
        now[0] = float(second)
        meter.add(100 * second if second <= 100 else 10_000)
    rates = meter.rates("s")
    assert rates["s_10s"] == 0.0
    assert rates["s_60s"] == pytest.approx(4000 / 60)


def test_means_leave_out_what_is_not_finite_and_start_over():
    means = MeanOfDicts()
    means.add({"a": 1.0, "b": float("inf")})
    means.add({"a": 3.0})
    assert means.take("x/") == {"x/a": 2.0}
    assert means.take("x/") == {}


WORLD = (*BASE_METRICS, Metric("hit", "hit_rate", "rate", total="hits"), Metric("late", "late_share", "share"))


def test_episode_window_names_rates_shares_and_totals_as_the_world_says():
    window = EpisodeWindow(WORLD, size=3)
    assert window.means() == {"episodes": 0, "hits": 0}
    for number in range(5):
        window.extend([{"return": float(number), "length": 1.0 + (number == 4), "hit": float(number % 2), "late": 0.5 *
                        (number == 4), "own": 1.0}])  # fmt: skip
    means = window.means()
    assert means == {
        "episodes": 5, "hits": 2, "return": 3.0, "length": pytest.approx(4 / 3), "hit_rate": pytest.approx(1 / 3),
        "late_share": 0.25, "own": 1.0,
    }  # fmt: skip
    again = EpisodeWindow(WORLD, size=3)
    again.set_state(json.loads(json.dumps(window.get_state())))
    assert again.means() == means


def test_statistics_are_part_of_the_state():
    first, second = Bench(), Bench()
    first.feed(30)
    first.drain()
    first.learner.settle()
    second.learner.set_state(json.loads(json.dumps(first.learner.get_state())))
    one, other = (bench.learner.metrics() for bench in (first, second))
    for name in ("training/return", "training/episodes", "agent/loss", "training/updates", "training/policy_version"):
        assert one[name] == other[name]
