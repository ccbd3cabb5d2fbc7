"""Small gymnasium environments whose faults are chosen from outside, for the tests of workers and replay."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

OBSERVATION_SIZE = 4


class ToyEnv(gymnasium.Env):
    """Observation ``[seed, episode, step, last action]``; reward is the action; an episode has ``length`` steps."""

    def __init__(self, length: int = 5, terminates: bool = False, step_seconds: float = 0.0) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.length, self.terminates, self.step_seconds = length, terminates, step_seconds
        self.seed_given, self.episode, self.t, self.last = 0, 0, 0, 0.0

    def _observe(self) -> np.ndarray:
        return np.array([self.seed_given % 1000, self.episode, self.t, self.last], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if seed is not None:
            self.seed_given = seed
        self.episode, self.t, self.last = self.episode + 1, 0, 0.0
        return self._observe(), {}

    def step(self, action):
        if self.step_seconds:
            time.sleep(self.step_seconds)
        self.t += 1
        self.last = float(action[0])
        over = self.t >= self.length
        info = {"episode_metrics": {"length": float(self.t), "speed": 10.0 * self.episode}} if over else {}
        return self._observe(), self.last, over and self.terminates, over and not self.terminates, info


class FaultyEnv(ToyEnv):
    """Misbehaves at step ``at`` of every ``every``-th episode: ``fault`` is raise, hang, nan or nan_reward."""

    def __init__(self, fault: str, at: int = 3, every: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fault, self.at, self.every = fault, at, every

    def reset(self, *, seed=None, options=None):
        if self.fault == "raise_at_reset":
            raise RuntimeError("the road file is missing")
        return super().reset(seed=seed, options=options)

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.t == self.at and self.episode % self.every == 0:
            if self.fault == "raise":
                raise RuntimeError("wheel fell off")
            if self.fault == "hang":
                time.sleep(3600.0)
            if self.fault == "exit":
                os._exit(9)
            if self.fault == "nan":
                observation = np.full_like(observation, np.nan)
            if self.fault == "nan_reward":
                reward = float("nan")
        return observation, reward, terminated, truncated, info


class FaultOnceEnv(ToyEnv):
    """Does ``fault`` in the first process that gets to step ``at``; a file marks that it was done."""

    def __init__(self, marker: str, fault: str, at: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.marker, self.fault, self.at, self.steps = Path(marker), fault, at, 0

    def step(self, action):
        self.steps += 1
        if self.steps == self.at:
            try:
                self.marker.touch(exist_ok=False)
            except FileExistsError:
                return super().step(action)
            if self.fault == "raise":
                raise RuntimeError("wheel fell off")
            if self.fault == "hang":
                time.sleep(3600.0)
            if self.fault == "exit":
                os._exit(9)
        return super().step(action)


class StatefulVectorEnv(SyncVectorEnv):
    """A vector of toy environments that can save and restore its state."""

    def get_state(self) -> dict[str, np.ndarray]:
        rows = [[e.unwrapped.seed_given, e.unwrapped.episode, e.unwrapped.t, e.unwrapped.last] for e in self.envs]
        return {"rows": np.array(rows, np.float64)}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        for env, row in zip(self.envs, state["rows"], strict=True):
            toy = env.unwrapped
            toy.seed_given, toy.episode, toy.t, toy.last = (
                int(row[0]),
                int(row[1]),
                int(row[2]),
                float(row[3]),
            )


def toy_vector(
    num_envs: int = 2,
    *,
    cls: type[gymnasium.Env] = ToyEnv,
    mode: AutoresetMode = AutoresetMode.SAME_STEP,
    vector: type[SyncVectorEnv] = SyncVectorEnv,
    **kwargs: Any,
) -> SyncVectorEnv:
    """Build ``num_envs`` of ``cls``."""
    return vector([lambda: cls(**kwargs)] * num_envs, autoreset_mode=mode)


def slow_to_build(seconds: float, share: float) -> SyncVectorEnv:
    """Build two environments as on a machine that leaves them a share of a core: 0 is one that hangs, 1 a free one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begun = time.process_time()
        while time.process_time() - begun < 0.1 * share:
            pass
        time.sleep(0.1 * (1.0 - share))
    return toy_vector(2)


class NoJaxEnv(ToyEnv):
    """Raises where JAX is loaded or more than one BLAS thread is allowed."""

    def step(self, action):
        loaded = sorted(name for name in ("jax", "jaxlib", "flax") if name in sys.modules)
        threads = {os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        if loaded or threads != {"1"}:
            raise RuntimeError(f"loaded: {loaded}, threads: {threads}")
        return super().step(action)
