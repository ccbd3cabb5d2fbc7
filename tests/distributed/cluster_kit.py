"""Ray clusters for the tests: a few small nodes as processes on loopback, ended with the test that began them."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from racer.distributed.cluster.connection import Cluster, prepare
from racer.distributed.cluster.pool import RayPool
from racer.distributed.config import BackendConfig
from racer.distributed.pool import PoolFactory

prepare(None)
pytest.importorskip("ray", reason="LOUD: Ray is not installed: pip install -e '.[ray]'")

from ray import cluster_utils  # noqa: E402 - only once the environment is prepared

STORE = {"object_store_memory": 100 << 20}
MARK = "RACER_TEST_NODES"
ACTORS_GONE_WITHIN = 5.0
# Whatever this process starts has it, and so have the actors of its clusters, also once their raylet is dead.
os.environ[MARK] = secrets.token_hex(8)


class Nodes:
    """A cluster of nodes with so many CPUs each; the first is its head, which the driver of a test joins.

    Args:
        cpus: of each node.
        head: further settings of the head.
    """

    def __init__(self, *cpus: int, **head: Any) -> None:
        head = {"num_cpus": cpus[0], "include_dashboard": False, **STORE, **head}
        self.cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        self.added = [self.add(count) for count in cpus[1:]]

    @property
    def address(self) -> str:
        return self.cluster.address

    def add(self, cpus: int) -> Any:
        """Let a node join."""
        return self.cluster.add_node(num_cpus=cpus, **STORE)

    def kill(self, node: Any) -> None:
        """Take a node away, all of its processes at once."""
        self.cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        """Kill every process of the head."""
        self.cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)

    def close(self) -> None:
        """End everything."""
        self.cluster.shutdown()


def actors() -> list[psutil.Process]:
    """Every worker of ours in a Ray cluster that this process, or a program that it started, began."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0].startswith("ray::ClusterWorker"):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.environ().get(MARK) == os.environ[MARK]:
                    found.append(process)
    return found


def ray_pool(cluster: Cluster, **changes: Any) -> PoolFactory:
    """What builds pools in a cluster."""
    return functools.partial(RayPool, cluster=cluster, backend=BackendConfig("ray", **changes))


def drivers() -> list[psutil.Process]:
    """Every process of this one's children that is Ray's driver for us."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "racer.distributed.cluster.driver" in " ".join(process.cmdline()):
                found.append(process)
    return found


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
