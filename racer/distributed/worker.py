"""The environment worker: several environments, a policy and its random stream. NumPy only, no JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from racer.core.random_state import generator_from_array, generator_to_array
from racer.distributed.pool import Parameters, PoolTask, WorkerBatch, WorkerHistory
from racer.replay.collector import Collector, Memory

__all__ = ["EnvironmentWorker", "WorkerTask", "worker_streams"]

_COLLECTOR = "collector/"
_RNG = "policy_rng"


@dataclass(frozen=True)
class WorkerTask:
    """What one worker is told.

    Attributes:
        pool: what all workers do.
        worker: index of the worker.
        history: incarnation, rounds done, and the state after them; an empty state begins anew.
    """

    pool: PoolTask
    worker: int
    history: WorkerHistory

    @property
    def stream(self) -> int:
        """Names the random streams; see :func:`worker_streams`."""
        return self.history.rounds_done if self.pool.config.deterministic else self.history.incarnation


def worker_streams(seed: int, worker: int, stream: int) -> tuple[int, np.random.Generator]:
    """Return the environments' seed (31 bit) and the policy's random stream.

    They are functions of (seed, worker, stream). A worker's stream is its incarnation, so that a restarted worker
    does not repeat what its predecessor did. In lock step it is the number of rounds already delivered, so that the
    numbers depend on the rounds in which workers died and not on how often.
    """
    environment, policy = np.random.SeedSequence([seed, worker, stream]).spawn(2)
    return int(environment.generate_state(1)[0] >> 1), np.random.Generator(np.random.PCG64(policy))


class EnvironmentWorker:
    """Collects with the parameters that it is given, wherever it runs.

    Args:
        task: what to do.
    """

    def __init__(self, task: WorkerTask) -> None:
        self.task = task
        config = task.pool.config
        env_seed, self._rng = worker_streams(config.seed, task.worker, task.stream)
        env = task.pool.env_factory()
        memory = task.pool.policy.initial_memory(env.num_envs)
        self.collector = Collector(env, env_seed, memory=memory, max_nonfinite=config.max_nonfinite_transitions)
        self.rounds_done = task.history.rounds_done
        if task.history.state:
            self._restore(dict(task.history.state))

    def collect(self, parameters: Parameters, on_step: Callable[[], None] | None = None) -> WorkerBatch:
        """Collect one batch; ``on_step`` is called before every step."""
        pool = self.task.pool
        act = self._act_at_random if parameters.arrays is None else self._acting(parameters)
        experience = self.collector.collect(pool.config.worker_steps_per_iteration, act, on_step)
        self.rounds_done = parameters.round
        incarnation = self.task.history.incarnation
        return WorkerBatch(experience, self.task.worker, incarnation, parameters.version, parameters.round)

    def may_use(self, parameters: Parameters) -> bool:
        """Whether the next batch may be collected with ``parameters``: in lock step only with those of a new round."""
        return not self.task.pool.config.deterministic or parameters.round > self.rounds_done

    def state(self) -> dict[str, np.ndarray]:
        """Return what the next collection depends on besides the parameters; empty where environments cannot tell."""
        if not self.collector.can_save_state:
            return {}
        state = {f"{_COLLECTOR}{name}": value for name, value in self.collector.state().items()}
        return {**state, _RNG: generator_to_array(self._rng)}

    def close(self) -> None:
        """Close the environments."""
        self.collector.env.close()

    def _restore(self, state: dict[str, np.ndarray]) -> None:
        self._rng = generator_from_array(state[_RNG])
        inner = {name.removeprefix(_COLLECTOR): v for name, v in state.items() if name.startswith(_COLLECTOR)}
        self.collector.restore(inner)

    def _acting(self, parameters: Parameters) -> Callable[..., tuple[np.ndarray, Memory, Memory]]:
        policy, arrays, rng = self.task.pool.policy, parameters.arrays, self._rng
        return lambda observations, memory: policy.act(arrays, observations, memory, rng)

    def _act_at_random(self, observations: np.ndarray, memory: Memory) -> tuple[np.ndarray, Memory, Memory]:
        """Leave the memory as it is: the warm-up policy has none."""
        actions, _, extras = self.task.pool.warmup.act({}, observations, {}, self._rng)
        return actions, memory, extras
