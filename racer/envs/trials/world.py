"""The rules of trial mode: trials, limbo, rewards, metrics and exact states, for both gymnasium faces.

A trial ends when the ego is off the road (it reached the goal, crashed or missed the lane) or its clock has run out.
While trials remain the next one begins within the step, from the same start. The last one ends the episode, and the ego
stays in limbo until the window of K * L steps is over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.envs.highway.simulator import layout as at
from racer.envs.trials.config import TrialsConfig
from racer.envs.trials.metrics import episode_metrics
from racer.envs.trials.observation import observation_space, observe
from racer.envs.trials.partners import Partners
from racer.envs.trials.population import Population
from racer.envs.trials.recorded import Recorded
from racer.envs.trials.scenes import HOLD, LANE_HALF, LANE_WIDTH, make_scene, make_simulator

__all__ = ["ENDS", "TrialWorld", "WorldStep", "trial_spaces"]

ENDS = ("goal_reached", "crashed", "timed_out", "missed")
"""How a trial ends."""

_MOST_SEED = 2**31


class WorldStep(NamedTuple):
    """What a step led to; ``[N]`` each.

    Attributes:
        observations: ``[N, D]``, after any reset: a step that ends a trial shows the first moment of the next.
        final_observations: ``[N, D]``, before it.
        rewards: of the step; 0 in limbo.
        terminals: whether the episode ended.
        truncations: whether a trial ended.
        limbo: whether the ego was off the road during the step.
        window_ends: whether the window is over, so that the next episode is to be begun.
        info: of the step.
        metrics: of the episodes, where they ended; empty where none did.
    """

    observations: NDArray[np.float32]
    final_observations: NDArray[np.float32]
    rewards: NDArray[np.float64]
    terminals: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    limbo: NDArray[np.bool_]
    window_ends: NDArray[np.bool_]
    info: dict[str, NDArray[Any]]
    metrics: dict[str, NDArray[np.float64]]


def trial_spaces(config: TrialsConfig) -> tuple[spaces.Box, spaces.Space]:
    """Return the spaces of one environment's observations and actions."""
    actions = spaces.Discrete(5) if config.actions == "choices" else spaces.Box(-1.0, 1.0, (2,), np.float32)
    return observation_space(config), actions


class TrialWorld:
    """N environments, each with one ego.

    Args:
        config: checked.
        num_envs: N.
        drawing: keys of the highway that only concern pictures.

    Attributes:
        before_next: called before next trials begin within a step, while the world still shows how the last ones ended.
    """

    def __init__(self, config: TrialsConfig, num_envs: int, drawing: Mapping[str, Any] | None = None) -> None:
        self.config, self.num_envs = config, num_envs
        self.scene = make_scene(config)
        self.simulator = make_simulator(config, num_envs, drawing)
        self.simulator.reset([0] * num_envs)
        self.population = _population(config, num_envs, self.scene.distance)
        k = config.k_scenarios
        self._arms = np.array(config.arms or range(config.arm_count), np.int64)
        self._counts = {
            name: np.zeros(num_envs, np.int64)
            for name in ("trial", "clock", "window", "removed", "steps", *(f"ends/{name}" for name in ENDS))
        }
        self._drawn = {name: np.zeros((num_envs, k), np.int64) for name in ("seeds", "arms", "scores")}
        self._reals = {name: np.zeros(num_envs) for name in ("start", "reward", "return")}
        self.before_next: Callable[[], None] = lambda: None
        self._begin_trials(np.arange(num_envs))

    # what drivers and films may read

    @property
    def trial(self) -> NDArray[np.int64]:
        """``[N]``, the running trial, counted from 0."""
        return self._counts["trial"]

    @property
    def clock(self) -> NDArray[np.int64]:
        """``[N]``, steps of the running trial."""
        return self._counts["clock"]

    @property
    def removed(self) -> NDArray[np.bool_]:
        """``[N]``, whether the ego is off the road, in limbo."""
        return self._counts["removed"] > 0

    @property
    def arm(self) -> NDArray[np.int64]:
        """``[N]``, the type of the running trial."""
        return self._drawn["arms"][np.arange(self.num_envs), self.trial]

    @property
    def goal_lane(self) -> NDArray[np.int64]:
        """``[N]``, the lane that counts."""
        return self.scene.goal_lane(self.arm)

    @property
    def travelled(self) -> NDArray[np.float64]:
        """``[N]`` m from the start."""
        return self.simulator.ego_position[:, 0] - self._reals["start"]

    def begin(self, indices: Sequence[int] | NDArray[np.intp], generators: Sequence[np.random.Generator]) -> None:
        """Begin episodes at ``indices`` ``[M]``; scene and type come from each one's generator ``[M]``."""
        k, chosen = self.config.k_scenarios, np.asarray(indices, np.int64)
        for i, generator in zip(chosen, generators, strict=True):
            # All is drawn whatever is used, so that controls meet the same scenes and types in their first trials.
            seeds, arms = generator.integers(_MOST_SEED, size=k), generator.integers(len(self._arms), size=k)
            self._drawn["seeds"][i] = seeds if self.config.redraw == "scene" else seeds[0]
            self._drawn["arms"][i] = self._arms[arms if self.config.redraw == "arm" else arms[0]]
            self._drawn["scores"][i] = 0
        for values in (*self._counts.values(), self._reals["return"], self._reals["reward"]):
            values[chosen] = 0
        self._begin_trials(chosen)

    def observe(self) -> NDArray[np.float32]:
        """Return observations ``[N, D]``; zeros in limbo."""
        simulator, config = self.simulator, self.config
        real, whole = simulator.ego_rows
        target_lane = whole[at.TARGET_LANE] if config.actions == "choices" else whole[at.LANE]
        shown = observe(
            config, simulator.shown, 1.0 - self.travelled / self.scene.distance, target_lane, real[at.TARGET_SPEED],
            self.clock, self.arm, self._reals["reward"],
        )  # fmt: skip
        shown[self.removed] = 0.0
        return shown

    def step(self, actions: NDArray[Any], on_frame: Callable[[], None] | None = None) -> WorldStep:
        """Take one step with choices ``[N]`` or actions ``[N, 2]``; the next episodes are yet to be begun.

        Raises:
            UsageError: actions of another shape or out of range.
        """
        limbo, counts = self.removed, self._counts
        before = self.travelled.copy()
        self._advance(self._safe(np.asarray(actions), limbo), on_frame)
        counts["clock"] += ~limbo
        counts["steps"] += ~limbo
        counts["window"] += 1
        ends = self._ends(limbo)
        done = np.logical_or.reduce(list(ends.values()))
        rewards = self._rewards(ends, before, limbo)
        self._reals["return"] += rewards
        self._reals["reward"][:] = rewards
        for name, happened in ends.items():
            counts[f"ends/{name}"] += happened
        self._drawn["scores"][ends["goal_reached"], self.trial[ends["goal_reached"]]] = 1
        over = done & (self.trial == self.config.k_scenarios - 1)
        info = self._info(ends)
        metrics = self._metrics() if over.any() else {}
        final = self.observe()
        counts["removed"][over] = 1
        again = np.flatnonzero(done & ~over)
        if len(again):
            if not self.config.carry_reward:
                self._reals["reward"][again] = 0.0
            self.before_next()
            counts["trial"][again] += 1
            self._begin_trials(again)
        window_ends = counts["window"] >= self.config.window if self.config.fill_window else over
        return WorldStep(self.observe(), final, rewards, over, done, limbo, window_ends, info, metrics)

    def get_state(self, generators: Sequence[np.random.Generator]) -> dict[str, NDArray[Any]]:
        """Return everything that decides how the environments go on, as flat named arrays."""
        text = json.dumps([generator.bit_generator.state for generator in generators])
        own = {name: values.copy() for name, values in self._own().items()}
        inner = {f"simulator/{name}": values for name, values in self.simulator.get_state().items()}
        return {**own, **inner, "generators": np.frombuffer(text.encode(), dtype=np.uint8).copy()}

    def set_state(self, state: Mapping[str, NDArray[Any]], generators: Sequence[np.random.Generator]) -> None:
        """Return to :meth:`get_state` exactly.

        Raises:
            UsageError: an array is missing, belongs to other environments, or holds what no state can hold.
        """
        own = {name: _like(state, name, values) for name, values in self._own().items()}
        self._check(own)
        saved = _generator_states(state, len(generators))
        prefix = "simulator/"
        self.simulator.set_state({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
        for name, values in self._own().items():
            values[...] = own[name]
        for generator, words in zip(generators, saved, strict=True):
            generator.bit_generator.state = words

    def _advance(self, actions: NDArray[Any], on_frame: Callable[[], None] | None) -> None:
        """Let everybody drive for a step."""
        simulator, population = self.simulator, self.population
        population.choose(simulator, self.clock)
        if not population.moves:
            simulator.step(actions, on_frame)
            return
        frames = self.clock * int(simulator.parameters.wholes[at.FRAMES])

        def move() -> None:
            frames[:] += 1
            population.move(simulator, frames)
            if on_frame is not None:
                on_frame()

        simulator.step(actions, move)
        frames += 1
        population.move(simulator, frames)
        simulator.show(np.arange(self.num_envs))

    def _own(self) -> dict[str, NDArray[Any]]:
        return {**self._counts, **self._drawn, **self._reals, **self.population.arrays()}

    def _check(self, own: Mapping[str, NDArray[Any]]) -> None:
        config = self.config
        limits = {"trial": config.k_scenarios, "clock": config.length + 1, "window": config.window + 1, "removed": 2}
        limits |= {"steps": config.window + 1, "arms": config.arm_count, "seeds": _MOST_SEED, "scores": 2}
        limits |= {f"ends/{name}": config.k_scenarios + 1 for name in ENDS}
        ranges = {name: (0, limit) for name, limit in limits.items()} | self.population.limits()
        for name, values in own.items():
            low, high = ranges.get(name, (-np.inf, np.inf))
            sound = np.isfinite(values) & (values >= low) & (values < high)
            if not sound.all():
                raise UsageError(f"the state's {name!r} holds {values[~sound][0]}, which no episode reaches")

    def _begin_trials(self, indices: NDArray[np.int64]) -> None:
        """Begin the running trial's scene in ``indices``: the one routine for the first trial and every later one."""
        simulator, arms, trial = self.simulator, self.arm, self.trial
        simulator.reset([int(self._drawn["seeds"][i, trial[i]]) for i in indices], indices)
        for i in indices:
            seed = int(self._drawn["seeds"][i, trial[i]])
            self.scene.begin(simulator, int(i), seed, int(arms[i]))
            self.population.begin(simulator, int(i), seed, int(trial[i]))
        simulator.show(indices)
        self._counts["clock"][indices] = 0
        self._reals["start"][indices] = simulator.ego_position[indices, 0]

    def _ends(self, limbo: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
        """Return in which environments the trial ended, by how; at most one of them each."""
        simulator, travelled = self.simulator, self.travelled
        inside = np.abs(simulator.ego_position[:, 1] - LANE_WIDTH * self.goal_lane) < LANE_HALF
        crashed = (simulator.ego_crashed | ~simulator.ego_on_road) & ~limbo
        missed = (travelled >= self.scene.distance - HOLD) & ~inside & ~crashed & ~limbo
        reached = (travelled >= self.scene.distance) & inside & ~crashed & ~limbo
        timed_out = (self.clock >= self.config.length) & ~(crashed | missed | reached | limbo)
        return {"goal_reached": reached, "crashed": crashed, "timed_out": timed_out, "missed": missed}

    def _rewards(
        self, ends: Mapping[str, NDArray[np.bool_]], before: NDArray[np.float64], limbo: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        config, distance = self.config, self.scene.distance
        way = (np.minimum(self.travelled, distance) - np.minimum(before, distance)) / distance
        rewards = config.progress_reward * way
        held = np.clip(self.travelled, distance - HOLD, distance) - np.clip(before, distance - HOLD, distance)
        rewards += config.hold_reward * held / HOLD * ~(ends["missed"] | ends["crashed"])
        rewards += config.goal_reward * ends["goal_reached"]
        rewards += config.crash_reward * ends["crashed"] + config.miss_reward * ends["missed"]
        return np.where(limbo, 0.0, rewards)

    def _info(self, ends: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[Any]]:
        return {
            "trial": self.trial.copy(),
            "trial_type": self.arm,
            "speed": self.simulator.ego_speed.copy(),
            **{name: values.copy() for name, values in ends.items()},
        }

    def _metrics(self) -> dict[str, NDArray[np.float64]]:
        ends = {name: self._counts[f"ends/{name}"] for name in ENDS}
        steps = self._counts["steps"]
        base = {"return": self._reals["return"].copy(), "length": steps.astype(np.float64)}
        return {**base, **episode_metrics(self._drawn["scores"], ends, steps)}

    def _safe(self, actions: NDArray[Any], limbo: NDArray[np.bool_]) -> NDArray[Any]:
        """Return actions with those of egos in limbo set to doing nothing."""
        if self.config.actions == "choices":
            if actions.shape != (self.num_envs,):
                raise UsageError(f"actions must have the shape {(self.num_envs,)}, got {actions.shape}")
            return np.where(limbo, at.IDLE, actions)
        if actions.shape != (self.num_envs, 2) or not np.isfinite(actions).all():
            raise UsageError(f"actions must be finite numbers [{self.num_envs}, 2], got shape {list(actions.shape)}")
        return np.where(limbo[:, None], 0.0, actions)


def _population(config: TrialsConfig, num_envs: int, distance: float) -> Population:
    if config.population == "partners":
        return Partners(config, num_envs, distance)
    return Recorded(config, num_envs) if config.population == "recorded" else Population()


def _like(state: Mapping[str, NDArray[Any]], name: str, own: NDArray[Any]) -> NDArray[Any]:
    if name not in state:
        raise UsageError(f"the state of the environments lacks {name!r}")
    given = np.asarray(state[name])
    if given.shape != own.shape or given.dtype != own.dtype:
        raise UsageError(f"the state's {name!r} is {given.dtype} {given.shape}, not {own.dtype} {own.shape}")
    return given


def _generator_states(state: Mapping[str, NDArray[Any]], count: int) -> list[dict[str, Any]]:
    """Return the states of ``count`` generators, each tried on one that is thrown away."""
    try:
        saved = json.loads(bytes(np.asarray(state["generators"], np.uint8)).decode())
        if not isinstance(saved, list) or len(saved) != count:
            raise ValueError(f"not {count} generators")
        for words in saved:
            np.random.PCG64(0).state = words
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"the state's 'generators' are none: {error}") from error
    return saved
