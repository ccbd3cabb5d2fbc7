"""The learner without processes: ratio, warm-up, publications, lag, guards, rollouts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from service_kit import make_consumer
from test_channels_local import make_batch
from toy_agent import ToyAgent

from racer.core.errors import UsageError
from racer.distributed.channels import LocalExperienceChannel, LocalParameterChannel
from racer.distributed.config import ServiceConfig
from racer.distributed.consumers import OnPolicyConsumer
from racer.distributed.learner import DistributedLearner, LearningDiverged
from racer.distributed.statistics import MeanOfDicts, Throughput


class Bench:
    """A learner with local channels; ``feed`` puts batches in, ``drain`` lets the learner work until it waits."""

    def __init__(self, agent=None, consumer=None, **config):
        self.experience = LocalExperienceChannel(1000)
        self.parameters = LocalParameterChannel()
        self.consumer = consumer or make_consumer()
        self.learner = DistributedLearner(
            agent or ToyAgent(), self.consumer, self.experience, self.parameters, ServiceConfig(**config), epoch=4
        )

    def feed(self, count, **kwargs):
        for number in range(count):
            self.experience.put(make_batch(number, **kwargs))

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
    assert metrics["gradient_steps"] == 40
    assert metrics["utd_target"] == 0.25
    assert metrics["utd_achieved"] == 40 / 176


def test_nothing_is_taken_in_while_updates_are_due():
    bench = Bench()
    bench.feed(40)
    while not bench.consumer.updates_due():
        bench.learner.step(0.0)
    depth = bench.experience.depth
    bench.learner.step(0.0)
    bench.learner.step(0.0)
    assert bench.experience.depth == depth
    assert bench.consumer.updates_due() == 0
    bench.learner.step(0.0)
    assert bench.experience.depth == depth - 1


def test_random_actions_until_warm_up_is_over_then_a_policy_at_once():
    bench = Bench(policy_update_frequency=1e-3)
    bench.learner.publish()
    assert (bench.parameters.latest().version, bench.parameters.latest().data) == (0, b"")
    bench.feed(10)
    bench.drain()
    assert bench.parameters.latest().version == 0
    bench.feed(1)
    bench.drain()
    latest = bench.parameters.latest()
    assert (latest.version, latest.epoch, latest.round) == (1, 4, 0)
    assert latest.data


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
    assert (metrics["policy_lag_mean"], metrics["policy_lag_max"]) == (2.0, 4.0)
    assert bench.learner.metrics()["policy_lag_max"] == 0.0
    np.testing.assert_array_equal(np.unique(bench.consumer.buffer.state_arrays()["policy_versions"]), [0, 3, 7])


def test_values_that_are_not_finite_do_not_enter_the_buffer():
    bench = Bench()
    bad = make_batch(1)
    bad.experience.rewards[1, 2] = np.nan
    bad.experience.next_observations[0, 0, 3] = np.inf
    bench.experience.put(bad)
    bench.drain()
    assert bench.learner.transitions == 4
    # Two found here, two that the worker had dropped already.
    assert bench.learner.metrics()["nonfinite_transitions"] == 4
    assert all(np.isfinite(v).all() for v in bench.consumer.buffer.sample(64).values())


def test_stops_after_updates_in_a_row_that_are_not_finite():
    bench = Bench(agent=ToyAgent(fail_from=4), max_nonfinite_updates=3)
    bench.feed(60)
    with pytest.raises(LearningDiverged, match="3 updates in a row"):
        bench.drain()
    # One update may be under way when the last result is looked at.
    assert len(bench.learner.agent.calls) == 7
    assert bench.learner.metrics()["nonfinite_updates"] == 3 * 4


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
    good = bench.parameters.latest()
    assert good.version == 1
    agent.digest[:] = np.nan
    bench.feed(12)
    bench.drain()
    assert bench.parameters.latest() == good
    assert bench.learner.metrics()["skipped_publications"] > 0


def test_on_policy_takes_whole_rollouts_and_drops_stale_ones():
    got = []

    def update(agent, rollouts):
        got.append([batch.experience.rewards.shape for batch in rollouts])
        assert all("log_probs" in batch.experience.extras for batch in rollouts)
        return agent, {"loss": 1.0}

    bench = Bench(consumer=OnPolicyConsumer(update, batches_per_update=2, max_policy_lag=1))
    bench.learner.publish()
    assert bench.parameters.latest().data
    bench.feed(2, version=1)
    bench.drain()
    assert got == [[(2, 3), (2, 3)]]
    assert bench.parameters.latest().version == 2
    bench.learner.version = 4
    bench.feed(3, version=2)
    bench.feed(1, version=3)
    bench.drain()
    assert len(got) == 1
    assert bench.learner.metrics()["stale_batches"] == 3
    assert bench.learner.transitions == 18


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
    bench.experience.put(dataclasses.replace(batch, experience=experience))
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
