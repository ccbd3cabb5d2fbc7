"""The service with real processes: counts, lock step, resume, errors of the caller, and what is left behind."""

from __future__ import annotations

import functools
import os
import threading
import time

import numpy as np
import pytest
from service_kit import children, make_consumer, make_service
from toy_agent import ToyAgent
from toy_envs import NoJaxEnv, StatefulVectorEnv, toy_vector

from racer.core.errors import UsageError
from racer.distributed.consumers import OnPolicyConsumer
from racer.distributed.service import Periodic


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def wait_for_workers(service):
    """Hold the learner until all workers step; one that starts early could do a whole short run alone."""
    deadline = time.monotonic() + 60
    while service.supervisor.metrics()["workers_alive"] < service.config.num_workers:
        assert time.monotonic() < deadline, "the workers did not start"
        time.sleep(0.01)


def test_a_run_counts_exactly_and_leaves_nothing_behind():
    before = open_files()
    logs, marks = [], []
    service = make_service(functools.partial(toy_vector, 2, cls=NoJaxEnv), policy_update_frequency=50.0)
    assert service.run(
        2000,
        on_log=logs.append,
        log_interval=500,
        periodic=[Periodic(700, lambda s: marks.append(s.transitions)), Periodic(16, wait_for_workers)],
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
    assert last["utd_target"] == 0.25
    assert last["utd_achieved"] == pytest.approx(0.25, rel=0.1)
    assert last["episode/length"] == 5.0
    assert last["workers_alive"] == 2
    assert last["worker_restarts"] == last["dropped_batches"] == last["nonfinite_transitions"] == 0
    assert last["policy_version"] > 1
    assert sorted(service.consumer.buffer.transitions_by_worker) == [0, 1]
    versions = service.consumer.buffer.state_arrays()["policy_versions"]
    assert (versions[:48] == 0).all()
    assert versions.max() > 1


def test_run_goes_on_after_a_run_and_from_a_saved_state():
    service = make_service()
    assert service.run(300)
    assert service.run(600)
    state = service.state()
    assert state.counters["epoch"] == 2
    assert state.counters["incarnations"] == [2, 2]
    later = make_service(agent=service.agent, state=state)
    assert later.transitions == service.transitions
    assert later.run(900)
    assert later.learner.epoch == 3
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
    ignored = {"epoch", "incarnations", "dropped_batches"}
    assert {k: v for k, v in a.counters.items() if k not in ignored} == {
        k: v for k, v in b.counters.items() if k not in ignored
    }


def test_lock_step_agrees_bit_for_bit_and_resumes_exactly():
    whole, again = lock_step(600), lock_step(600)
    assert whole.learner.updates > 20
    assert_same(whole, again)
    assert lock_step(600, seed=4).agent.digest.tolist() != whole.agent.digest.tolist()
    half = lock_step(300)
    resumed = lock_step(600, agent=half.agent, state=half.state())
    assert_same(whole, resumed)


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


def test_on_policy_rollouts_carry_the_current_policy_in_lock_step():
    seen = []

    def update(agent, rollouts):
        seen.append([(batch.worker, batch.policy_version, batch.experience.rewards.shape) for batch in rollouts])
        return agent, {"loss": 0.0}

    consumer = OnPolicyConsumer(update, batches_per_update=2, max_policy_lag=0)
    service = make_service(consumer=consumer, deterministic=True)
    assert service.run(160)
    assert seen == [[(0, n, (8, 2)), (1, n, (8, 2))] for n in range(1, 6)]
    assert service.metrics()["stale_batches"] == 0


@pytest.mark.parametrize("max_lag", [0, 1])
def test_free_running_on_policy_drops_what_is_stale(max_lag):
    seen = []

    def update(agent, rollouts):
        seen.extend(service.learner.version - batch.policy_version for batch in rollouts)
        # Time enough for the workers to begin another rollout with the policy that this update replaces.
        time.sleep(0.02)
        return agent, {"loss": 0.0}

    consumer = OnPolicyConsumer(update, batches_per_update=2, max_policy_lag=max_lag)
    service = make_service(consumer=consumer)
    assert service.run(500)
    assert max(seen) <= max_lag
    assert len(seen) >= 500 / 16 - 2
    if max_lag == 0:
        assert service.metrics()["stale_batches"] > 0


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
