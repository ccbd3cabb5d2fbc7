"""The environment worker: one process, one thread, several environments, no JAX.

It is started with the interpreter itself rather than with :mod:`multiprocessing`: a fresh process inherits no lock
and no thread of the learner (forking after JAX is loaded deadlocks), does not import the learner's main script
(which loads JAX), leaves no tracker process behind, and has its thread limits in the environment before NumPy is
loaded.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import cloudpickle
import numpy as np
from gymnasium.vector import VectorEnv

from racer.agents.policy import Policy, build_policy, bytes_to_params
from racer.agents.policy.noise import exploration_generator
from racer.core.errors import UsageError
from racer.distributed.channels import Parameters, StopRequested, WorkerBatch
from racer.distributed.links import WorkerLink
from racer.replay.collector import Collector, NonFiniteData
from racer.replay.exploration import exploration_state, restore_exploration

__all__ = ["EnvironmentWorker", "WorkerStart", "main", "worker_streams"]

_START_TIMEOUT = 60.0
_PARENT_GRACE = 2.0


@dataclass(frozen=True)
class WorkerStart:
    """All that a worker is told when it starts.

    Attributes:
        env_factory: builds the worker's vector environment.
        policy_spec: what :func:`racer.agents.policy.build_policy` takes.
        warmup_policy_spec: the same, for the policy that acts while there are no parameters; None for actions drawn
            uniformly from the whole action space.
        worker: index of the worker.
        incarnation: how often this worker had been started before.
        stream: names its random streams, see :func:`worker_streams`.
        epoch: of the service.
        seed: of the service.
        steps: steps of each environment in a batch.
        credit_limit: batches it may have under way.
        outstanding: batches of its predecessor that still wait at the learner.
        lock_step: collect exactly one batch for each round of parameters.
        rounds_done: last round that was delivered by this worker or its predecessors.
        state: of the predecessor after that round (collector and random stream), or empty to begin anew.
        heartbeat_interval: seconds between signs of life.
        max_nonfinite: see :class:`racer.replay.collector.Collector`.
    """

    env_factory: Callable[[], VectorEnv]
    policy_spec: Mapping[str, Any]
    worker: int
    incarnation: int
    stream: int
    epoch: int
    seed: int
    steps: int
    credit_limit: int
    outstanding: int = 0
    lock_step: bool = False
    rounds_done: int = 0
    state: Mapping[str, np.ndarray] = field(default_factory=dict)
    heartbeat_interval: float = 0.5
    max_nonfinite: int = 1000
    warmup_policy_spec: Mapping[str, Any] | None = None


class Link(Protocol):
    """What a worker needs of its connection to the learner."""

    def put(self, batch: WorkerBatch) -> None: ...

    def latest(self) -> Parameters | None: ...

    def ready(self) -> None: ...

    def beat(self) -> None: ...

    def wait(self, timeout: float) -> None: ...


def worker_streams(seed: int, worker: int, stream: int) -> tuple[int, np.random.Generator]:
    """Return the environments' seed (31 bit) and the policy's random stream.

    They are functions of (seed, worker, stream). A worker's stream is its incarnation, so that a restarted worker
    does not repeat what its predecessor did. In lock step it is the number of rounds already delivered, so that the
    numbers depend on the rounds in which workers died and not on how often.
    """
    environment, policy = np.random.SeedSequence([seed, worker, stream]).spawn(2)
    return int(environment.generate_state(1)[0] >> 1), np.random.Generator(np.random.PCG64(policy))


class EnvironmentWorker:
    """Collects with the latest parameters and hands over what it collected, until it is asked to stop.

    Args:
        start: what to do.
        link: connection to the learner.
    """

    def __init__(self, start: WorkerStart, link: Link) -> None:
        self.start = start
        self.link = link
        env_seed, rng = worker_streams(start.seed, start.worker, start.stream)
        self._rng = exploration_generator(start.policy_spec, rng)
        self.collector = Collector(start.env_factory(), env_seed, max_nonfinite=start.max_nonfinite)
        space: Any = self.collector.env.single_action_space
        # Discrete actions have no range to draw from; on-policy agents, which have them, never act at random.
        warmup = start.warmup_policy_spec or start.policy_spec
        if not start.warmup_policy_spec and hasattr(space, "low"):
            warmup = {"kind": "uniform", "action_low": space.low.tolist(), "action_high": space.high.tolist()}
        self._warmup_policy = build_policy(warmup)
        self._policy = build_policy(start.policy_spec)
        self._params: dict[str, np.ndarray] = {}
        self._version = -1
        self._rounds_done = start.rounds_done
        self._steps_begun = 0
        self._ready = False
        if start.state:
            self._rng = restore_exploration(start.policy_spec, dict(start.state), "policy_")
            inner = {k.removeprefix("collector/"): v for k, v in start.state.items() if k.startswith("collector/")}
            self.collector.restore(inner)

    def run(self) -> None:
        """Work until the link raises StopRequested."""
        while True:
            parameters = self._next_parameters()
            policy = self._load(parameters)
            experience = self.collector.collect(self.start.steps, self._acting(policy), self._on_step)
            self._announce()
            self._rounds_done = parameters.round
            self.link.put(
                WorkerBatch(
                    experience,
                    self.start.worker,
                    self.start.incarnation,
                    self.start.epoch,
                    parameters.version,
                    parameters.round,
                    self._state(),
                )
            )

    def _next_parameters(self) -> Parameters:
        while True:
            parameters = self.link.latest()
            if parameters is not None and not (self.start.lock_step and parameters.round <= self._rounds_done):
                return parameters
            self.link.wait(self.start.heartbeat_interval)

    def _load(self, parameters: Parameters) -> Policy:
        if not parameters.data:
            return self._warmup_policy
        if parameters.version != self._version:
            self._params, self._version = bytes_to_params(parameters.data), parameters.version
        return self._policy

    def _acting(self, policy: Policy) -> Callable[[np.ndarray], tuple[np.ndarray, Mapping[str, np.ndarray]]]:
        params, rng = self._params, self._rng
        return lambda observations: policy.act_with_extras(params, observations, rng)

    def _on_step(self) -> None:
        # The first step may compile; only once it is done does the step timeout apply.
        if self._steps_begun == 1:
            self._announce()
        self._steps_begun += 1
        self.link.beat()

    def _announce(self) -> None:
        if not self._ready:
            self._ready = True
            self.link.ready()

    def _state(self) -> dict[str, np.ndarray]:
        if not (self.start.lock_step and self.collector.can_save_state):
            return {}
        state = {f"collector/{name}": value for name, value in self.collector.state().items()}
        return state | exploration_state(self._rng, "policy_")


def _end_with_the_learner(descriptor: int) -> None:
    """End this process soon after the learner's end of the socket closes, also in the middle of a step."""

    def watch() -> None:
        poller = select.poll()
        poller.register(descriptor, 0)
        while not poller.poll(60_000):
            pass
        time.sleep(_PARENT_GRACE)
        os._exit(0)

    threading.Thread(target=watch, name="end-with-learner", daemon=True).start()


def _category(error: Exception) -> str:
    if isinstance(error, UsageError):
        return "usage"
    return "nonfinite" if isinstance(error, NonFiniteData) else "error"


def main() -> None:
    """Entry point of the process; the only argument is the number of the inherited socket."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        # The learner decides when workers end; a signal to a whole process group must not look like a crash.
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    _end_with_the_learner(descriptor)
    link = WorkerLink(socket.socket(fileno=descriptor))
    code = 0
    worker: EnvironmentWorker | None = None
    try:
        start: WorkerStart = cloudpickle.loads(link.receive_start(_START_TIMEOUT))
        link.configure(start.epoch, start.credit_limit, start.outstanding)
        worker = EnvironmentWorker(start, link)
        worker.run()
    except StopRequested:
        pass
    except Exception as error:  # noqa: BLE001 - the boundary of the process: whatever it was is sent to the learner
        code = 1
        category = _category(error)
        summary = str(error) if category != "error" else f"{type(error).__name__}: {error}"
        with contextlib.suppress(StopRequested):
            link.report_error(" ".join(summary.split()), traceback.format_exc(), category)
    finally:
        if worker is not None and code == 0:
            worker.collector.env.close()
    sys.exit(code)
