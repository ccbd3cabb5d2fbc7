"""The RACER highway, batched and without automatic resets: engine, shaped reward and episode metrics joined.

Both gymnasium faces, the single environment and the vector one, are thin layers over :class:`RiskWorld`, so they
cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from racer.envs.highway.config import action_names, resolve_config, safety_config
from racer.envs.highway.engine import Engine, Scenes, make_engine
from racer.envs.highway.episode import EpisodeRecorder
from racer.envs.highway.geometry import LANE_WIDTH
from racer.envs.highway.reward import (
    minimum_distance,
    neighbours_of,
    safety_reward,
    time_to_collision,
    training_reward,
)

__all__ = ["RiskWorld", "WorldStep"]


@dataclass(frozen=True)
class WorldStep:
    """One step of N environments. ``info`` and ``metrics`` hold arrays ``[N]`` (nested for reward_components)."""

    observations: NDArray[np.float32]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    info: dict[str, Any]
    metrics: dict[str, NDArray[np.float64]]


class RiskWorld:
    """N highway scenes with RACER's observation, reward and episode ends.

    Args:
        config: overrides of :func:`racer.envs.highway.config.default_config`.
        num_envs: N.

    Raises:
        UsageError: for a configuration that is wrong, or that the chosen engine does not cover.
    """

    def __init__(self, config: Mapping[str, Any] | None, num_envs: int) -> None:
        self.config = resolve_config(config)
        self.num_envs = num_envs
        self.action_names = action_names(self.config["action"])
        self.engine: Engine = make_engine(self.config, num_envs)
        self.action_space = self._action_space()
        self.observation_space = self._observation_space()
        self._safety = safety_config(self.config)
        self._recorder = EpisodeRecorder(num_envs, float(self.config["policy_frequency"]))
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._normalizer = self._reward_range() if self.config["normalize_reward"] else 1.0

    def reset(
        self, seeds: Sequence[int | None], indices: NDArray[np.intp] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start episodes in ``indices`` (all by default); returns their observations and info arrays."""
        indices = np.arange(self.num_envs) if indices is None else indices
        scenes = self.engine.reset(seeds, indices)
        info = self._describe(scenes)
        self._steps[indices] = 0
        self._recorder.start(indices, scenes.heading, info["min_distance"])
        return self._observe(scenes), info

    def step(self, actions: NDArray[Any], on_frame: Callable[[], None] | None = None) -> WorldStep:
        """Take one policy step in every environment.

        Args:
            actions: ``[N, A]`` in [-1, 1] for continuous control (order as in ``action_names``), else ``[N]``.
            on_frame: called after every simulation frame but the last, for filming.
        """
        scenes = self.engine.step(actions, on_frame)
        self._steps += 1
        info = self._describe(scenes)
        components = self._reward(scenes, info)
        off_road = ~scenes.on_road
        penalty = self.config["offroad_penalty"] * (scenes.terminated & off_road)
        rewards = components[f"{self.config['reward']}_reward"] + penalty
        info["reward_components"] = {**components, "offroad_penalty": penalty}
        truncated = scenes.truncated | (self._steps >= self.config["max_episode_steps"])
        self._recorder.add(
            reward=rewards,
            base_reward=scenes.rewards,
            safety_reward=components["safety_reward"],
            speed=scenes.speed,
            forward_speed=info["forward_speed"],
            heading=scenes.heading,
            distance=info["min_distance"],
        )
        metrics = self._recorder.metrics(scenes.crashed, off_road, scenes.terminated | truncated)
        return WorldStep(self._observe(scenes), rewards, scenes.terminated, truncated, info, metrics)

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides how the environments go on, as flat named arrays."""
        return {
            "steps": self._steps.copy(),
            **{f"episode/{k}": v for k, v in self._recorder.get_state().items()},
            **{f"engine/{k}": v for k, v in self.engine.get_state().items()},
        }

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return to :meth:`get_state` exactly; returns the observations there."""
        self._steps[:] = state["steps"]
        self._recorder.set_state(_part(state, "episode/"))
        return self._observe(self.engine.set_state(_part(state, "engine/")))

    def _action_space(self) -> spaces.Space:
        space = self.engine.single_action_space
        return space if isinstance(space, spaces.Discrete) else spaces.Box(-1.0, 1.0, space.shape, np.float32)

    def _observation_space(self) -> spaces.Box:
        observation = self.config["observation"]
        features = observation.get("features") or ("presence", "x", "y", "vx", "vy")
        rows, columns = observation.get("vehicles_count", 5), len(features)
        shape = (rows * columns,) if self.config["flatten_observation"] else (rows, columns)
        bound = float(self.config["observation_clip"])
        return spaces.Box(-bound, bound, shape, np.float32)

    def _reward_range(self) -> float:
        """Width of the range that highway-env's normalize_reward maps to [0, 1]."""
        config = self.config
        return float(config["high_speed_reward"] + config["right_lane_reward"] - config["collision_reward"])

    def _observe(self, scenes: Scenes) -> NDArray[np.float32]:
        bound = self.observation_space.high.flat[0]
        flat = scenes.observations.reshape(len(scenes.observations), *self.observation_space.shape)
        return np.clip(flat, -bound, bound, dtype=np.float32)

    def _describe(self, scenes: Scenes) -> dict[str, Any]:
        neighbours = neighbours_of(scenes.rows)
        return {
            "speed": scenes.speed.copy(),
            "forward_speed": scenes.speed * np.cos(scenes.heading),
            "crashed": scenes.crashed.copy(),
            "on_road": scenes.on_road.copy(),
            "lateral_offset": scenes.lateral_offset.copy(),
            "min_distance": minimum_distance(neighbours),
            "time_to_collision": np.min(time_to_collision(neighbours, self._safety), axis=-1, initial=np.inf),
        }

    def _reward(self, scenes: Scenes, info: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
        off_lane = np.abs(scenes.lateral_offset) > LANE_WIDTH / 2
        config = self.config
        return training_reward(
            scenes.rewards.copy(),
            info["forward_speed"],
            scenes.on_road,
            safety_reward(scenes.rows, off_lane, self._safety),
            reward_speed_range=tuple(config["reward_speed_range"]),
            forward_speed_range=tuple(config["forward_speed_range"]),
            speed_weight=float(config["speed_weight"]),
            safety_coeff=float(config["safety_coeff"]),
            normalizer=self._normalizer,
        ).as_dict()


def _part(state: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
