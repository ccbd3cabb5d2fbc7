"""Workers as actors of a Ray cluster: placed by Ray, watched and replaced here.

The learner is Ray's driver. One thread owns every actor; what Ray answers reaches it through a queue. A worker has one
call that collects under way and one that waits behind it, as far as its credit goes, and at most one call that brings
parameters and asks how it is: of several publications only the newest is sent, as a reference to one object that every
node fetches once.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np

import racer
from racer.core.errors import RacerError, UsageError
from racer.distributed.cluster import actor as actors
from racer.distributed.cluster.actor import Identity, Pulse
from racer.distributed.cluster.connection import Cluster, ClusterLost
from racer.distributed.config import BackendConfig
from racer.distributed.pool import Parameters, PoolTask, WorkerBatch, WorkerHistory
from racer.distributed.processes.frames import BrokenFrame
from racer.distributed.processes.launch import worker_variables
from racer.distributed.processes.messages import batch_from_bytes, check_batch, parameters_to_bytes
from racer.distributed.supervision import ErrorReport, Inbox, Supervision, WorkerRecord, silence
from racer.distributed.worker import WorkerTask

__all__ = ["ClusterTooSmall", "RayPool"]

_LOG = logging.getLogger("racer.distributed")
_TICK = 0.1
_LATE_TICK = 0.5
_DEPTH = 2
_CAUSE = 300


class ClusterTooSmall(RacerError):
    """Fewer workers than needed have had a place in the cluster for too long."""


@dataclass
class ActorSlot(WorkerRecord):
    """One worker: its present actor, if any, and its record.

    Attributes:
        actor: Ray's handle; None while it is being replaced.
        identity: of the actor once it has a place in the cluster.
        collecting: calls under way that collect.
        asked_at: when the call was sent that asks how it is (s, monotonic clock); None where none is under way.
        ask_at: when to ask next.
        offered: number of the newest publication that was sent.
    """

    actor: Any = None
    identity: Identity | None = None
    collecting: int = 0
    asked_at: float | None = None
    ask_at: float = 0.0
    offered: int = 0

    def begin(self, actor: Any) -> None:
        """Take on a fresh actor."""
        self.actor, self.identity, self.collecting = actor, None, 0
        self.asked_at, self.offered = None, 0
        self.ready, self.cause, self.category = False, None, "error"


class RayPool:
    """Actors behind Ray's object store. See :class:`racer.distributed.pool.WorkerPool`.

    Args:
        task: what the workers do.
        histories: where each worker goes on.
        cluster: where they run; it stays connected when the pool stops.
        backend: how many must have a place, and what each reserves.
        inbox: where batches wait for the learner; None: here.
        pending: batches of each worker's predecessors that the learner has not taken; None: none.
    """

    def __init__(
        self, task: PoolTask, histories: Sequence[WorkerHistory], *, cluster: Cluster, backend: BackendConfig,
        inbox: Inbox | None = None, pending: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        self.config = task.config
        self._task, self._cluster, self._backend = task, cluster, backend
        waiting = pending or [0] * len(histories)
        self.slots = [ActorSlot(index, history, pending=waiting[index]) for index, history in enumerate(histories)]
        self._supervision = Supervision(task.config)
        self._inbox = Inbox() if inbox is None else inbox
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._parameters: Any = None
        self._publications = 0
        self._ask_interval = min(2.0, task.config.step_timeout / 4)
        self._too_few_since: float | None = None
        self._started = self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Ask Ray for the workers and return; they begin where and when there is room."""
        if self._started:
            raise RuntimeError("a pool runs once")
        self._started = True
        ray = self._cluster.ray
        make_actors = ray.remote(
            num_cpus=self._backend.worker_cpus,
            num_gpus=0,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"asking": 1, "collecting": 1},
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": {**worker_variables(), "CUDA_VISIBLE_DEVICES": ""}},
        )
        self._actor_class = make_actors(_in_groups(ray))
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End every worker, killing those that do not end in time. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping = True
        thread.join()
        self._supervision.counts["dropped_batches"] += self._inbox.clear()

    def get(self, timeout: float) -> WorkerBatch | None:
        """Return the oldest batch or None; taking it gives its worker a credit.

        Raises:
            WorkerCrashLoop: a worker failed too often.
            ClusterTooSmall: too few workers have a place in the cluster.
            ClusterLost: the cluster does not answer any more.
            NonFiniteData: a worker's environment gives nothing but values that are not finite.
            UsageError: a worker found its configuration wrong.
        """
        batch = self._inbox.get(timeout)
        if batch is not None:
            self.taken(batch.worker)
        return batch

    def taken(self, worker: int) -> None:
        """Give a worker a credit: the learner took a batch of it."""
        self._events.put(functools.partial(self._taken, self.slots[worker]))

    def publish(self, parameters: Parameters) -> None:
        """Offer to every worker, and to those started later."""
        self.publish_block(parameters_to_bytes(parameters))

    def publish_block(self, block: bytearray) -> None:
        """Offer parameters in their message form."""
        self._events.put(functools.partial(self._broadcast, np.frombuffer(block, np.uint8)))

    def state(self, rounds: int) -> list[WorkerHistory]:
        """Return what a later pool needs of each worker; see :class:`racer.distributed.pool.WorkerPool`."""
        return self._supervision.histories(self.slots, rounds)

    def metrics(self) -> dict[str, float]:
        """Return counts since the start, and what is now."""
        alive = sum(slot.ready and slot.actor is not None for slot in self.slots)
        return self._supervision.metrics(len(self._inbox), alive)

    def worker_pids(self) -> list[int | None]:
        """Return the process id of each worker on its machine, None for one that has no place."""
        found = [slot.identity if slot.actor is not None else None for slot in self.slots]
        return [None if identity is None else identity.pid for identity in found]

    # Everything below runs on the pool's own thread.

    def _run(self) -> None:
        last_tick = time.monotonic()
        try:
            while not self._stopping:
                with contextlib.suppress(queue.Empty):
                    self._events.get(timeout=_TICK)()
                now = time.monotonic()
                if now - last_tick < _TICK:
                    continue
                if now - last_tick > _LATE_TICK:
                    self._held_up(now - last_tick)
                last_tick = now
                self._cluster.raise_if_lost()
                for slot in self.slots:
                    self._tend(slot, now)
                self._count_places(now)
        except RacerError as error:
            self._fail(error)
        except self._cluster.ray.exceptions.RayError as error:
            self._fail(ClusterLost(f"the Ray cluster at {self._cluster.address} failed: {_in_words(error)}"))
        except Exception as error:  # noqa: BLE001 - the boundary of the thread: the learner's thread raises it
            _LOG.exception("cluster pool failed")
            self._fail(error)
        finally:
            self._end_all()

    def _fail(self, error: Exception) -> None:
        self._inbox.fail(error)
        self._stopping = True

    def _held_up(self, seconds: float) -> None:
        """Count nothing against the workers for a time in which we were held up ourselves (a suspended process)."""
        for slot in self.slots:
            if slot.asked_at is not None:
                slot.asked_at += seconds

    def _tend(self, slot: ActorSlot, now: float) -> None:
        """Look after one worker: start it, ask how it is, end its silence."""
        if slot.actor is None:
            if now >= slot.retry_at and not self._stopping and self._cluster.answers():
                self._launch(slot)
            return
        # Without an identity it waits for room in the cluster; _count_places knows when that is too long.
        if slot.identity is not None and slot.asked_at is None and now >= slot.ask_at:
            self._ask(slot)
        elif slot.asked_at is not None and now - slot.asked_at > self._limit(slot):
            self._lost(slot, silence(self._limit(slot), slot.ready))

    def _limit(self, slot: ActorSlot) -> float:
        return self.config.step_timeout if slot.ready else self.config.startup_timeout

    def _count_places(self, now: float) -> None:
        """End the run where too few workers have had a place for as long as a worker may take to start."""
        placed = sum(slot.identity is not None and slot.actor is not None for slot in self.slots)
        needed = self._backend.min_workers or 1
        if placed >= needed or self._stopping:
            self._too_few_since = None
            return
        self._too_few_since = self._too_few_since or now
        if now - self._too_few_since > self.config.startup_timeout:
            raise ClusterTooSmall(
                f"{placed} workers of the {needed} that are needed (--min_workers) had a place for "
                f"{self.config.startup_timeout:g} s (startup_timeout); {self._cluster.describe()}"
            )

    def _launch(self, slot: ActorSlot) -> None:
        task = cloudpickle.dumps(WorkerTask(self._task, slot.index, slot.history))
        slot.next_incarnation()
        slot.begin(self._actor_class.remote(task))
        self._supervision.on_start(slot)
        self._await(slot, slot.actor.hello.remote(), self._on_hello)
        self._feed(slot)

    def _await(self, slot: ActorSlot, reference: Any, then: Callable[[ActorSlot, Any], None]) -> None:
        """Call ``then`` with what a call of a worker returns, unless the worker was replaced meanwhile."""
        incarnation = slot.incarnation

        def arrived(future: Any) -> None:
            self._events.put(functools.partial(self._on_reply, slot, incarnation, future, then))

        reference.future().add_done_callback(arrived)

    def _on_reply(self, slot: ActorSlot, incarnation: int, future: Any, then: Callable[[ActorSlot, Any], None]) -> None:
        error = future.exception()
        if slot.actor is None or slot.incarnation != incarnation:
            batch = error is None and isinstance(future.result(), np.ndarray)
            self._supervision.counts["dropped_batches"] += int(batch)
        elif error is not None:
            self._lost(slot, _in_words(error))
        else:
            then(slot, future.result())

    def _on_hello(self, slot: ActorSlot, identity: Identity) -> None:
        slot.identity = identity
        if identity.version != racer.__version__:
            raise UsageError(
                f"racer {identity.version} is installed on {identity.host}, {racer.__version__} here: "
                "all machines of the cluster need the same"
            )
        self._cluster.check_token(identity.host, identity.token)
        _LOG.info("worker %d has its place on %s", slot.index, identity.host)
        self._ask(slot)

    def _ask(self, slot: ActorSlot) -> None:
        """Ask how a worker is, and bring the newest parameters where it does not have them."""
        now = time.monotonic()
        block = self._parameters if slot.offered < self._publications else None
        slot.offered, slot.asked_at, slot.ask_at = self._publications, now, now + self._ask_interval
        self._await(slot, slot.actor.pulse.remote(block), self._on_pulse)

    def _on_pulse(self, slot: ActorSlot, pulse: Pulse) -> None:
        slot.asked_at = None
        if pulse.ready and not slot.ready:
            self._supervision.on_ready(slot, time.monotonic())
        if pulse.busy > self._limit(slot):
            self._lost(slot, silence(self._limit(slot), slot.ready))
        elif slot.offered < self._publications:
            self._ask(slot)

    def _feed(self, slot: ActorSlot) -> None:
        """Let a worker collect as far as its credit goes; no more calls wait at it than keep it busy."""
        while slot.collecting < _DEPTH and slot.collecting + slot.pending < self.config.credits:
            slot.collecting += 1
            self._await(slot, slot.actor.collect.remote(), self._on_collected)

    def _on_collected(self, slot: ActorSlot, reply: np.ndarray | ErrorReport | None) -> None:
        slot.collecting -= 1
        if isinstance(reply, ErrorReport):
            self._supervision.on_error(slot, reply)
            self._lost(slot, reply.summary)
        elif reply is not None:
            try:
                # A copy: what stays in the object store ends this process if the store does.
                batch = batch_from_bytes(bytearray(reply.data))
                check_batch(batch, self._task)
            except BrokenFrame as error:
                self._lost(slot, f"sent {error}")
                return
            slot.delivered_batch(batch)
            self._inbox.put(batch)
            self._feed(slot)

    def _taken(self, slot: ActorSlot) -> None:
        slot.pending -= 1
        if slot.actor is not None:
            self._feed(slot)

    def _broadcast(self, block: np.ndarray) -> None:
        if not self._cluster.answers():
            return
        self._parameters = self._cluster.ray.put(block)
        self._publications += 1
        for slot in self.slots:
            if slot.identity is not None and slot.actor is not None and slot.asked_at is None:
                self._ask(slot)

    def _lost(self, slot: ActorSlot, cause: str) -> None:
        """Give an actor up, and decide between another one and the end."""
        self._cluster.ray.kill(slot.actor)
        where = "" if slot.identity is None else f"on {slot.identity.host}: "
        slot.actor = None
        error = self._supervision.on_failure(slot, f"{where}{slot.cause or cause}", time.monotonic())
        if error is not None:
            raise error

    def _end_all(self) -> None:
        """Ask every worker to stop, wait for a while, then kill all."""
        ray = self._cluster.ray
        if not self._cluster.lost:
            placed = [slot.actor for slot in self.slots if slot.actor is not None and slot.identity is not None]
            for actor in placed:
                actor.stop.remote()
            closed = [actor.close.remote() for actor in placed]
            if closed:
                ray.wait(closed, num_returns=len(closed), timeout=self.config.stop_grace)
        for slot in self.slots:
            if slot.actor is not None and not self._cluster.lost:
                ray.kill(slot.actor)
            slot.actor = None


def _in_groups(ray: Any) -> type:
    """Return the actor's class with each method in the thread that calls it; Ray's client knows no other way."""
    asking, collecting = (ray.method(concurrency_group=name) for name in ("asking", "collecting"))

    class ClusterWorker(actors.ClusterWorker):
        @asking
        def hello(self) -> Identity:
            return super().hello()

        @asking
        def pulse(self, block: np.ndarray | None) -> Pulse:
            return super().pulse(block)

        @asking
        def stop(self) -> None:
            super().stop()

        @collecting
        def collect(self) -> np.ndarray | ErrorReport | None:
            return super().collect()

        @collecting
        def close(self) -> None:
            super().close()

    return ClusterWorker


def _in_words(error: BaseException) -> str:
    """Return what Ray says of a lost actor on one line: its kind, and the last sentence, which names the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[-1] if lines else ''}"
    return text if len(text) <= _CAUSE else f"{text[:_CAUSE]}..."
