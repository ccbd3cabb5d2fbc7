"""Steps a vector environment with a policy and writes down what happened.

Training in one process, the worker processes and the tests all collect with this class, so an episode's end, its
final observation and a value that is not finite are treated alike everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from racer.core.errors import EnvironmentFault, RacerError, UsageError, place_in, shown
from racer.replay.experience import Experience
from racer.replay.recording import Recording

__all__ = ["Act", "Collector", "Memory", "NonFiniteData"]

Memory = dict[str, np.ndarray]
"""What a policy remembers, ``[N, ...]`` by name; zeros at an episode's start, empty where it remembers nothing."""

Act = Callable[[np.ndarray, Memory], tuple[np.ndarray, Memory, Mapping[str, np.ndarray]]]
"""Observations ``[N, ...]`` and memory to actions ``[N, A]`` (choices ``[N]``), memory and extras ``[N, ...]``."""

_RESET_TRIES = 3
_MARKS = ("limbo", "trial_end", "removed")


class NonFiniteData(RacerError):
    """Too many rows in a row held a value that is not finite: the environment, not chance, is at fault."""


class Collector:
    """Collects rows from ``env`` under whatever policy it is given, and keeps that policy's memory.

    Args:
        env: a gymnasium vector environment that resets itself (SAME_STEP, or NEXT_STEP whose resetting steps are
            dropped). Where it knows the ``reset_mask`` option of gymnasium's own vector environments (others say so
            with ``metadata["reset_mask"] = True``), a value that is not finite resets its sub-environment only;
            elsewhere all are reset, and the neighbours' episodes count as truncated. ``infos["trial_end"]``,
            ``infos["limbo"]`` and ``infos["removed"]`` (limbo follows), bool ``[N]`` each, mark rows as
            :class:`racer.replay.experience.Experience` says.
        seed: seeds the first reset; sub-environment ``i`` gets ``seed + i``.
        memory: the policy's memory at an episode's start, zeros ``[N, ...]``; empty where it has none.
        max_nonfinite: rows that are not finite, without a finite one between, after which collecting raises.

    Raises:
        UsageError: the environment's spaces or its autoreset mode are not supported.
    """

    def __init__(
        self,
        env: VectorEnv,
        seed: int,
        *,
        memory: Mapping[str, np.ndarray] | None = None,
        max_nonfinite: int = 1000,
    ) -> None:
        self.env = env
        self.seed = int(seed)
        self.max_nonfinite = max_nonfinite
        self.nonfinite_total = 0
        self.steps = 0
        self._same_step, self._masked_reset = _reset_manner(env)
        self._action_shape = env.single_action_space.shape or ()
        discrete = isinstance(env.single_action_space, gymnasium.spaces.Discrete)
        self._action_kind: type[np.generic] = np.int64 if discrete else np.float32
        self._memory: Memory = dict(memory or {})
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
        self._memory = {name: np.zeros_like(value) for name, value in self._memory.items()}
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._resetting = np.zeros(self.num_envs, bool)
        self._replace_nonfinite(~_finite_rows(self._observations), self._observations)

    def collect(self, num_steps: int, act: Act, on_step: Callable[[], None] | None = None) -> Experience:
        """Take ``num_steps`` steps in every sub-environment.

        Args:
            num_steps: T.
            act: the policy; called once a step with all N observations and its memory.
            on_step: called before every step (a worker's heartbeat). What it raises ends the collection.

        Raises:
            EnvironmentFault: the environment raised.
            NonFiniteData: ``max_nonfinite`` rows in a row were not finite.
        """
        if num_steps < 1:
            raise UsageError(f"number of steps to collect must be positive, got {num_steps}")
        nonfinite_before = self.nonfinite_total
        rows = Recording(num_steps, self._observations, self._action_shape, self._action_kind, self._memory)
        for t in range(num_steps):
            if on_step is not None:
                on_step()
            actions, memory, extras = act(self._observations, self._memory)
            rows.choose(t, actions, extras)
            self._step(t, rows, memory)
        return rows.experience(self.nonfinite_total - nonfinite_before)

    def _step(self, t: int, rows: Recording, memory: Memory) -> None:
        """Step every environment once and fill in row ``t``."""
        following, rewards, terminated, truncated, infos = self._call_step(rows.actions[t])
        rows.observations[t + 1], rows.rewards[t] = following, rewards
        before, self._memory = self._memory, memory
        self._observations = rows.observations[t + 1]
        ended = np.asarray(terminated, bool) | np.asarray(truncated, bool)
        marked = any(np.any(infos[name]) for name in _MARKS if name in infos)
        if not (marked or ended.any() or self._resetting.any()) and rows.finite(t):
            # Nothing ends, starts or breaks: most steps are of this kind.
            self._nonfinite_run = 0
            self._returns += rows.rewards[t]
            self._lengths += 1
            return
        acted, broken = self._mark(t, rows, np.asarray(terminated, bool), ended, infos)
        self._count_episodes(t, rows, acted, ended, infos)
        self._resetting = ended & (not self._same_step)
        self._start_over(t, rows, ended, broken)
        self._memory = _carried(before, memory, rows.valid[t], rows.forget[t])

    def _mark(
        self, t: int, rows: Recording, terminated: np.ndarray, ended: np.ndarray, infos: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write the flags and final observations of row ``t``.

        Returns:
            Which environments took a step that counts in their episode (in limbo or not), and in which a value was
            not finite, ``[N]`` each.
        """
        limbo, trial_end, removed = (np.asarray(infos.get(name, np.zeros_like(ended)), bool) for name in _MARKS)
        finals = {i: infos["final_obs"][i] for i in np.flatnonzero(ended)} if self._same_step else {}
        finite = _finite_rows(rows.observations[t + 1])
        for i, observation in finals.items():
            finite[i] = np.isfinite(observation).all()
        finite &= np.isfinite(rows.rewards[t])
        rows.rewards[t][~finite] = 0.0
        acted = finite & ~self._resetting
        valid = acted & ~limbo
        rows.valid[t] = valid
        stop = trial_end | removed
        rows.bootstrap[t] = valid & ~terminated & ~stop
        rows.cut[t] = ended | stop | ~valid
        rows.forget[t] = ended | ~finite
        for i, observation in finals.items():
            if valid[i]:
                rows.successor(t, int(i), observation)
        self._count_nonfinite(int(np.count_nonzero(~finite)), some_sound=bool(acted.any()))
        return acted, ~finite

    def _count_nonfinite(self, dropped: int, some_sound: bool) -> None:
        self.nonfinite_total += dropped
        self._nonfinite_run = dropped + (0 if some_sound else self._nonfinite_run) if dropped else 0
        if self._nonfinite_run >= self.max_nonfinite:
            raise NonFiniteData(
                f"{self._name()} (seed {self.seed}) gave {self._nonfinite_run} observations or rewards in a row that "
                "are not finite"
            )

    def _count_episodes(
        self, t: int, rows: Recording, acted: np.ndarray, ended: np.ndarray, infos: Mapping[str, Any]
    ) -> None:
        """Add row ``t`` to the running episodes, and write down those that ended in it."""
        valid = rows.valid[t]
        self._returns += np.where(valid, rows.rewards[t], 0.0)
        self._lengths += valid
        if (ended & acted).any():
            self._finish_episodes(ended & acted, infos, rows.episodes)
        fresh = ended | ~acted
        self._returns[fresh] = 0.0
        self._lengths[fresh] = 0

    def _start_over(self, t: int, rows: Recording, ended: np.ndarray, broken: np.ndarray) -> None:
        """Reset environments whose next observation is not finite, or that broke without ending."""
        following = rows.observations[t + 1]
        needs_reset = ~_finite_rows(following)
        if self._same_step:
            # The row that ended is sound, the first observation of the next episode is not.
            self.nonfinite_total += int(np.count_nonzero(needs_reset & ended & ~broken))
            # An environment that ended on the bad row has already begun anew.
            needs_reset |= broken & ~ended
        else:
            needs_reset |= broken
        if needs_reset.any() and not self._masked_reset:
            for i in np.flatnonzero(rows.valid[t] & ~ended):
                rows.successor(t, int(i), following[i])
            rows.cut[t] = rows.forget[t] = True
            needs_reset[:] = True
        self._replace_nonfinite(needs_reset, following)

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
            rows = ~_finite_rows(observations)
        if rows.any():
            raise NonFiniteData(
                f"{self._name()} (seed {self.seed}): reset gives an observation that is not finite, "
                f"{_RESET_TRIES} times in a row"
            )

    def _call_step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._last_actions = actions
        if not np.isfinite(actions).all():
            raise NonFiniteData(f"policy chose an action that is not finite: {actions.tolist()}")
        try:
            # A copy, because environments may keep and edit the array that they are given.
            stepped = self.env.step(actions.copy())
        except Exception as error:
            raise self._fault("step", error) from error
        self.steps += 1
        return stepped

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
        within = getattr(self.env.unwrapped, "envs", ())
        spec = next((env.spec for env in (self.env, *within) if env.spec is not None), None)
        return spec.id if spec is not None else type(self.env.unwrapped).__name__

    def _fault(self, verb: str, error: Exception) -> EnvironmentFault:
        row, actions = getattr(error, "row", None), self._last_actions
        chosen = actions if row is None or actions is None else actions[row]
        action = shown(None if chosen is None else chosen.tolist())
        when = f"(in {verb}, seed {self.seed}, step {self.steps}, action {action})"
        # An environment that stands in a row of others has said which.
        said = isinstance(error, EnvironmentFault)
        what = str(error) if said else f"{self._name()}, {place_in(error)}: {type(error).__name__}: {error}"
        return EnvironmentFault(f"{what} {when}", row)

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
        state |= {f"memory/{name}": np.array(value) for name, value in self._memory.items()}
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
        memory = {name.removeprefix("memory/"): v for name, v in state.items() if name.startswith("memory/")}
        needed = {"observations", "returns", "lengths", "resetting", "counters"}
        missing = (needed | {f"memory/{name}" for name in self._memory}) - set(state)
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
        self._memory = {name: np.array(memory[name]) for name in self._memory}
        self._returns = np.array(state["returns"], np.float64)
        self._lengths = np.array(state["lengths"], np.int64)
        self._resetting = np.array(state["resetting"], bool)
        self.seed, self.steps, self.nonfinite_total, self._nonfinite_run = map(int, state["counters"])


def _reset_manner(env: VectorEnv) -> tuple[bool, bool]:
    """Return whether ``env`` resets within the step, and whether it can reset some environments only.

    Raises:
        UsageError: its spaces or its autoreset mode are not supported.
    """
    if not isinstance(env.single_observation_space, gymnasium.spaces.Box):
        raise UsageError(f"observation space must be a Box, got {env.single_observation_space}")
    if not isinstance(env.single_action_space, gymnasium.spaces.Box | gymnasium.spaces.Discrete):
        raise UsageError(f"action space must be a Box or Discrete, got {env.single_action_space}")
    mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
    if mode == AutoresetMode.DISABLED:
        raise UsageError("vector environment must reset itself; its autoreset mode is DISABLED")
    known = isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
    return mode == AutoresetMode.SAME_STEP, known or bool(env.metadata.get("reset_mask", False))


def _finite_rows(values: np.ndarray) -> np.ndarray:
    """Return for each row ``[N]`` whether all of it is finite."""
    return np.isfinite(values).reshape(len(values), -1).all(axis=1)


def _carried(before: Memory, after: Memory, valid: np.ndarray, forget: np.ndarray) -> Memory:
    """Return the memory after a row: ``before`` where it was no transition, zeros where it is to be forgotten."""
    if valid.all() and not forget.any():
        return after
    carried = {}
    for name, value in after.items():
        # A transformer's memory is large, and its cache the same array before and after: only rows are written.
        carried[name] = kept = value if value.flags.writeable else value.copy()
        if kept is not before[name]:
            kept[~valid] = before[name][~valid]
        kept[forget] = 0.0
    return carried
