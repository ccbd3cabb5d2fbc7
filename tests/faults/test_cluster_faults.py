"""Faults of a Ray cluster: nodes, actors, the head and the learner lost in mid-run; a node is a few processes here."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from cluster_kit import Nodes, actors, drivers, ray_pool, wait_until
from service_kit import make_service
from test_service import lock_step
from toy_envs import StatefulVectorEnv, ToyEnv, toy_vector

from racer.core.checkpoint import latest_valid_checkpoint, read_checkpoint
from racer.core.errors import UsageError
from racer.distributed.cluster.connection import connect
from racer.distributed.cluster.driver_pool import driven
from racer.distributed.cluster.pool import ClusterTooSmall
from racer.distributed.config import BackendConfig
from racer.distributed.inline import InlinePool
from racer.distributed.service import Periodic

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from test_training_programs import DISTRIBUTED, ROOT, TINY_DISTRIBUTED, environment

ACTORS_GONE_WITHIN = 5.0
SLOW = functools.partial(toy_vector, 2, cls=ToyEnv, step_seconds=0.01)
# Tests share a machine with each other: what is slow there is not what is tested.
PATIENT = {"step_timeout": 60.0, "startup_timeout": 180.0, "max_restarts": 50, "max_start_failures": 10}


@pytest.fixture
def nodes():
    """Begins clusters; they end with the test."""
    with contextlib.ExitStack() as held:

        def begin(*cpus: int, **head: object) -> Nodes:
            found = Nodes(*cpus, **head)
            held.callback(found.close)
            return found

        yield begin


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


def command(folder: Path, *flags: str) -> list[str]:
    """The real program on a cluster."""
    return [
        sys.executable, f"scripts/sim/{DISTRIBUTED}", *TINY_DISTRIBUTED, "--backend", "ray", "--progress=false",
        "--step_timeout", "60", "--policy_dir", str(folder), "--run_name", "run", *flags,
    ]  # fmt: skip


def begin(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def saved_step(folder: Path) -> int:
    """The newest checkpoint's step; what it counts is what its replay holds."""
    checkpoint = read_checkpoint(latest_valid_checkpoint(folder / "run"))
    transitions = int(checkpoint.metadata["loop"]["transitions"])
    assert int(checkpoint.groups["replay"]["counts"][0]) == transitions
    return transitions


def resumed(folder: Path, address: str, steps: int, *flags: str) -> None:
    """Go on until the run has so many steps."""
    words = [sys.executable, f"scripts/sim/{DISTRIBUTED}", "--resume", str(folder / "run"), "--progress=false"]
    words += ["--ray_address", address, "--max_steps", str(steps), *flags]
    result = subprocess.run(
        words, cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr
    assert saved_step(folder) >= steps


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_learner_that_is_ended_leaves_no_actor_and_goes_on_from_its_checkpoint(tmp_path, nodes, number, code):
    """Also with another number of workers, as on a smaller cluster."""
    found = nodes(2)
    program = begin(
        command(tmp_path, "--ray_address", found.address, "--max_steps", "1000000", "--save_interval", "500")
    )
    try:
        wait_until(
            lambda: program.poll() is not None or len(list(tmp_path.glob("run/checkpoint_*"))) >= 2, 200, "checkpoints"
        )
        assert program.poll() is None, program.communicate()[1]
        assert len(actors()) == 2
        program.send_signal(number)
        _, errors = program.communicate(timeout=60)
    finally:
        program.kill()
    assert program.returncode == code, errors
    wait_until(lambda: not actors(), ACTORS_GONE_WITHIN, "no actor left")
    assert "Traceback" not in errors
    resumed(tmp_path, found.address, saved_step(tmp_path) + 300, "--num_workers", "1")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_time_limit_that_ends_every_process_leaves_a_checkpoint(tmp_path, nodes):
    """SLURM sends SIGTERM to all of a step: to the learner, to Ray's driver, to the workers and to Ray itself."""
    found = nodes(2)
    program = begin(
        command(tmp_path, "--ray_address", found.address, "--max_steps", "1000000", "--save_interval", "100000")
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    try:
        wait_until(
            lambda: program.poll() is not None or (metrics.exists() and len(metrics.read_text().splitlines()) >= 4),
            200, "lines",
        )  # fmt: skip
        assert program.poll() is None, program.communicate()[1]
        assert not list(tmp_path.glob("run/checkpoint_*"))
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, errors = program.communicate(timeout=120)
    finally:
        program.kill()
    assert program.returncode == 143, errors
    assert "Traceback" not in errors
    wait_until(lambda: not actors(), ACTORS_GONE_WITHIN, "no actor left")
    assert saved_step(tmp_path) > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lost", ["the head", "our node"])
def test_a_lost_head_or_node_ends_the_run_in_order_and_it_goes_on_on_another_cluster(tmp_path, nodes, lost):
    first = nodes(2)
    flags = ["--max_steps", "1000000", "--save_interval", "500", "--startup_timeout", "90"]
    program = begin(command(tmp_path, "--ray_address", first.address, *flags))
    try:
        wait_until(
            lambda: program.poll() is not None or len(list(tmp_path.glob("run/checkpoint_*"))) >= 1, 200, "a checkpoint"
        )
        assert program.poll() is None, program.communicate()[1]
        if lost == "the head":
            first.kill_head()
        else:
            first.cluster.head_node.kill_raylet()
        before = saved_step(tmp_path)
        _, errors = program.communicate(timeout=240)
    finally:
        program.kill()
    assert program.returncode == 1, errors
    assert "Traceback" not in errors
    assert re.search(r"^error: .* and for 90 s \(startup_timeout\) .*; go on with --resume", errors, re.MULTILINE)
    wait_until(lambda: not actors(), ACTORS_GONE_WITHIN, "no actor left")
    assert saved_step(tmp_path) >= before
    second = nodes(1)
    resumed(tmp_path, second.address, saved_step(tmp_path) + 300, "--num_workers", "1")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_head_that_is_lost_in_the_middle_of_a_publication_and_comes_back(tmp_path, nodes):
    """Ray ends the process of its driver then. The learner has another one: the run goes on by itself."""
    first = nodes(2)
    port = int(first.address.rpartition(":")[2])
    flags = ["--max_steps", "1000000", "--save_interval", "300", "--policy_update_frequency", "1000"]
    program = begin(command(tmp_path, "--ray_address", first.address, *flags))
    try:
        for _ in range(2):
            have = len(list(tmp_path.glob("run/checkpoint_*"))) and saved_step(tmp_path)
            wait_until(
                lambda have=have: program.poll() is not None
                or (list(tmp_path.glob("run/checkpoint_*")) and saved_step(tmp_path) > have),
                200, "a checkpoint",
            )  # fmt: skip
            assert program.poll() is None, program.communicate()[1]
            first.kill_head()
            first.close()
            first = nodes(2, gcs_server_port=port)
        have = saved_step(tmp_path)
        wait_until(lambda: program.poll() is not None or saved_step(tmp_path) > have + 300, 200, "more checkpoints")
        program.send_signal(signal.SIGTERM)
        _, errors = program.communicate(timeout=60)
    finally:
        program.kill()
    assert program.returncode == 143, errors
    assert "Traceback" not in errors
    assert errors.count("going on once a Ray cluster answers") == 2
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_through_the_client_server(tmp_path, nodes, monkeypatch):
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    nodes(2, ray_client_server_port=port)
    program = begin(command(tmp_path, "--ray_address", f"ray://127.0.0.1:{port}", "--max_steps", "600"))
    try:
        _, errors = program.communicate(timeout=300)
    finally:
        program.kill()
    assert program.returncode == 0, errors
    assert saved_step(tmp_path) >= 600
    wait_until(lambda: not actors(), ACTORS_GONE_WITHIN, "no actor left")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n"], ids=["silent", "web server"])
def test_a_port_that_somebody_else_has_is_named_within_seconds(answer):
    with socket.create_server(("127.0.0.1", 0)) as other:

        def serve() -> None:
            with contextlib.suppress(OSError):
                held.append(other.accept()[0])
                held[0].sendall(answer)

        held: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(UsageError, match=f"at {address}"), connect(address):
            pass
        assert time.monotonic() - began < 10
        held[0].close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_other_versions_and_another_token_are_named(nodes, tmp_path):
    """Through a program of its own: a process reads the token once."""
    found = nodes(1)
    text = (
        "import sys; from racer.distributed.cluster.connection import connect\n"
        "import ray; ray.__version__ = sys.argv[2] or ray.__version__\n"
        "try:\n    connect(sys.argv[1]).__enter__()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    for version, token, words in (
        ("2.0.0", None, "runs other versions.*2\\.0\\.0"),
        ("", "0" * 64, "takes another token"),
    ):
        variables = {**environment(), **({"RAY_AUTH_TOKEN": token} if token else {}), "RAY_NUM_REDIS_GET_RETRIES": "3"}
        said = subprocess.run(
            [sys.executable, "-c", text, found.address, version], env=variables, text=True, capture_output=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert re.match(f"UsageError the Ray cluster at {found.address} {words}", said.stdout), said
