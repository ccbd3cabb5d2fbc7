"""Faults of workers in a running service: real processes, real signals."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import time

import numpy as np
import psutil
import pytest
from service_kit import QUICK, children, make_consumer, make_service
from toy_agent import ToyAgent
from toy_envs import FaultOnceEnv, FaultyEnv, StatefulVectorEnv, ToyEnv, slow_to_build, toy_vector

from racer.distributed.processes.frames import BrokenFrame
from racer.distributed.processes.supervisor import ProcessPool
from racer.distributed.service import Periodic
from racer.distributed.supervision import WorkerCrashLoop
from racer.replay import NonFiniteData

REPLACED_WITHIN = 10.0


def kill_at(transitions, worker=0):
    """Kill a worker's process once, as soon as so many transitions are in."""
    killed = []

    def kill(service):
        pid = service.pool.worker_pids()[worker]
        if not killed and pid is not None:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    return killed, Periodic(transitions, kill)


def until_restarted(service, done, restarts=1):
    """A duty that stops the run once workers have been replaced and have delivered again."""
    seen = {}

    def check(service):
        if (
            service.pool.metrics()["worker_restarts"] >= restarts
            and service.pool.metrics()["workers_alive"] == 2
        ):
            seen.setdefault("at", service.transitions)
        if "at" in seen and service.transitions > seen["at"] + 500:
            done.set()

    return Periodic(16, check)


class Flag:
    """A stop event with a deadline, so that a broken service fails the test instead of hanging it."""

    def __init__(self, seconds=60.0):
        self.deadline, self.value = time.monotonic() + seconds, False

    def set(self):
        self.value = True

    def is_set(self):
        assert time.monotonic() < self.deadline, "the service did not get there in time"
        return self.value


def test_a_worker_killed_in_mid_step_is_replaced_and_nothing_counted_is_lost():
    counts, done = [], Flag()
    killed, kill = kill_at(200)
    service = make_service(functools.partial(toy_vector, 2, step_seconds=0.002))
    watch = Periodic(
        16, lambda s: counts.append((s.transitions, s.learner.updates, s.learner.version, len(s.consumer.buffer)))
    )
    service.run(10**9, periodic=[kill, watch, until_restarted(service, done)], stop_event=done)
    assert killed
    metrics = service.metrics()
    assert metrics["training/worker_failures"] == metrics["training/worker_restarts"] == 1
    assert 0 < metrics["training/slowest_recovery_seconds"] < REPLACED_WITHIN
    assert counts == sorted(counts)
    # The successor does not draw its predecessor's random numbers again.
    actions = service.consumer.buffer.state_arrays()["actions"]
    assert len(np.unique(actions)) == len(actions)
    # Whole batches only, of 8 steps of 2 environments.
    assert service.transitions % 16 == 0
    assert service.learner.updates + service.consumer.updates_due() == (service.transitions - 64) // 32 * 2
    assert children() == []


@pytest.mark.parametrize(("fault", "named"), [("raise", "wheel fell off"), ("exit", "exited with code 9")])
def test_a_fault_in_step_is_reported_once_and_survived(fault, named, tmp_path, caplog):
    done = Flag()
    factory = functools.partial(toy_vector, 2, cls=FaultOnceEnv, marker=str(tmp_path / "done"), fault=fault, at=40)
    service = make_service(factory)
    with caplog.at_level(logging.WARNING, "racer.distributed"):
        service.run(10**9, periodic=[until_restarted(service, done)], stop_event=done)
    assert service.metrics()["training/worker_failures"] == 1
    assert named in caplog.text
    if fault == "raise":
        assert caplog.text.count("Traceback (most recent call last)") == 2  # the cause and what it led to
        assert "EnvironmentFault: SyncVectorEnv, toy_envs.py:" in caplog.text
        assert "(in step, seed" in caplog.text


def test_a_hanging_step_is_killed_while_the_others_go_on(tmp_path):
    done, progress = Flag(), []
    marker = tmp_path / "done"
    factory = functools.partial(
        toy_vector, 2, cls=FaultOnceEnv, marker=str(marker), fault="hang", at=30, step_seconds=0.001
    )
    service = make_service(factory, step_timeout=2.0)

    def watch(service):
        metrics = service.pool.metrics()
        if marker.exists() and metrics["worker_failures"] == 0:
            progress.append(service.transitions)

    service.run(10**9, periodic=[Periodic(16, watch), until_restarted(service, done)], stop_event=done)
    assert service.metrics()["training/worker_failures"] == 1
    assert progress[-1] > progress[0] + 200
    assert children() == []


def test_a_stopped_process_is_silent_and_replaced():
    done, stopped = Flag(), []

    def freeze(service):
        if not stopped and service.pool.metrics()["workers_alive"] == 2:
            stopped.append(service.pool.worker_pids()[1])
            os.kill(stopped[0], signal.SIGSTOP)

    service = make_service(step_timeout=2.0)
    service.run(10**9, periodic=[Periodic(300, freeze), until_restarted(service, done)], stop_event=done)
    assert stopped
    assert not psutil.pid_exists(stopped[0])


@pytest.mark.skipif(sys.platform != "linux", reason="a process's time is read in /proc")
def test_a_worker_that_compiles_on_a_machine_without_time_is_not_taken_for_one_that_hangs():
    service = make_service(functools.partial(slow_to_build, 6.0, 0.1), startup_timeout=4.0)
    assert service.run(200)
    assert service.metrics()["training/worker_failures"] == 0


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["waits", "loops"])
def test_a_start_that_hangs_is_ended_at_the_startup_timeout(share):
    service = make_service(functools.partial(slow_to_build, 1000.0, share), startup_timeout=4.0, max_start_failures=1)
    with pytest.raises(WorkerCrashLoop, match=r"no sign of life for 4 s at its start \(startup_timeout\)$"):
        service.run(200)
    assert children() == []


def test_every_worker_failing_at_reset_ends_with_the_root_cause():
    service = make_service(functools.partial(toy_vector, 2, cls=FaultyEnv, fault="raise_at_reset"))
    words = r"toy_envs.py:\d+: RuntimeError: the road file is missing \(in reset, "
    with pytest.raises(WorkerCrashLoop, match=words) as caught:
        service.run(1000)
    assert "\n" not in str(caught.value)
    assert children() == []


def test_a_crash_loop_backs_off_and_stops_after_the_limit_with_the_state_kept():
    service = make_service(
        functools.partial(toy_vector, 2, cls=FaultyEnv, fault="raise", at=30, length=40), max_restarts=2
    )
    with pytest.raises(WorkerCrashLoop, match=r"failed 3 times .*wheel fell off \(in step, "):
        service.run(10**9)
    assert service.transitions > 0
    assert service.state().counters["transitions"] == service.transitions == service.consumer.buffer.total_inserted


def test_values_that_are_not_finite_never_reach_the_agent():
    # The toy agent asserts that all it is given is finite.
    service = make_service(functools.partial(toy_vector, 2, cls=FaultyEnv, fault="nan", at=3, every=3))
    assert service.run(1500)
    assert service.metrics()["training/nonfinite_transitions"] > 50
    assert service.metrics()["training/worker_failures"] == 0
    state = service.state().replay
    assert all(np.isfinite(value).all() for value in state.values() if value.dtype == np.float32)


def test_nothing_but_values_that_are_not_finite_stops_the_run():
    factory = functools.partial(toy_vector, 2, cls=FaultyEnv, fault="nan", at=1)
    with pytest.raises(NonFiniteData, match="50 observations or rewards in a row"):
        make_service(factory, max_nonfinite_transitions=50).run(1000)
    assert children() == []


def test_lock_step_with_a_killed_worker_gives_the_same_bits():
    results = []
    for at in (None, 150):
        factory = functools.partial(toy_vector, 2, vector=StatefulVectorEnv, step_seconds=0.001)
        service = make_service(factory, deterministic=True)
        killed, kill = kill_at(at or 10**9)
        assert service.run(300, periodic=[kill])
        assert bool(killed) == (at is not None)
        assert service.metrics()["training/worker_failures"] == len(killed)
        results.append((service.agent.digest.tolist(), service.consumer.buffer.state_arrays()["actions"].tobytes()))
    assert results[0] == results[1]


def test_a_slow_learner_blocks_the_workers_and_memory_stays_flat():
    process, readings = psutil.Process(), []
    agent = ToyAgent()
    plain = agent.update

    def slow(batch, utd_ratio):
        """Sleep for three seconds once, and look at the queue and the memory meanwhile."""
        if not readings:
            time.sleep(1.0)
            for _ in range(8):
                time.sleep(0.25)
                readings.append((int(service.pool.metrics()["queue_depth"]), process.memory_info().rss))
        else:
            done.set()
        return plain(batch, utd_ratio)

    agent.update, done = slow, Flag()
    service = make_service(agent=agent, consumer=make_consumer(), max_queue_size=8)
    service.run(10**9, stop_event=done)
    depths, memory = zip(*readings, strict=True)
    assert set(depths) == {QUICK["max_queue_size"]}
    assert max(memory) <= 1.05 * min(memory)


def test_stalled_workers_leave_the_ratio_and_do_not_make_the_learner_spin():
    service = make_service(
        functools.partial(toy_vector, 2, cls=ToyEnv, step_seconds=0.01), worker_steps_per_iteration=4
    )
    busy = []

    def measure(service):
        busy.append((time.process_time(), time.monotonic()))

    assert service.run(500, periodic=[Periodic(100, measure)])
    metrics = service.metrics()
    assert metrics["training/update_to_data"] == pytest.approx(metrics["training/update_to_data_target"], rel=0.1)
    processor, wall = (last - first for first, last in zip(busy[0], busy[-1], strict=True))
    assert processor < 0.5 * wall


@pytest.mark.slow
def test_a_hundred_crashes_leak_no_process_file_or_shared_memory():
    def resources():
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/dev/shm")), len(children())

    before, done, kills = resources(), Flag(400.0), []

    def kill(service):
        pids = [pid for pid in service.pool.worker_pids() if pid is not None]
        failures = service.pool.metrics()["worker_failures"]
        if len(kills) >= 100 and failures >= 100:
            done.set()
        elif len(kills) <= failures and pids:
            kills.append(pids[len(kills) % len(pids)])
            os.kill(kills[-1], signal.SIGKILL)

    # Killed workers are replaced at once and killed again, so failures must not be counted towards the limits.
    service = make_service(max_restarts=1000, max_start_failures=1000, restart_backoff=0.01, restart_backoff_max=0.01)
    service.run(10**9, periodic=[Periodic(16, kill)], stop_event=done)
    assert service.metrics()["training/worker_failures"] >= 100
    assert resources() == before
    assert service.learner.updates + service.consumer.updates_due() == (service.transitions - 64) // 32 * 2


def test_a_worker_that_sends_nonsense_is_replaced_and_the_run_goes_on():
    done = Flag()
    service = make_service()
    start = ProcessPool._on_batch

    def spoil(pool, slot, batch):
        if slot.index == 1 and not pool._supervision.counts["failures"]:
            raise BrokenFrame("nonsense")
        start(pool, slot, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessPool, "_on_batch", spoil)
        service.run(10**9, periodic=[until_restarted(service, done)], stop_event=done)
    assert service.metrics()["training/worker_failures"] == 1
    assert children() == []
