"""Nodes, actors and Ray's driver lost under a service, in mid-run; a node is a few processes here."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest
from cluster_kit import ACTORS_GONE_WITHIN, actors, drivers, ray_pool, wait_until
from service_kit import make_service
from test_service import lock_step
from toy_envs import StatefulVectorEnv, ToyEnv, toy_vector

from racer.distributed.cluster.connection import connect
from racer.distributed.cluster.driver_pool import driven
from racer.distributed.cluster.pool import ClusterTooSmall
from racer.distributed.config import BackendConfig
from racer.distributed.inline import InlinePool
from racer.distributed.service import Periodic

SLOW = functools.partial(toy_vector, 2, cls=ToyEnv, step_seconds=0.01)
# Tests share a machine with each other: what is slow there is not what is tested.
PATIENT = {"step_timeout": 60.0, "startup_timeout": 180.0, "max_restarts": 50, "max_start_failures": 10}


class Conductor:
    """Runs a service on a thread of its own, while the test does something to the cluster."""

    def __init__(self, service) -> None:
        self.service, self.stop = service, threading.Event()
        self.error: BaseException | None = None
        self.counts: list[int] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        noted = Periodic(16, lambda s: self.counts.append(s.transitions))
        try:
            self.service.run(10**9, periodic=[noted], stop_event=self.stop)
        except BaseException as error:  # noqa: BLE001 - the test's thread looks at it
            self.error = error

    def metric(self, name: str) -> float:
        pool = self.service.pool
        return -1.0 if pool is None else pool.metrics()[name]

    def at_work(self, count: int) -> None:
        """Wait until exactly so many workers are at work."""
        wait_until(lambda: self.error or self.metric("workers_alive") == count, 180, f"{count} workers at work")
        assert self.error is None

    def at_hand(self) -> list[int]:
        """Process ids of the workers that are in order."""
        pool = self.service.pool
        pids = zip(pool.worker_pids(), pool.slots, strict=True)
        return [pid for pid, slot in pids if pid is not None and slot.ready]

    def goes_on(self) -> None:
        """Assert that more comes in."""
        before = self.service.transitions
        wait_until(lambda: self.error or self.service.transitions > before + 200, 30, "more transitions")
        assert self.error is None

    def end(self) -> None:
        """Stop in order; nothing counted was lost or counted twice."""
        self.stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self.error is None
        learner = self.service.learner
        assert self.counts == sorted(self.counts)
        assert learner.consumer.limiter.transitions == learner.transitions
        # The stop may have come between a batch and the updates that it pays for.
        assert learner.updates + learner.consumer.updates_due() == (learner.transitions - 64) // 32 * 2
        rows = learner.consumer.buffer.state_arrays()["next_observations"]
        assert len(rows) == min(learner.transitions, learner.consumer.buffer.capacity)
        # Seed, episode, step and action: no transition is like another.
        assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_follow_the_nodes(nodes):
    """Two nodes, four workers; a node is lost and the run goes on with two; another joins and there are four again."""
    found = nodes(2, 2)
    with connect(found.address) as cluster:
        cluster.require(4, 1.0)
        run = Conductor(make_service(SLOW, pool=ray_pool(cluster, min_workers=2), num_workers=4, **PATIENT))
        try:
            run.at_work(4)
            run.goes_on()
            found.kill(found.added[0])
            wait_until(lambda: run.metric("workers_alive") <= 2, 60, "the loss is noticed")
            run.at_work(2)
            run.goes_on()
            assert run.metric("worker_failures") >= 2
            found.add(2)
            run.at_work(4)
            run.goes_on()
        finally:
            run.end()
        assert run.service.metrics()["training/worker_restarts"] >= 2
    wait_until(lambda: not actors(), ACTORS_GONE_WITHIN, "no actor left")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fewer_nodes_than_the_run_needs_end_it(nodes):
    found = nodes(1, 1)
    with connect(found.address) as cluster:
        service = make_service(
            SLOW, pool=ray_pool(cluster, min_workers=2), num_workers=2, **{**PATIENT, "startup_timeout": 60.0}
        )
        run = Conductor(service)
        run.at_work(2)
        found.kill(found.added[0])
        wait_until(lambda: run.error is not None, 180, "the run ends")
        assert isinstance(run.error, ClusterTooSmall)
        assert "1 workers of the 2" in str(run.error)
        assert "has 1 CPUs" in str(run.error)
        # What a checkpoint needs is there.
        assert service.state().counters["transitions"] == service.transitions > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_lock_step_does_not_depend_on_lost_nodes(nodes):
    """The rounds in which workers were lost are done again from the states after the rounds before."""
    found = nodes(2, 2)
    with connect(found.address) as cluster:
        killed = []

        def kill(service):
            if not killed:
                killed.append(found.kill(found.added[0]))

        service = make_service(
            functools.partial(toy_vector, 2, vector=StatefulVectorEnv),
            pool=ray_pool(cluster, worker_cpus=0.5), deterministic=True, seed=3, num_workers=4, **PATIENT,
        )  # fmt: skip
        service.run(1200, periodic=[Periodic(400, kill)])
        assert killed
        assert service.metrics()["training/worker_failures"] >= 1
    calm = lock_step(1200, pool=InlinePool, num_workers=4, **PATIENT)
    np.testing.assert_array_equal(service.agent.digest, calm.agent.digest)
    ours, theirs = service.state().replay, calm.state().replay
    assert all((ours[name] == theirs[name]).all() for name in {*ours, *theirs})


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_killed_actors(nodes):
    """By SIGKILL, at random times: each is replaced, nothing is counted that is not in the buffer, nothing is left."""
    found, generator = nodes(2), np.random.default_rng(7)
    with connect(found.address) as cluster:
        limits = {"max_restarts": 1000, "max_start_failures": 1000, "restart_backoff": 0.0}
        run = Conductor(make_service(SLOW, pool=ray_pool(cluster), num_workers=2, **{**PATIENT, **limits}))
        try:
            run.at_work(2)
            for killed in range(100):
                wait_until(lambda: run.error or run.metric("workers_alive") >= 1, 120, "a worker to kill")
                time.sleep(generator.uniform(0.0, 0.1))
                os.kill(generator.choice(run.at_hand()), signal.SIGKILL)
                wait_until(
                    lambda wanted=killed: run.error or run.metric("worker_failures") > wanted, 60, "the kill is noticed"
                )
                assert run.error is None
            run.at_work(2)
            run.goes_on()
        finally:
            run.end()
        assert run.service.metrics()["training/worker_restarts"] >= 100
    wait_until(lambda: not actors(), ACTORS_GONE_WITHIN, "no actor left")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stopped_actor_is_replaced(nodes):
    found = nodes(2)
    with connect(found.address) as cluster:
        run = Conductor(make_service(SLOW, pool=ray_pool(cluster), num_workers=2, **{**PATIENT, "step_timeout": 5.0}))
        try:
            run.at_work(2)
            assert {each.pid for each in actors()} == set(run.service.pool.worker_pids())
            os.kill(run.service.pool.worker_pids()[0], signal.SIGSTOP)
            wait_until(lambda: run.metric("worker_failures") >= 1, 60, "its silence is noticed")
            run.at_work(2)
        finally:
            run.end()
    wait_until(lambda: not actors(), ACTORS_GONE_WITHIN, "no actor left")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_driver_killed_again_and_again_loses_and_repeats_nothing():
    """With a cluster of our own, which ends and begins with its driver."""
    with driven(BackendConfig("ray"), 2) as make:
        run = Conductor(make_service(SLOW, pool=make, num_workers=2, **PATIENT))
        try:
            for _ in range(3):
                run.at_work(2)
                run.goes_on()
                assert all(psutil.pid_exists(pid) for pid in run.service.pool.worker_pids())
                drivers()[0].kill()
                wait_until(lambda: run.error or run.metric("workers_alive") == 0, 60, "the loss is noticed")
            run.at_work(2)
            run.goes_on()
        finally:
            run.end()
        assert run.service.metrics()["training/worker_restarts"] == 6
    wait_until(lambda: not actors() and not drivers(), ACTORS_GONE_WITHIN, "nothing left")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_lock_step_does_not_depend_on_lost_drivers():
    killed = []

    def kill(service):
        if len(killed) < 2:
            killed.append(drivers()[0].kill())

    with driven(BackendConfig("ray"), 2) as make:
        service = make_service(
            functools.partial(toy_vector, 2, vector=StatefulVectorEnv),
            pool=make, deterministic=True, seed=3, num_workers=2, **PATIENT,
        )  # fmt: skip
        service.run(1200, periodic=[Periodic(400, kill)])
    assert len(killed) == 2
    assert service.metrics()["training/worker_failures"] == 4
    calm = lock_step(1200, pool=InlinePool, **PATIENT)
    np.testing.assert_array_equal(service.agent.digest, calm.agent.digest)
    ours, theirs = service.state().replay, calm.state().replay
    assert all((ours[name] == theirs[name]).all() for name in {*ours, *theirs})
