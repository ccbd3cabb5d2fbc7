"""Joining a Ray cluster: what is refused and in which words, and who may reach what."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
from cluster_kit import Nodes

from racer.core.errors import UsageError
from racer.distributed.cluster import connection
from racer.distributed.cluster.connection import Cluster, connect
from racer.distributed.config import BackendConfig


@pytest.fixture(scope="module")
def cluster():
    with connect("local") as joined:
        yield joined


def test_everything_of_a_cluster_of_our_own_listens_on_loopback(cluster):
    """Raylet, its agents, the head's server and this process; and there is no dashboard."""
    listening = set()
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        # Ray starts and ends idle workers as it likes.
        with contextlib.suppress(psutil.NoSuchProcess):
            sockets = [found for found in process.net_connections("inet") if found.status == psutil.CONN_LISTEN]
            listening |= {(process.name(), found.laddr.ip, found.laddr.port) for found in sockets}
    assert {"raylet", "gcs_server"} <= {name for name, _, _ in listening}
    assert {ip.removeprefix("::ffff:") for _, ip, _ in listening} == {"127.0.0.1"}
    assert 8265 not in {port for _, _, port in listening}


def test_more_cpus_than_the_cluster_has(cluster):
    total = os.cpu_count()
    with pytest.raises(UsageError, match=rf"cluster at local has {total}; --num_workers {total}, "):
        cluster.require(1000, 1.0)
    cluster.require(1000, total / 1000)


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[ray\]'"), connect("local"):
        pass


def test_an_unknown_backend_names_the_nearest():
    with pytest.raises(UsageError, match="'ray'"):
        BackendConfig("rey")


@pytest.mark.parametrize(
    ("address", "words"),
    [("lokal", "'local'"), ("auot", "'auto'"), ("ray://somewhere", "HOST:PORT"), ("host:port", "HOST:PORT")],
)
def test_an_address_that_is_none(address, words):
    with pytest.raises(UsageError, match=words), connect(address):
        pass


def test_an_address_where_nothing_answers():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    for form in (address, f"ray://{address}"):
        with pytest.raises(UsageError, match=f"no Ray cluster answers at {form}.*refused"), connect(form):
            pass


def test_a_cluster_on_a_network_is_refused_without_a_token(cluster, monkeypatch):
    address = cluster.ray.get_runtime_context().gcs_address
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(connection, "_is_loopback", lambda host: False)
    with pytest.raises(UsageError, match="whoever reaches it runs code; set RAY_AUTH_MODE=token"), connect(address):
        pass


def test_nodes_on_a_network_are_not_joined_through_loopback_without_a_token(cluster, monkeypatch):
    port = cluster.ray.get_runtime_context().gcs_address.rpartition(":")[2]
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(connection, "_is_loopback", lambda host: host == "localhost")
    with pytest.raises(UsageError, match="whoever reaches it runs code"), connect(f"localhost:{port}"):
        pass
    assert cluster.ray.is_initialized()


def test_a_machine_that_asks_for_no_token_is_refused_on_a_network(cluster):
    on_network = Cluster(cluster.ray, "10.0.0.1:6379", (), loopback=False)
    on_network.check_token("node", True)
    with pytest.raises(UsageError, match=r"machine node .* asks for no token"):
        on_network.check_token("node", False)
    cluster.check_token("node", False)


def test_a_cluster_that_runs_nothing_for_us_is_refused(cluster, monkeypatch):
    """So does one without a token to a process that asks for one; here the machine is too busy to begin."""
    connection._require_work(cluster.ray, "somewhere")
    monkeypatch.setattr(connection, "_WORK", 0.5)
    monkeypatch.setattr(connection, "_nothing", lambda: time.sleep(5.0))
    with pytest.raises(UsageError, match=r"somewhere runs nothing for us within 0\.5 s .*RAY_AUTH_MODE=token"):
        connection._require_work(cluster.ray, "somewhere")


def test_a_ray_that_knows_no_token_is_refused_on_a_network():
    old = SimpleNamespace(exceptions=SimpleNamespace(), __version__="2.40.0")
    with pytest.raises(UsageError, match=r"Ray 2\.40\.0 knows no token"):
        connection._require_token(old, "10.0.0.1:6379")


def test_an_address_that_takes_no_connection_is_given_up_within_seconds():
    """A backlog that is full: the system lets the request unanswered, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as held:
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        address = f"127.0.0.1:{full.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(UsageError, match=f"no Ray cluster answers at {address} within 5 s: timed out"), connect(
            address
        ):
            pass
        assert time.monotonic() - began < 10


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
def test_other_versions_and_another_token_are_named():
    """Through a program of its own: a process reads the token once."""
    text = (
        "import sys; from racer.distributed.cluster.connection import connect\n"
        "import ray; ray.__version__ = sys.argv[2] or ray.__version__\n"
        "try:\n    connect(sys.argv[1]).__enter__()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    with contextlib.closing(Nodes(1)) as nodes:
        for version, token, words in (
            ("2.0.0", None, "runs other versions.*2\\.0\\.0"),
            ("", "0" * 64, "takes another token"),
        ):
            variables = {**os.environ, **({"RAY_AUTH_TOKEN": token} if token else {}), "RAY_NUM_REDIS_GET_RETRIES": "3"}
            said = subprocess.run(
                [sys.executable, "-c", text, nodes.address, version], env=variables, text=True, capture_output=True,
                timeout=120, check=False,
            )  # fmt: skip
            assert re.match(f"UsageError the Ray cluster at {nodes.address} {words}", said.stdout), said
