"""The exact compiled simulator as an engine: highway-env's own trajectories, far faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from racer.envs.highway.config import action_names, highway_config
from racer.envs.highway.engine import Scenes, scene_observation, shows_scene
from racer.envs.highway.geometry import VEHICLE_LENGTH, VEHICLE_WIDTH
from racer.envs.highway.simulator import HighwaySimulator

__all__ = ["CompiledEngine"]


class CompiledEngine:
    """Steps all scenes in one compiled call.

    Args:
        config: a resolved configuration.
        num_envs: N.
        num_threads: threads that share a step.

    Raises:
        UsageError: for a configuration that the simulator does not cover, naming the key.
    """

    def __init__(self, config: Mapping[str, Any], num_envs: int, num_threads: int = 1) -> None:
        self.num_envs = num_envs
        self.simulator = HighwaySimulator(
            highway_config(config),
            num_envs,
            fast=config["scenario"] == "highway-fast-v0",
            num_threads=num_threads,
        )
        self.single_action_space = action_space(config["action"])
        shared = shows_scene(config["observation"])
        scene = self.simulator.observation_spec(scene_observation(config["observation"]))
        self._scene_spec = None if shared else scene
        self._rows = self.simulator.shown if shared else scene.buffer(num_envs)

    def reset(self, seeds: Sequence[int | None], indices: NDArray[np.intp]) -> None:
        self.simulator.reset(seeds, indices)

    def step(self, actions: NDArray[Any], on_frame: Callable[[], None] | None = None) -> None:
        self.simulator.step(actions, on_frame)

    def arrays(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return ``Scenes.rows`` and ``Scenes.observations`` of all scenes, brought up to date in ``indices``.

        Both are the engine's own memory: they are overwritten by the next call of anything.
        """
        if self._scene_spec is not None:
            self.simulator.observe_into(self._scene_spec, indices, self._rows)
        return self._rows, self.simulator.shown

    def scenes(self, indices: NDArray[np.intp]) -> Scenes:
        simulator = self.simulator
        rows, observations = self.arrays(np.asarray(indices, dtype=np.int64))
        return Scenes(
            observations=observations[indices],
            rows=rows[indices],
            rewards=simulator.rewards[indices],
            terminated=simulator.terminated[indices],
            truncated=simulator.truncated[indices],
            speed=simulator.ego_speed[indices],
            heading=simulator.ego_heading[indices],
            crashed=simulator.ego_crashed[indices],
            on_road=simulator.ego_on_road[indices],
            lateral_offset=simulator.ego_lateral_offset[indices],
        )

    def cars(self, index: int) -> NDArray[np.float64]:
        scene = self.simulator.scene(index)
        size = np.broadcast_to([VEHICLE_LENGTH, VEHICLE_WIDTH], (len(scene["x"]), 2))
        return np.column_stack([scene["x"], scene["y"], scene["heading"], size, scene["crashed"]])

    def render(self, index: int) -> NDArray[np.uint8]:
        return self.simulator.render(index)

    def get_state(self) -> dict[str, NDArray[Any]]:
        return self.simulator.get_state()

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.simulator.set_state(state)

    def close(self) -> None:
        self.simulator.close()


def action_space(action: Mapping[str, Any]) -> spaces.Space:
    """Return the action space of one environment (highway_env/envs/common/action.py)."""
    axes = int(action.get("longitudinal", True)) + int(action.get("lateral", True))
    if action["type"] == "ContinuousAction":
        return spaces.Box(-1.0, 1.0, (len(action_names(action)),), np.float32)
    if action["type"] == "DiscreteAction":
        return spaces.Discrete(int(action.get("actions_per_axis", 3)) ** axes)
    return spaces.Discrete(5 if axes == 2 else 3)
