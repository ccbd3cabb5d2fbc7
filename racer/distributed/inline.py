"""Workers in the learner's own thread, one after another, for lock step: nothing is copied and nothing is sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from racer.distributed.pool import Parameters, PoolTask, StateLost, WorkerBatch, WorkerHistory
from racer.distributed.worker import EnvironmentWorker, WorkerTask

__all__ = ["InlinePool"]


class InlinePool:
    """Collects when it is asked for a batch. See :class:`racer.distributed.pool.WorkerPool`.

    With as many workers it gives the bits of worker processes in lock step.

    Args:
        task: what the workers do.
        histories: where each goes on.
    """

    def __init__(self, task: PoolTask, histories: Sequence[WorkerHistory]) -> None:
        self._task, self._histories = task, histories
        self._workers: list[EnvironmentWorker] = []
        self._waiting: deque[EnvironmentWorker] = deque()
        self._parameters: Parameters | None = None
        self._interrupted = False

    def start(self) -> None:
        """Build the environments."""
        for index, history in enumerate(self._histories):
            self._workers.append(EnvironmentWorker(WorkerTask(self._task, index, history)))

    def get(self, timeout: float) -> WorkerBatch | None:
        """Let the next worker of the round collect; None once all have. A fault is raised as it is."""
        if not self._waiting:
            return None
        assert self._parameters is not None
        self._interrupted = True
        batch = self._waiting.popleft().collect(self._parameters)
        self._interrupted = False
        return batch

    def publish(self, parameters: Parameters) -> None:
        """Begin a round."""
        self._parameters = parameters
        self._waiting = deque(self._workers)

    def metrics(self) -> dict[str, float]:
        """Return nothing: there is nothing to supervise."""
        return {}

    def state(self, rounds: int) -> list[WorkerHistory]:
        """Copy the state of every worker."""
        if self._interrupted or any(worker.rounds_done != rounds for worker in self._workers):
            raise StateLost("the run ended within a round of collecting; the newest checkpoint is from before")
        return [WorkerHistory(0, rounds, worker.state()) for worker in self._workers]

    def stop(self) -> None:
        """Close the environments."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.close()
