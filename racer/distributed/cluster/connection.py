"""Joining a Ray cluster, or starting one on this machine: what is refused, and in which words.

Whoever reaches a Ray cluster runs code on it. So one that is started here listens on loopback and asks for a token, and
one that is reached over a network is joined only with Ray's token authentication.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from racer.core.errors import RacerError, UsageError, nearest, shown

__all__ = ["Cluster", "ClusterLost", "connect", "import_ray", "prepare", "reach"]

_CLIENT = "ray://"
_REACH = 5.0
_SETTINGS = 4
_RETRIES = 8
_STORE_BYTES = 256 << 20
_WATCH_INTERVAL = 1.0
_CONNECT = 2.0
_WORK = 30.0
_HEAD_LIMIT = 20.0
_OWN_LIMIT = 4.0
_CLIENT_ATTEMPTS = 3
_NOT_STARTED = "Initialization failure from server"
_TOKEN_SINCE = "2.52"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class ClusterLost(RacerError):
    """The cluster's head, or the node of this process, does not answer any more."""


@dataclasses.dataclass
class Place:
    """Something that answers as long as the cluster lives for us.

    Attributes:
        what: it is.
        host: where it listens.
        port: where it listens.
        limit: seconds without an answer after which it is lost; Ray ends this process some time after that.
        answered: when it answered last (s, monotonic clock).
    """

    what: str
    host: str
    port: int
    limit: float
    answered: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def lost(self) -> bool:
        """Whether it has not answered for too long."""
        return time.monotonic() - self.answered > self.limit

    def answers(self) -> bool:
        """Whether it answers now."""
        try:
            socket.create_connection((self.host, self.port), _CONNECT).close()
        except OSError:
            return False
        self.answered = time.monotonic()
        return True


class Cluster:
    """A cluster that this process is joined to.

    Args:
        ray: the module.
        address: as it was asked for, for messages.
        watched: what answers as long as the cluster lives for us: its head, and our own node.
        loopback: whether only this machine can reach it.
        joined: whether it was joined here, and is to be left at the end.
    """

    def __init__(
        self, ray: Any, address: str, watched: Sequence[Place], *, loopback: bool, joined: bool = True
    ) -> None:
        self.ray, self.address, self.loopback, self._joined = ray, address, loopback, joined
        self._watched = tuple(watched)
        self._closed = threading.Event()
        if watched:
            threading.Thread(target=self._watch, name="cluster-head", daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether head or own node have not answered for too long."""
        return any(place.lost for place in self._watched)

    def answers(self) -> bool:
        """Whether head and own node answer now.

        Where they do not, Ray's object store must not be touched: its client ends the whole process.
        """
        answers = [place.answers() for place in self._watched]
        return all(answers)

    def raise_if_lost(self) -> None:
        """Raise ClusterLost where head or own node have not answered for too long."""
        for place in self._watched:
            if place.lost:
                raise ClusterLost(
                    f"{place.what} of the Ray cluster at {self.address} has not answered for {place.limit:g} s; "
                    "go on with --resume on another cluster"
                )

    def cpus(self) -> tuple[float, float]:
        """Return how many CPUs the cluster has, and how many are free."""
        return self.ray.cluster_resources().get("CPU", 0.0), self.ray.available_resources().get("CPU", 0.0)

    def describe(self) -> str:
        """Say what the cluster has."""
        total, free = self.cpus()
        return f"the Ray cluster at {self.address} has {total:g} CPUs, {free:g} of them free"

    def require(self, workers: int, worker_cpus: float) -> None:
        """Raise UsageError where the cluster is too small for so many workers."""
        total, _ = self.cpus()
        if workers * worker_cpus > total:
            room = int(total / worker_cpus)
            ways = [f"--num_workers {room}"] if room else []
            ways += ["--min_workers with fewer"] if room else []
            ways += [f"--worker_cpus {total / workers:.2g}"] if total else []
            raise UsageError(
                f"{workers} workers of {worker_cpus:g} CPUs each need {workers * worker_cpus:g}, and the Ray cluster "
                f"at {self.address} has {total:g}; {', '.join(ways) or 'add machines'}"
            )

    def check_token(self, host: str, asked: bool) -> None:
        """Raise UsageError where a machine of a cluster on a network lets anybody in."""
        if not (asked or self.loopback):
            raise UsageError(
                f"machine {host} of the Ray cluster at {self.address} asks for no token, so whoever reaches it runs "
                "code there; start Ray on every machine with RAY_AUTH_MODE=token (docs/cluster.md)"
            )

    def close(self) -> None:
        """Leave the cluster; one of our own ends."""
        self._closed.set()
        if self._joined and not self.lost:
            self.ray.shutdown()

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_INTERVAL):
            self.answers()


def import_ray() -> ModuleType:
    """Import Ray.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(f"Ray is not installed ({error}): pip install -e '.[ray]'") from error


@contextlib.contextmanager
def connect(address: str = "local") -> Iterator[Cluster]:
    """Join a cluster for as long as the context is entered.

    Args:
        address: "local", "auto", "HOST:PORT" or "ray://HOST:PORT".

    Raises:
        UsageError: Ray is not installed, the address cannot be read or reached, the versions differ, or a cluster on a
            network takes no token.
    """
    address = _running() if address == "auto" else address
    found = reach(address)
    prepare(found)
    ray = import_ray()
    if found is not None and not _is_loopback(found[0]):
        _require_token(ray, address)
    cluster = _join(ray, address, found)
    try:
        if not cluster.loopback:
            # Its nodes may be on a network though we reach it behind loopback.
            _require_token(ray, address)
            _require_work(ray, address)
        yield cluster
    finally:
        cluster.close()


def reach(address: str) -> tuple[str, int] | None:
    """Return host and port of an address, once something answers there; None for a cluster of our own.

    Raises:
        UsageError: it is no address, or nothing of Ray's kind answers there.
    """
    if address == "local":
        return None
    address = _running() if address == "auto" else address
    host, colon, port = address.removeprefix(_CLIENT).rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65_536):
        guess = nearest(address, ("auto", "local"))
        hint = f"did you mean {guess!r}?" if guess else "auto, local, HOST:PORT or ray://HOST:PORT"
        raise UsageError(f"--ray_address cannot be {shown(address)}; {hint}")
    try:
        with socket.create_connection((host, int(port)), _REACH) as sock:
            # Ray would try for minutes to talk to something that is no server of its kind.
            if os.environ.get("RAY_USE_TLS", "0") == "0" and not _speaks_http2(sock):
                raise UsageError(f"what answers at {address} is no Ray cluster")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"no Ray cluster answers at {address} within {_REACH:g} s: {reason}") from error
    return host, int(port)


def _speaks_http2(sock: socket.socket) -> bool:
    """Whether the other side begins as every gRPC server does, with a frame of its settings (RFC 9113, 3.4)."""
    sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0]))
    header = b""
    while len(header) < 9 and (part := sock.recv(9 - len(header))):
        header += part
    return len(header) == 9 and header[3] == _SETTINGS


def _running() -> str:
    """Return the address of the cluster that RAY_ADDRESS names, or that was last started on this machine."""
    note = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    noted = os.environ.get("RAY_ADDRESS") or (note.read_text(encoding="utf-8").strip() if note.is_file() else "")
    if noted:
        return noted
    raise UsageError(
        "--ray_address auto: no Ray cluster runs on this machine and RAY_ADDRESS is not set; "
        "ray start --head (docs/cluster.md), or --ray_address local"
    )


def _is_loopback(host: str) -> bool:
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(str(name).startswith(("127.", "::1")) for name in found)


def prepare(found: tuple[str, int] | None) -> None:
    """Set what Ray reads from the environment when it is imported; too late where somebody imported it before."""
    if "ray" in sys.modules:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", str(_RETRIES))
    # Of what is started here; else workers give way to everything on their machine, the learner included.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if found is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    elif "RAY_AUTH_MODE" not in os.environ and _has_token():
        os.environ["RAY_AUTH_MODE"] = "token"
    if found is None or _is_loopback(found[0]):
        # Ray's word for "one machine": else it puts the machine's address on the network in place of 127.0.0.1.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def _require_token(ray: Any, address: str) -> None:
    risk = f"the Ray cluster at {address} is on a network, where whoever reaches it runs code"
    if not hasattr(ray.exceptions, "AuthenticationError"):
        raise UsageError(f"{risk}; Ray {ray.__version__} knows no token, Ray {_TOKEN_SINCE} does")
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        raise UsageError(f"{risk}; set RAY_AUTH_MODE=token and a token on every machine (docs/cluster.md)")


def _require_work(ray: Any, address: str) -> None:
    """Have nothing done: a process that asks for a token is not answered by machines that have none."""
    try:
        ray.get(ray.remote(num_cpus=0, max_retries=0)(_nothing).remote(), timeout=_WORK)
    except ray.exceptions.RayError as error:
        raise UsageError(
            f"the Ray cluster at {address} runs nothing for us within {_WORK:g} s ({type(error).__name__}); if it asks "
            "for no token, start Ray on every machine with RAY_AUTH_MODE=token (docs/cluster.md)"
        ) from error


def _nothing() -> None:
    """Be done."""


def _join(ray: Any, address: str, found: tuple[str, int] | None) -> Cluster:
    if ray.is_initialized():
        # A program that has joined a cluster itself uses that one.
        return Cluster(ray, address, (), loopback=_only_here(ray), joined=False)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if found is None:
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    elif address.startswith(_CLIENT):
        options["address"] = address
    else:
        options["address"] = f"{found[0]}:{found[1]}"
    with _own_signals(), _captured_errors() as said:
        for attempt in range(_CLIENT_ATTEMPTS):
            try:
                ray.init(**options)
                break
            except Exception as error:
                # The client server forks a process for each client while its other threads are in gRPC, whose fork
                # handlers now and then end that process (docs/cluster.md).
                if _NOT_STARTED not in str(error) or attempt == _CLIENT_ATTEMPTS - 1:
                    raise UsageError(_refusal(address, error, said())) from error
    return Cluster(ray, address, _places(ray, address, found), loopback=_only_here(ray))


def _only_here(ray: Any) -> bool:
    """Whether every node of the cluster listens on loopback."""
    return all(_is_loopback(node["NodeManagerAddress"]) for node in ray.nodes())


def _places(ray: Any, address: str, found: tuple[str, int] | None) -> list[Place]:
    """Return where head and own node answer; a client of a cluster has no node of its own."""
    if found is not None and address.startswith(_CLIENT):
        return [Place("the client server", *found, _HEAD_LIMIT)]
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    own = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]
    nodes = [Place("our node", node["NodeManagerAddress"], node["NodeManagerPort"], _OWN_LIMIT) for node in own]
    return [Place("the head", host, int(port), _HEAD_LIMIT), *nodes]


def _refusal(address: str, error: Exception, said: str) -> str:
    """Say in one line why a cluster was not joined."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    text = " ".join(" ".join(str(each) for each in chain).split()) + said
    if "Version mismatch" in text:
        return f"the Ray cluster at {address} runs other versions: {text[text.find('The cluster was') :][:300]}"
    if "InvalidAuthToken" in text or "Unauthenticated" in text:
        return f"the Ray cluster at {address} takes another token than ours (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH)"
    if _NOT_STARTED in text:
        return (
            f"the client server at {address} cannot start a process for us; set GRPC_ENABLE_FORK_SUPPORT=0 before "
            "ray start on the head, or run the learner on a node with --ray_address HOST:PORT"
        )
    return f"the Ray cluster at {address} cannot be joined: {type(error).__name__}: {str(error).splitlines()[0][:300]}"


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's signal handlers: Ray puts its own in place of some."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _captured_errors() -> Iterator[Any]:
    """Keep from standard error what Ray's own library writes there while it tries to connect; yields a reader of it."""
    with tempfile.TemporaryFile() as captured:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(captured.fileno(), 2)

        def read() -> str:
            captured.seek(0)
            return captured.read().decode(errors="replace")

        try:
            yield read
        finally:
            os.dup2(kept, 2)
            os.close(kept)
