"""Steps a vector environment with a policy and writes down what happened.

The single-threaded script, the worker processes and the tests all collect with this class, so an episode's end,
its final observation and a value that is not finite are treated alike everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from racer.core.errors import RacerError, UsageError
from racer.replay.experience import Experience

__all__ = ["Act", "Collector", "EnvironmentFault", "NonFiniteData"]

Act = Callable[[np.ndarray], tuple[np.ndarray, Mapping[str, np.ndarray]]]
"""Observations ``[N, D]`` to actions ``[N, A]`` (choices ``[N]``) and extras ``[N, ...]``."""

_RESET_TRIES = 3


class EnvironmentFault(RacerError):
    """An environment raised in ``step`` or ``reset``; the message has its id, the seed and the action."""


class NonFiniteData(RacerError):
    """Too many rows in a row held a value that is not finite: the environment, not chance, is at fault."""


class Collector:
    """Collects transitions from ``env`` under whatever policy it is given.

    Args:
        env: a gymnasium vector environment that resets itself (SAME_STEP, or NEXT_STEP whose resetting steps are
            dropped). Where it knows the ``reset_mask`` option of gymnasium's own vector environments (others say so
            with ``metadata["reset_mask"] = True``), a value that is not finite resets its sub-environment only;
            elsewhere all are reset, and the neighbours' episodes count as truncated.
        seed: seeds the first reset; sub-environment ``i`` gets ``seed + i``.
        max_nonfinite: rows that are not finite, without a finite one between, after which collecting raises.

    Raises:
        UsageError: the environment's spaces or its autoreset mode are not supported.
    """

    def __init__(self, env: VectorEnv, seed: int, *, max_nonfinite: int = 1000) -> None:
        self.env = env
        self.seed = int(seed)
        self.max_nonfinite = max_nonfinite
        self.nonfinite_total = 0
        self.steps = 0
        if not isinstance(env.single_observation_space, gymnasium.spaces.Box):
            raise UsageError(f"observation space must be a Box, got {env.single_observation_space}")
        if not isinstance(env.single_action_space, gymnasium.spaces.Box | gymnasium.spaces.Discrete):
            raise UsageError(f"action space must be a Box or Discrete, got {env.single_action_space}")
        mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._same_step = AutoresetMode(mode) == AutoresetMode.SAME_STEP
        if AutoresetMode(mode) == AutoresetMode.DISABLED:
            raise UsageError("vector environment must reset itself; its autoreset mode is DISABLED")
        known = isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
        self._masked_reset = known or bool(env.metadata.get("reset_mask", False))
        self._observation_shape = env.single_observation_space.shape or ()
        self._action_shape = env.single_action_space.shape or ()
        discrete = isinstance(env.single_action_space, gymnasium.spaces.Discrete)
        self._action_kind = np.int64 if discrete else np.float32
        self._nonfinite_run = 0
        self._last_actions: np.ndarray | None = None
        self.reset(self.seed)

    @property
    def num_envs(self) -> int:
        """Number of sub-environments, N."""
        return int(self.env.num_envs)

    @property
    def observations(self) -> np.ndarray:
        """``[N, ...]`` float32, what the policy will see next."""
        return self._observations

    def reset(self, seed: int | None = None) -> None:
        """Start every sub-environment on a new episode; unfinished ones leave no statistics."""
        if seed is not None:
            self.seed = int(seed)
        self._observations = self._call_reset(None, seed)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._resetting = np.zeros(self.num_envs, bool)
        self._replace_nonfinite(~self._finite_rows(self._observations), self._observations)

    def collect(self, num_steps: int, act: Act, on_step: Callable[[], None] | None = None) -> Experience:
        """Take ``num_steps`` steps in every sub-environment.

        Args:
            num_steps: T.
            act: the policy; called once a step with all N observations.
            on_step: called before every step (a worker's heartbeat). What it raises ends the collection.

        Raises:
            EnvironmentFault: the environment raised.
            NonFiniteData: ``max_nonfinite`` rows in a row were not finite.
        """
        if num_steps < 1:
            raise UsageError(f"number of steps to collect must be positive, got {num_steps}")
        lead = (num_steps, self.num_envs)
        observations = np.empty((*lead, *self._observation_shape), np.float32)
        next_observations = np.empty_like(observations)
        actions = np.empty((*lead, *self._action_shape), self._action_kind)
        rewards, masks, dones = (np.empty(lead, np.float32) for _ in range(3))
        valid = np.ones(lead, bool)
        extras: dict[str, np.ndarray] = {}
        episodes: list[dict[str, float]] = []
        nonfinite_before = self.nonfinite_total
        for t in range(num_steps):
            if on_step is not None:
                on_step()
            observations[t] = self._observations
            chosen, added = act(self._observations)
            actions[t] = chosen
            for name, value in added.items():
                value = np.asarray(value)
                if name not in extras:
                    extras[name] = np.zeros((num_steps, *value.shape), value.dtype)
                extras[name][t] = value
            rewards[t], masks[t], dones[t] = self._step(actions[t], next_observations[t], valid[t], episodes)
        return Experience(
            observations=observations,
            actions=actions,
            rewards=rewards,
            masks=masks,
            dones=dones,
            next_observations=next_observations,
            valid=valid,
            extras=extras,
            episodes=episodes,
            nonfinite=self.nonfinite_total - nonfinite_before,
        )

    def _step(
        self, actions: np.ndarray, successors: np.ndarray, valid: np.ndarray, episodes: list[dict[str, float]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step once; fill ``successors`` and ``valid``; return rewards, masks and dones, ``[N]`` each."""
        self._last_actions = actions
        if not np.isfinite(actions).all():
            raise NonFiniteData(f"policy chose an action that is not finite: {actions.tolist()}")
        try:
            # A copy, because highway-env keeps and edits the array that it is given.
            following, rewards, terminated, truncated, infos = self.env.step(actions.copy())
        except Exception as error:
            raise self._fault("step", error) from error
        self.steps += 1
        rewards = np.asarray(rewards, np.float32)
        terminated = np.asarray(terminated, bool)
        dones = terminated | np.asarray(truncated, bool)
        following = np.array(following, np.float32)
        successors[:] = following
        plain = not (dones.any() or self._resetting.any())
        if plain and np.isfinite(following).all() and np.isfinite(rewards).all():
            # Nothing ends, starts or breaks: most steps are of this kind.
            self._nonfinite_run = 0
            self._returns += rewards
            self._lengths += 1
            self._observations = following
            return rewards, np.ones_like(rewards), np.zeros_like(rewards)
        if self._same_step and dones.any():
            final = infos["final_obs"]
            for i in np.flatnonzero(dones):
                successors[i] = final[i]

        np.logical_not(self._resetting, out=valid)
        finite = self._finite_rows(successors) & np.isfinite(rewards)
        if finite.all():
            self._nonfinite_run = 0
        else:
            rewards = self._drop_nonfinite(finite, rewards, successors, valid)
        self._returns += np.where(valid, rewards, 0.0)
        self._lengths += valid
        ended = dones & valid
        if ended.any():
            self._finish_episodes(ended, infos, episodes)
        started_over = dones | ~valid
        if started_over.any():
            self._returns[started_over] = 0.0
            self._lengths[started_over] = 0
        self._resetting = dones.copy() if not self._same_step else self._resetting
        self._observations = following
        needs_reset = ~self._finite_rows(following)
        if self._same_step:
            # The transition that ended is sound, the first observation of the next episode is not.
            self.nonfinite_total += int(np.count_nonzero(needs_reset & finite & dones))
            # An environment that ended on the bad row has already begun anew.
            needs_reset |= ~finite & ~dones
        else:
            needs_reset |= ~finite
        if needs_reset.any() and not self._masked_reset:
            needs_reset[:] = True
            dones = np.ones_like(dones)
        self._replace_nonfinite(needs_reset, following)
        return rewards, 1.0 - terminated.astype(np.float32), dones.astype(np.float32)

    @staticmethod
    def _finite_rows(values: np.ndarray) -> np.ndarray:
        finite = np.isfinite(values)
        if finite.all():
            return np.ones(len(values), bool)
        return finite.reshape(len(values), -1).all(axis=1)

    def _drop_nonfinite(
        self, finite: np.ndarray, rewards: np.ndarray, successors: np.ndarray, valid: np.ndarray
    ) -> np.ndarray:
        """Mark the rows that are not finite invalid, blank their values and count them."""
        valid &= finite
        successors[~finite] = 0.0
        dropped = int(np.count_nonzero(~finite))
        self.nonfinite_total += dropped
        self._nonfinite_run = dropped + (0 if valid.any() else self._nonfinite_run)
        if self._nonfinite_run >= self.max_nonfinite:
            raise NonFiniteData(
                f"{self._name()} (seed {self.seed}) gave {self._nonfinite_run} observations or rewards in a row that "
                "are not finite"
            )
        return np.where(finite, rewards, np.float32(0.0))

    def _replace_nonfinite(self, rows: np.ndarray, observations: np.ndarray) -> None:
        """Reset the sub-environments in ``rows`` until what they show is finite."""
        for _ in range(_RESET_TRIES):
            if not rows.any():
                return
            if not self._masked_reset:
                rows = np.ones_like(rows)
            observations[rows] = self._call_reset(rows if self._masked_reset else None, None)[rows]
            self._resetting[rows] = False
            self._returns[rows] = 0.0
            self._lengths[rows] = 0
            rows = ~self._finite_rows(observations)
        if rows.any():
            raise NonFiniteData(
                f"{self._name()} (seed {self.seed}): reset gives an observation that is not finite, "
                f"{_RESET_TRIES} times in a row"
            )

    def _call_reset(self, rows: np.ndarray | None, seed: int | None) -> np.ndarray:
        options = None if rows is None else {"reset_mask": rows.copy()}
        try:
            observations, _ = self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise self._fault("reset", error) from error
        return np.array(observations, np.float32)

    def _finish_episodes(self, ended: np.ndarray, infos: Mapping[str, Any], episodes: list[dict[str, float]]) -> None:
        source = infos.get("final_info", {}) if self._same_step else infos
        metrics = source.get("episode_metrics", {}) if isinstance(source, Mapping) else {}
        for i in np.flatnonzero(ended):
            episode = {"return": float(self._returns[i]), "length": float(self._lengths[i])}
            for name, values in metrics.items():
                if name.startswith("_") or not metrics.get(f"_{name}", ended)[i]:
                    continue
                episode[name] = float(values[i])
            episodes.append(episode)

    def _name(self) -> str:
        spec = self.env.spec
        return spec.id if spec is not None else type(self.env.unwrapped).__name__

    def _fault(self, verb: str, error: Exception) -> EnvironmentFault:
        action = None if self._last_actions is None else self._last_actions.tolist()
        return EnvironmentFault(
            f"{self._name()} failed in {verb} (seed {self.seed}, step {self.steps}, action {action}): "
            f"{type(error).__name__}: {error}"
        )

    @property
    def can_save_state(self) -> bool:
        """Whether the environment offers ``get_state`` and ``set_state``, so that :meth:`state` is exact."""
        env = self.env.unwrapped
        return hasattr(env, "get_state") and hasattr(env, "set_state")

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that the next transitions depend on besides the policy.

        Raises:
            UsageError: the environment cannot save its state.
        """
        if not self.can_save_state:
            raise UsageError(f"{self._name()} cannot save its state (no get_state/set_state)")
        env: Any = self.env.unwrapped
        state = {f"env/{name}": np.array(value) for name, value in env.get_state().items()}
        state["observations"] = self._observations.copy()
        state["returns"] = self._returns.copy()
        state["lengths"] = self._lengths.copy()
        state["resetting"] = self._resetting.copy()
        counters = [self.seed, self.steps, self.nonfinite_total, self._nonfinite_run]
        state["counters"] = np.array(counters, np.int64)
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue where :meth:`state` was taken.

        Raises:
            UsageError: the state belongs to other environments or lacks something.
        """
        if not self.can_save_state:
            raise UsageError(f"{self._name()} cannot restore its state (no get_state/set_state)")
        missing = {"observations", "returns", "lengths", "resetting", "counters"} - set(state)
        if missing:
            raise UsageError(f"collector state has no {', '.join(sorted(missing))}")
        if state["observations"].shape != self._observations.shape:
            raise UsageError(
                f"collector state has observations {state['observations'].shape}, "
                f"the environments give {self._observations.shape}"
            )
        env: Any = self.env.unwrapped
        env.set_state({name.removeprefix("env/"): v for name, v in state.items() if name.startswith("env/")})
        self._observations = np.array(state["observations"], np.float32)
        self._returns = np.array(state["returns"], np.float64)
        self._lengths = np.array(state["lengths"], np.int64)
        self._resetting = np.array(state["resetting"], bool)
        self.seed, self.steps, self.nonfinite_total, self._nonfinite_run = map(int, state["counters"])
