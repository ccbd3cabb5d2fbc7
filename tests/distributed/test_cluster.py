"""Workers on a Ray cluster: the bits of the other pools, counts, and what ends a run."""

from __future__ import annotations

import functools
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from cluster_kit import actors, drivers, ray_pool, wait_until
from service_kit import make_service
from test_service import assert_same, lock_step, rollouts
from toy_agent import RolloutAgent, ToyAgent
from toy_envs import FaultyEnv, NoJaxEnv, slow_to_build, toy_vector

from racer.core.errors import UsageError
from racer.distributed.cluster import connection
from racer.distributed.cluster.connection import Cluster, ClusterLost, Place, connect
from racer.distributed.cluster.driver_pool import driven
from racer.distributed.config import BackendConfig
from racer.distributed.consumers import OnPolicyConsumer
from racer.distributed.processes.supervisor import ProcessPool
from racer.distributed.service import Periodic
from racer.distributed.supervision import WorkerCrashLoop

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from runs import contents, differing, make_setup, make_spec, train


@pytest.fixture(scope="module")
def cluster():
    with connect("local") as joined:
        yield joined


@pytest.mark.parametrize("run", [functools.partial(lock_step, 600), rollouts], ids=["off-policy", "on-policy"])
def test_lock_step_gives_the_bits_of_worker_processes(cluster, run):
    """And so a run begun with the one backend may go on with the other."""
    on_ray = run(pool=ray_pool(cluster))
    assert on_ray.learner.updates > 10
    assert_same(on_ray, run(pool=ProcessPool))


def test_lock_step_through_a_driver_process_gives_the_same_bits():
    with driven(BackendConfig("ray"), 2) as make:
        on_ray = lock_step(600, pool=make)
    assert on_ray.learner.updates > 10
    assert_same(on_ray, lock_step(600, pool=ProcessPool))
    assert not drivers()


def test_what_a_driver_finds_is_raised_here():
    with pytest.raises(UsageError, match="1000 workers of 1 CPUs each"), driven(BackendConfig("ray"), 1000):
        pass
    assert not drivers()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("SACLearner", {}),
        ("PPOLearner", {}),
        ("PPOLearner", {"memory": {"kind": "gru", "size": 8}}),
    ],
    ids=["off-policy", "on-policy", "remembering"],
)
def test_agents_learn_the_same_on_both_backends_and_go_on_with_the_other(tmp_path, cluster, model, changes):
    spec = make_spec(model, **changes)
    half, whole = (make_setup(spec, workers=2, inline=False, max_steps=steps) for steps in (80, 160))
    train(spec, whole, tmp_path / "local")
    train(spec, half, tmp_path / "ray", pool=ray_pool(cluster))
    done = train(spec, whole, tmp_path / "ray", pool=ray_pool(cluster))
    assert differing(contents(tmp_path / "local", done.step), contents(tmp_path / "ray", done.step)) == []


def test_a_run_counts_exactly_and_leaves_no_actor_behind(cluster):
    logs = []

    def all_at_work(service):
        wait_until(lambda: service.pool.metrics()["workers_alive"] == 2, 60, "two workers at work")

    service = make_service(
        functools.partial(toy_vector, 2, cls=NoJaxEnv), pool=ray_pool(cluster), policy_update_frequency=50.0
    )
    duties = [Periodic(500, lambda s: logs.append(s.metrics())), Periodic(16, all_at_work)]
    assert service.run(2000, periodic=duties)
    wait_until(lambda: not actors(), 5, "no actor left")
    learner = service.learner
    assert learner.transitions == len(service.consumer.buffer)
    assert learner.updates == (learner.transitions - 64) // 32 * 2
    last = logs[-1]
    assert last["training/workers_alive"] == 2
    assert last["training/policy_version"] > 1
    for name in ("worker_restarts", "worker_failures", "dropped_batches", "nonfinite_transitions"):
        assert last[f"training/{name}"] == 0
    versions = service.consumer.buffer.state_arrays()["policy_versions"]
    assert (versions[:48] == 0).all()
    assert versions.max() > 1


def test_a_slow_learner_blocks_the_workers_at_their_credit(cluster):
    """Nothing is collected beyond what may be under way."""
    agent, depths = ToyAgent(update_seconds=0.3), []
    service = make_service(agent=agent, pool=ray_pool(cluster), max_queue_size=6)
    service.run(160, periodic=[Periodic(16, lambda s: depths.append(s.metrics()["training/queue_depth"]))])
    time.sleep(0.5)
    assert max(depths) <= 6
    assert depths[-1] >= 4, "the workers did not fill the queue"


@pytest.mark.parametrize("max_lag", [0, 1])
def test_free_running_on_policy_drops_what_is_stale(cluster, max_lag):
    lags = []

    class Noting(OnPolicyConsumer):
        def accept(self, batch, current_version):
            count = super().accept(batch, current_version)
            if count:
                lags.append(current_version - batch.policy_version)
            return count

    consumer = Noting(rollouts_per_update=2, max_policy_lag=max_lag)
    agent = RolloutAgent(lambda rollouts: time.sleep(0.02))
    service = make_service(agent=agent, consumer=consumer, pool=ray_pool(cluster), max_queue_size=2)
    assert service.run(400)
    assert max(lags) <= max_lag
    assert len(lags) >= 400 / 16 - 2
    if max_lag == 0:
        assert service.metrics()["training/stale_batches"] > 0


def test_a_step_that_raises_ends_the_run_after_its_restarts_with_the_root_cause(cluster):
    factory = functools.partial(toy_vector, 2, cls=FaultyEnv, fault="raise", at=1)
    service = make_service(factory, pool=ray_pool(cluster), max_restarts=1, num_workers=1)
    with pytest.raises(WorkerCrashLoop, match=r"failed 2 times .*wheel fell off \(in step, "):
        service.run(10**6)


def test_a_hanging_step_is_ended_at_the_step_timeout(cluster):
    factory = functools.partial(toy_vector, 1, cls=FaultyEnv, fault="hang", at=3, every=20)
    service = make_service(factory, pool=ray_pool(cluster), num_workers=1, step_timeout=1.0)
    stop = threading.Event()

    def restarted(service):
        if service.metrics()["training/worker_restarts"] >= 1:
            stop.set()

    service.run(10**6, periodic=[Periodic(8, restarted)], stop_event=stop)
    assert service.metrics()["training/worker_failures"] >= 1
    assert service.learner.transitions == len(service.consumer.buffer)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_start_that_is_slow_for_want_of_a_core_is_waited_for_and_one_that_hangs_is_not(cluster):
    limits = {"startup_timeout": 30.0, "max_start_failures": 1}
    slow = make_service(functools.partial(slow_to_build, 40.0, 0.1), pool=ray_pool(cluster), **limits)
    assert slow.run(200)
    assert slow.metrics()["training/worker_failures"] == 0
    hangs = make_service(functools.partial(slow_to_build, 1000.0, 0.0), pool=ray_pool(cluster), **limits)
    with pytest.raises(WorkerCrashLoop, match=r"no sign of life for 30 s at its start \(startup_timeout\)$"):
        hangs.run(200)


def test_a_wrong_environment_setting_is_reported_as_the_callers(cluster):
    def wrong():
        raise UsageError("unknown environment config key 'lane_cuont'; did you mean 'lanes_count'?")

    with pytest.raises(UsageError, match=r"^unknown environment config key 'lane_cuont'; did you mean"):
        make_service(wrong, pool=ray_pool(cluster)).run(100)


def test_a_cluster_that_never_had_room_ends_the_run_and_says_what_there_is(cluster):
    service = make_service(pool=ray_pool(cluster, worker_cpus=500.0), startup_timeout=2.0)
    with pytest.raises(Exception, match=r"0 workers of the 1 .* has \d+ CPUs, \d+ of them free"):
        service.run(100)


def test_a_head_that_does_not_answer_any_more_ends_the_run(cluster, monkeypatch):
    monkeypatch.setattr(connection, "_WATCH_INTERVAL", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = Place("the head", *server.getsockname(), 0.5)
        joined = Cluster(cluster.ray, "somewhere", [place], loopback=True, joined=False)
        time.sleep(0.8)
        joined.raise_if_lost()
    wait_until(lambda: joined.lost, 5, "the loss is noticed")
    assert not joined.answers()
    with pytest.raises(ClusterLost, match=r"the head of the Ray cluster at somewhere has not answered for 0\.5 s"):
        joined.raise_if_lost()
    joined.close()
    assert cluster.ray.is_initialized()
