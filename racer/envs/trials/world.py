"""The rules of trial mode: trials, limbo, rewards, metrics and exact states, for both gymnasium faces.

An ego that reached the goal, crashed or missed the lane is off the road, in limbo, for what is left of the trial. A
trial ends when all egos of the environment are, or its clock has run out. While trials remain the next one begins
within the step, from the same start. The last one ends the episode, and its egos stay in limbo until the window of
K * L steps is over.
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
from racer.envs.trials.egos import Egos
from racer.envs.trials.metrics import episode_metrics
from racer.envs.trials.observation import observation_space, observe
from racer.envs.trials.partners import Partners
from racer.envs.trials.population import Population
from racer.envs.trials.recorded import Recorded
from racer.envs.trials.scenes import HOLD, LANE_HALF, LANE_WIDTH, make_scene, make_simulator

__all__ = ["ENDS", "TrialWorld", "WorldStep", "trial_spaces"]

ENDS = ("goal_reached", "crashed", "timed_out", "missed")
"""How a trial ends for an ego."""

_MOST_SEED = 2**31


class WorldStep(NamedTuple):
    """What a step led to; ``[N]`` each, a row an ego.

    Attributes:
        observations: ``[N, D]``, after any reset: a step that ends a trial shows the first moment of the next.
        final_observations: ``[N, D]``, before it where an episode ended; else the same.
        rewards: of the step; 0 in limbo.
        terminals: whether the episode ended.
        trial_ends: whether the environment's trial ended.
        limbo: whether the ego was off the road during the step.
        removed: whether it is after the step.
        window_ends: whether the window is over, so that the next episode is to be begun.
        info: of the step.
        metrics: of the episodes, where they ended; empty where none did.
    """

    observations: NDArray[np.float32]
    final_observations: NDArray[np.float32]
    rewards: NDArray[np.float64]
    terminals: NDArray[np.bool_]
    trial_ends: NDArray[np.bool_]
    limbo: NDArray[np.bool_]
    removed: NDArray[np.bool_]
    window_ends: NDArray[np.bool_]
    info: dict[str, NDArray[Any]]
    metrics: dict[str, NDArray[np.float64]]


def trial_spaces(config: TrialsConfig) -> tuple[spaces.Box, spaces.Space]:
    """Return the spaces of one environment's observations and actions."""
    actions = spaces.Discrete(5) if config.actions == "choices" else spaces.Box(-1.0, 1.0, (2,), np.float32)
    return observation_space(config), actions


class TrialWorld:
    """E environments of A egos each; N = E * A rows, ego j of environment e in row e * A + j.

    Args:
        config: checked.
        num_envs: E.
        drawing: keys of the highway that only concern pictures.

    Attributes:
        before_next: called before next trials begin within a step, while the world still shows how the last ones ended.
    """

    def __init__(self, config: TrialsConfig, num_envs: int, drawing: Mapping[str, Any] | None = None) -> None:
        self.config, self.num_envs = config, num_envs
        self.scene = make_scene(config)
        self.simulator = make_simulator(config, num_envs, drawing)
        self.simulator.reset([0] * num_envs)
        self.egos = Egos(self.simulator, config.egos, config.vehicles_seen)
        self.population = _population(config, num_envs, self.scene.distance)
        k, rows = config.k_scenarios, num_envs * config.egos
        self._arms = np.array(config.arms or range(config.arm_count), np.int64)
        self._counts = {name: np.zeros(num_envs, np.int64) for name in ("trial", "clock", "window")}
        self._counts |= {
            name: np.zeros(rows, np.int64) for name in ("removed", "steps", *(f"ends/{name}" for name in ENDS))
        }
        self._drawn = {name: np.zeros((num_envs, k), np.int64) for name in ("seeds", "arms")}
        self._drawn["scores"] = np.zeros((rows, k), np.int64)
        self._reals = {name: np.zeros(rows) for name in ("start", "reward", "return")}
        self.before_next: Callable[[], None] = lambda: None
        self._begin_trials(np.arange(num_envs))

    # what drivers and films may read

    @property
    def trial(self) -> NDArray[np.int64]:
        """``[N]``, the running trial, counted from 0."""
        return self._counts["trial"][self.egos.envs]

    @property
    def clock(self) -> NDArray[np.int64]:
        """``[N]``, steps of the running trial."""
        return self._counts["clock"][self.egos.envs]

    @property
    def removed(self) -> NDArray[np.bool_]:
        """``[N]``, whether the ego is off the road, in limbo."""
        return self._counts["removed"] > 0

    @property
    def followed(self) -> int:
        """Row of the first environment that pictures follow: its first ego on the road; the first ego where none is."""
        return int(np.argmin(self.removed[: self.config.egos]))

    @property
    def arm(self) -> NDArray[np.int64]:
        """``[N]``, the type of the running trial."""
        return self._drawn["arms"][self.egos.envs, self.trial]

    @property
    def goal_lane(self) -> NDArray[np.int64]:
        """``[N]``, the lane that counts."""
        return self.scene.goal_lane(self.arm)

    @property
    def _in_goal_lane(self) -> NDArray[np.bool_]:
        return np.abs(self.egos.real(at.Y) - LANE_WIDTH * self.goal_lane) < LANE_HALF

    @property
    def travelled(self) -> NDArray[np.float64]:
        """``[N]`` m from the start."""
        return self.egos.real(at.X) - self._reals["start"]

    def begin(self, indices: Sequence[int] | NDArray[np.intp], generators: Sequence[np.random.Generator]) -> None:
        """Begin episodes in environments ``indices`` ``[M]``; scene and type come from each one's generator ``[M]``."""
        k, chosen = self.config.k_scenarios, np.asarray(indices, np.int64)
        for i, generator in zip(chosen, generators, strict=True):
            # All is drawn whatever is used, so that controls meet the same scenes and types in their first trials.
            seeds, arms = generator.integers(_MOST_SEED, size=k), generator.integers(len(self._arms), size=k)
            self._drawn["seeds"][i] = seeds if self.config.redraw == "scene" else seeds[0]
            self._drawn["arms"][i] = self._arms[arms if self.config.redraw == "arm" else arms[0]]
        rows = np.isin(self.egos.envs, chosen)
        self._drawn["scores"][rows] = 0
        for values in (*self._counts.values(), self._reals["return"], self._reals["reward"]):
            values[chosen if len(values) == self.num_envs else rows] = 0
        self._begin_trials(chosen)

    def observe(self) -> NDArray[np.float32]:
        """Return observations ``[N, D]``; zeros in limbo."""
        egos, config = self.egos, self.config
        target_lane = egos.whole(at.TARGET_LANE if config.actions == "choices" else at.LANE)
        shown = observe(
            config, egos.shown(), 1.0 - self.travelled / self.scene.distance, target_lane, egos.real(at.TARGET_SPEED),
            self.clock, self.arm, self._reals["reward"],
        )  # fmt: skip
        shown[self.removed] = 0.0
        return shown

    def step(self, actions: NDArray[Any], on_frame: Callable[[], None] | None = None) -> WorldStep:
        """Take one step with choices ``[N]`` or actions ``[N, 2]``; the next episodes are yet to be begun.

        Raises:
            UsageError: actions of another shape or out of range.
        """
        limbo, counts, envs = self.removed, self._counts, self.egos.envs
        waiting = self._all(limbo)
        before = self.travelled
        self._advance(self.egos.choose(self._safe(np.asarray(actions), limbo)), on_frame)
        counts["clock"] += ~waiting
        counts["steps"] += ~limbo
        counts["window"] += 1
        ends = self._ends(limbo)
        done = np.logical_or.reduce(list(ends.values()))
        rewards = self._rewards(ends, before, limbo)
        self._reals["return"] += rewards
        # What an ego was paid last is what its next trial shows it, however long it was in limbo.
        self._reals["reward"][~limbo] = rewards[~limbo]
        for name, happened in ends.items():
            counts[f"ends/{name}"] += happened
        self._drawn["scores"][ends["goal_reached"], self.trial[ends["goal_reached"]]] = 1
        ended = self._all(limbo | done) & ~waiting
        over = ended & (counts["trial"] == self.config.k_scenarios - 1)
        info = self._info(ends)
        metrics, final = (self._metrics(), self.observe()) if over.any() else ({}, None)
        counts["removed"][done] = 1
        self.egos.remove(np.flatnonzero(done & ~ended[envs]))
        self._go_on(ended & ~over)
        window_ends = counts["window"] >= self.config.window if self.config.fill_window else over
        shown = self.observe()
        return WorldStep(
            shown, shown if final is None else final, rewards, over[envs], ended[envs], limbo, self.removed,
            window_ends[envs], info, metrics,
        )  # fmt: skip

    def _go_on(self, again: NDArray[np.bool_]) -> None:
        """Begin the next trial in environments ``again`` ``[E]``."""
        if not again.any():
            return
        rows = again[self.egos.envs]
        if not self.config.carry_reward:
            self._reals["reward"][rows] = 0.0
        self.before_next()
        self._counts["trial"][again] += 1
        self._counts["removed"][rows] = 0
        self._begin_trials(np.flatnonzero(again))

    def _all(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return for each environment ``[E]`` whether it holds for all of its rows ``[N]``."""
        return np.asarray(rows if self.config.egos == 1 else rows.reshape(self.num_envs, -1).all(axis=1), bool)

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
        population.choose(simulator, self._counts["clock"])
        if not population.moves:
            simulator.step(actions, on_frame)
            return
        frames = self._counts["clock"] * int(simulator.parameters.wholes[at.FRAMES])

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
        """Begin the running trial's scene in environments ``indices``: the one routine for first and later trials."""
        simulator, trial = self.simulator, self._counts["trial"]
        simulator.reset([int(self._drawn["seeds"][i, trial[i]]) for i in indices], indices)
        for i in indices:
            seed = int(self._drawn["seeds"][i, trial[i]])
            self.scene.begin(simulator, int(i), seed, int(self._drawn["arms"][i, trial[i]]))
            self.egos.begin(int(i))
            self.population.begin(simulator, int(i), seed, int(trial[i]))
        simulator.show(indices)
        self._counts["clock"][indices] = 0
        rows = np.isin(self.egos.envs, indices)
        self._reals["start"][rows] = self.egos.real(at.X)[rows]

    def _ends(self, limbo: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
        """Return for which egos the trial ended, by how; at most one of them each."""
        egos, travelled, inside = self.egos, self.travelled, self._in_goal_lane
        crashed = ((egos.whole(at.CRASHED) != 0) | ~egos.on_road) & ~limbo
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
        first = distance - config.hold_length
        held = np.clip(self.travelled, first, distance) - np.clip(before, first, distance)
        rewards += config.hold_reward * held / config.hold_length * (self._in_goal_lane & ~ends["crashed"])
        rewards += config.goal_reward * ends["goal_reached"]
        rewards += config.crash_reward * ends["crashed"] + config.miss_reward * ends["missed"]
        return np.where(limbo, 0.0, rewards)

    def _info(self, ends: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[Any]]:
        return {
            "trial": self.trial,
            "trial_type": self.arm,
            "speed": self.egos.real(at.SPEED),
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
            if actions.shape != limbo.shape:
                raise UsageError(f"actions must have the shape {limbo.shape}, got {actions.shape}")
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
