"""From what happened in the scenes to rewards, infos and episode metrics.

Two scorers give the same numbers. :class:`ArrayScorer` puts the NumPy functions of
:mod:`racer.envs.highway.reward` and :mod:`racer.envs.highway.episode` together and serves any engine;
:class:`racer.envs.highway.compiled_scoring.CompiledScorer` makes one compiled pass over the simulator's arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from racer.envs.highway.config import safety_config
from racer.envs.highway.engine import Engine, Scenes
from racer.envs.highway.episode import EpisodeRecorder, checked_accounts
from racer.envs.highway.geometry import LANE_WIDTH
from racer.envs.highway.reward import (
    SafetyConfig,
    minimum_distance,
    neighbours_of,
    safety_reward,
    time_to_collision,
    training_reward,
)

__all__ = ["ArrayScorer", "Scorer", "Scoring", "WorldStep"]


@dataclass(frozen=True)
class WorldStep:
    """One step of N environments. ``info`` and ``metrics`` hold arrays ``[N]`` (nested for reward_components).

    ``metrics`` mean something where an episode has ended, and are left out where none has. The arrays are the caller's
    own: nothing writes to them again.
    """

    observations: NDArray[np.float32]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    info: dict[str, Any]
    metrics: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Scoring:
    """The part of a resolved configuration that a scorer needs (see ``config.RACER_DEFAULTS``)."""

    safety: SafetyConfig
    reward: str  # "training" or "base"
    reward_speed_range: tuple[float, float]  # m/s
    forward_speed_range: tuple[float, float]  # m/s
    speed_weight: float
    safety_coeff: float
    normalizer: float  # width of the range that highway-env's normalize_reward maps to [0, 1], 1 without it
    offroad_penalty: float
    max_episode_steps: int
    policy_frequency: float  # Hz
    observation_shape: tuple[int, ...]
    observation_clip: float

    @classmethod
    def parse(cls, config: Mapping[str, Any], observation_shape: tuple[int, ...]) -> Scoring:
        """Read a resolved configuration."""
        width = config["high_speed_reward"] + config["right_lane_reward"] - config["collision_reward"]
        reward_low, reward_high = config["reward_speed_range"]
        forward_low, forward_high = config["forward_speed_range"]
        return cls(
            safety=safety_config(config),
            reward=config["reward"],
            reward_speed_range=(float(reward_low), float(reward_high)),
            forward_speed_range=(float(forward_low), float(forward_high)),
            speed_weight=float(config["speed_weight"]),
            safety_coeff=float(config["safety_coeff"]),
            normalizer=float(width) if config["normalize_reward"] else 1.0,
            offroad_penalty=float(config["offroad_penalty"]),
            max_episode_steps=int(config["max_episode_steps"]),
            policy_frequency=float(config["policy_frequency"]),
            observation_shape=observation_shape,
            observation_clip=float(config["observation_clip"]),
        )


class Scorer(Protocol):
    """Reads an engine after each of its resets and steps, and keeps the accounts of the running episodes."""

    def start(self, indices: NDArray[np.intp]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Open the accounts of ``indices`` [M], whose scenes are new; returns observations and info arrays ``[M]``."""

    def step(self) -> WorldStep:
        """Score the step that the engine has just taken."""

    def observations(self) -> NDArray[np.float32]:
        """Return what all scenes show now, clipped, ``[N, ...]``."""

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Return the accounts as named arrays; the names are the same for every scorer."""

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Return to a state that :func:`racer.envs.highway.episode.checked_accounts` has let through."""


class ArrayScorer:
    """Scores any engine with NumPy functions.

    Args:
        engine: whose scenes are read.
        scoring: what counts.
    """

    def __init__(self, engine: Engine, scoring: Scoring) -> None:
        self._engine = engine
        self._scoring = scoring
        self._all = np.arange(engine.num_envs)
        self._steps = np.zeros(engine.num_envs, dtype=np.int64)
        self._recorder = EpisodeRecorder(engine.num_envs, scoring.policy_frequency)

    def start(self, indices: NDArray[np.intp]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        scenes = self._engine.scenes(indices)
        info = self._describe(scenes)
        self._steps[indices] = 0
        self._recorder.start(indices, scenes.heading, info["min_distance"])
        return self._clip(scenes), info

    def step(self) -> WorldStep:
        scoring = self._scoring
        scenes = self._engine.scenes(self._all)
        self._steps += 1
        info = self._describe(scenes)
        components = self._reward(scenes, info)
        off_road = ~scenes.on_road
        penalty = scoring.offroad_penalty * (scenes.terminated & off_road)
        rewards = components[f"{scoring.reward}_reward"] + penalty
        info["reward_components"] = {**components, "offroad_penalty": penalty}
        truncated = scenes.truncated | (self._steps >= scoring.max_episode_steps)
        self._recorder.add(
            reward=rewards,
            base_reward=scenes.rewards,
            safety_reward=components["safety_reward"],
            speed=scenes.speed,
            forward_speed=info["forward_speed"],
            heading=scenes.heading,
            distance=info["min_distance"],
        )
        ended = scenes.terminated | truncated
        metrics = self._recorder.metrics(scenes.crashed, off_road, ended) if ended.any() else {}
        return WorldStep(self._clip(scenes), rewards, scenes.terminated, truncated, info, metrics)

    def observations(self) -> NDArray[np.float32]:
        return self._clip(self._engine.scenes(self._all))

    def get_state(self) -> dict[str, NDArray[Any]]:
        return {
            "steps": self._steps.copy(),
            **{f"episode/{key}": value for key, value in self._recorder.get_state().items()},
        }

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        accounts = checked_accounts(state, self._engine.num_envs)
        self._steps[:] = accounts["steps"]
        self._recorder.set_state({key.removeprefix("episode/"): value for key, value in accounts.items()})

    def _clip(self, scenes: Scenes) -> NDArray[np.float32]:
        bound = np.float32(self._scoring.observation_clip)
        shaped = scenes.observations.reshape(len(scenes.observations), *self._scoring.observation_shape)
        return np.clip(shaped, -bound, bound, dtype=np.float32)

    def _describe(self, scenes: Scenes) -> dict[str, Any]:
        neighbours = neighbours_of(scenes.rows)
        soonest = np.min(time_to_collision(neighbours, self._scoring.safety), axis=-1, initial=np.inf)
        return {
            "speed": scenes.speed.copy(),
            "forward_speed": scenes.speed * np.cos(scenes.heading),
            "crashed": scenes.crashed.copy(),
            "on_road": scenes.on_road.copy(),
            "lateral_offset": scenes.lateral_offset.copy(),
            "min_distance": minimum_distance(neighbours),
            "time_to_collision": soonest,
        }

    def _reward(self, scenes: Scenes, info: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
        scoring = self._scoring
        off_lane = np.abs(scenes.lateral_offset) > LANE_WIDTH / 2
        return training_reward(
            scenes.rewards.copy(),
            info["forward_speed"],
            scenes.on_road,
            safety_reward(scenes.rows, off_lane, scoring.safety),
            reward_speed_range=scoring.reward_speed_range,
            forward_speed_range=scoring.forward_speed_range,
            speed_weight=scoring.speed_weight,
            safety_coeff=scoring.safety_coeff,
            normalizer=scoring.normalizer,
        ).as_dict()
