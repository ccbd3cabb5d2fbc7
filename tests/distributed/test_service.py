"""The service with real processes: counts, lock step, resume, errors of the caller, and what is left behind."""

from __future__ import annotations

import functools
import os
import threading
import time

import numpy as np
import pytest
from service_kit import children, make_consumer, make_service
from toy_agent import RolloutAgent, ToyAgent
from toy_envs import FaultyEnv, NoJaxEnv, StatefulVectorEnv, toy_vector

from racer.core.errors import EnvironmentFault, UsageError
from racer.distributed.consumers import OnPolicyConsumer
from racer.distributed.inline import InlinePool
from racer.distributed.pool import StateLost
from racer.distributed.processes.supervisor import ProcessPool
from racer.distributed.service import Periodic


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def wait_for_workers(service):
    """Hold the learner until all workers step; one that starts early could do a whole short run alone."""
    deadline = time.monotonic() + 60
    while service.pool.metrics()["workers_alive"] < service.config.num_workers:
        assert time.monotonic() < deadline, "the workers did not start"
        time.sleep(0.01)


def test_a_run_counts_exactly_and_leaves_nothing_behind():
    before = open_files()
    logs, marks = [], []
    service = make_service(functools.partial(toy_vector, 2, cls=NoJaxEnv), policy_update_frequency=50.0)
    assert service.run(
        2000,
        periodic=[
            Periodic(500, lambda s: logs.append(s.metrics())),
            Periodic(700, lambda s: marks.append(s.transitions)),
            Periodic(16, wait_for_workers),
        ],
    )
    assert children() == []
    assert open_files() == before
    learner = service.learner
    assert 2000 <= learner.transitions < 2000 + 2 * 16
    assert learner.updates == (learner.transitions - 64) // 32 * 2
    assert len(service.consumer.buffer) == learner.transitions
    assert len(logs) == 4
    assert len(marks) == 2
    last = logs[-1]
    assert last["training/update_to_data_target"] == 0.25
    assert last["training/update_to_data"] == pytest.approx(0.25, rel=0.1)
    assert last["training/length"] == 5.0
    assert last["training/workers_alive"] == 2
    for name in ("worker_restarts", "dropped_batches", "nonfinite_transitions"):
        assert last[f"training/{name}"] == 0
    assert last["training/policy_version"] > 1
    versions = service.consumer.buffer.state_arrays()["policy_versions"]
    assert (versions[:48] == 0).all()
    assert versions.max() > 1


def test_run_goes_on_after_a_run_and_from_a_saved_state():
    service = make_service()
    assert service.run(300)
    assert service.run(600)
    state = service.state()
    assert state.counters["incarnations"] == [2, 2]
    later = make_service(agent=service.agent, state=state)
    assert later.transitions == service.transitions
    assert later.run(900)
    assert later.state().counters["incarnations"] == [3, 3]
    assert later.learner.updates == (later.transitions - 64) // 32 * 2
    assert later.learner.version > service.learner.version


def lock_step(total, *, agent=None, state=None, consumer=None, stop_event=None, seed=3, **kwargs):
    factory = functools.partial(toy_vector, 2, vector=StatefulVectorEnv)
    service = make_service(
        factory, agent=agent, state=state, consumer=consumer, deterministic=True, seed=seed, **kwargs
    )
    service.run(total, stop_event=stop_event)
    return service


def assert_same(one, other):
    np.testing.assert_array_equal(one.agent.digest, other.agent.digest)
    a, b = one.state(), other.state()
    for group in ("replay", "collector"):
        first, second = getattr(a, group), getattr(b, group)
        assert set(first) == set(second)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert a.counters == b.counters


POOLS = [InlinePool, ProcessPool]


@pytest.mark.parametrize("pool", POOLS)
def test_lock_step_agrees_bit_for_bit_and_resumes_exactly(pool):
    whole, again = lock_step(600, pool=pool), lock_step(600, pool=pool)
    assert whole.learner.updates > 20
    assert_same(whole, again)
    assert lock_step(600, seed=4, pool=pool).agent.digest.tolist() != whole.agent.digest.tolist()
    half = lock_step(300, pool=pool)
    resumed = lock_step(600, agent=half.agent, state=half.state(), pool=pool)
    assert_same(whole, resumed)


def rollouts(**kwargs):
    return lock_step(600, agent=RolloutAgent(), consumer=OnPolicyConsumer(rollouts_per_update=2), **kwargs)


@pytest.mark.parametrize("run", [functools.partial(lock_step, 600), rollouts])
def test_workers_in_the_learners_thread_give_the_bits_of_worker_processes(run):
    """And so a run begun with the one kind may go on with the other."""
    assert_same(run(pool=InlinePool), run(pool=ProcessPool))


def test_inline_workers_that_break_within_a_round_leave_no_state():
    service = make_service(
        functools.partial(toy_vector, 2, cls=FaultyEnv, fault="raise", at=3, every=4, vector=StatefulVectorEnv),
        deterministic=True,
        pool=InlinePool,
    )
    with pytest.raises(EnvironmentFault, match="wheel fell off"):
        service.run(10**6)
    assert service.transitions > 0
    with pytest.raises(StateLost):
        service.state()


def test_lock_step_stopped_in_mid_round_loses_only_that_round():
    stop = threading.Event()
    agent = ToyAgent()
    plain = agent.update

    def update(batch, utd_ratio):
        if len(agent.calls) == 10:
            stop.set()
        return plain(batch, utd_ratio)

    agent.update = update
    service = lock_step(600, agent=agent, stop_event=stop)
    assert service.transitions < 600
    agent.update = plain
    assert_same(lock_step(600), lock_step(600, agent=agent, state=service.state()))


def test_lock_step_state_needs_as_many_workers():
    state = lock_step(64).state()
    with pytest.raises(UsageError, match="num_workers is 3"):
        make_service(deterministic=True, num_workers=3, state=state)


class NotingConsumer(OnPolicyConsumer):
    """Notes worker, version and lag of every rollout that it takes."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.taken = []

    def accept(self, batch, current_version):
        count = super().accept(batch, current_version)
        if count:
            self.taken.append((batch.worker, batch.policy_version, current_version - batch.policy_version))
        return count


def test_on_policy_rollouts_carry_the_current_policy_in_lock_step():
    consumer = NotingConsumer(rollouts_per_update=2, max_policy_lag=0)
    service = make_service(agent=RolloutAgent(), consumer=consumer, deterministic=True)
    assert service.run(160)
    assert consumer.taken == [(worker, n, 0) for n in range(1, 6) for worker in (0, 1)]
    assert service.metrics()["training/stale_batches"] == 0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("max_lag", [0, 1])
def test_free_running_on_policy_collects_while_it_learns_and_drops_what_is_stale(max_lag, workers):
    consumer = NotingConsumer(rollouts_per_update=workers, max_policy_lag=max_lag)
    # Time enough for the workers to begin another rollout with the policy that this update replaces.
    agent = RolloutAgent(lambda rollouts: time.sleep(0.02))
    service = make_service(agent=agent, consumer=consumer, num_workers=workers, max_queue_size=workers)
    assert service.run(500)
    lags = [lag for _, _, lag in consumer.taken]
    assert max(lags) == max_lag
    assert len(lags) >= 500 / 16 - 2
    if max_lag == 0:
        assert service.metrics()["training/stale_batches"] > 0


def test_stop_event_ends_the_run():
    stop = threading.Event()
    service = make_service()
    assert not service.run(10**9, periodic=[Periodic(200, lambda s: stop.set())], stop_event=stop)
    assert service.transitions < 1000
    assert children() == []


def test_a_wrong_environment_setting_is_reported_as_the_callers():
    def wrong():
        raise UsageError("unknown environment config key 'lane_cuont'; did you mean 'lanes_count'?")

    with pytest.raises(UsageError, match=r"^unknown environment config key 'lane_cuont'; did you mean"):
        make_service(wrong).run(100)
    assert children() == []


def test_state_that_lacks_something_is_refused():
    state = make_service().state()
    del state.counters["version"]
    with pytest.raises(UsageError, match="version"):
        make_service(state=state)
    with pytest.raises(UsageError, match="capacity"):
        make_service(consumer=make_consumer(replay_buffer_size=77), state=make_service().state())
