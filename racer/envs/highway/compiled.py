"""The exact compiled simulator as an engine: highway-env's own trajectories, far faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from racer.envs.highway.config import action_names, highway_config
from racer.envs.highway.engine import Scenes, scene_observation, shows_scene
from racer.envs.highway.simulator import HighwaySimulator

__all__ = ["CompiledEngine"]


class CompiledEngine:
    """Steps all scenes in one compiled call.

    Raises:
        UsageError: for a configuration that the simulator does not cover, naming the key.
    """

    def __init__(self, config: Mapping[str, Any], num_envs: int) -> None:
        self.num_envs = num_envs
        self.simulator = HighwaySimulator(
            highway_config(config), num_envs, fast=config["scenario"] == "highway-fast-v0"
        )
        self.single_action_space = action_space(config["action"])
        shared = shows_scene(config["observation"])
        scene = scene_observation(config["observation"])
        self._scene_spec = None if shared else self.simulator.observation_spec(scene)

    def reset(self, seeds: Sequence[int | None], indices: NDArray[np.intp]) -> Scenes:
        self.simulator.reset(seeds, indices)
        return self._read(indices)

    def step(self, actions: NDArray[Any], on_frame: Callable[[], None] | None = None) -> Scenes:
        self.simulator.step(actions, on_frame)
        return self._read(None)

    def render(self, index: int) -> NDArray[np.uint8]:
        return self.simulator.render(index)

    def get_state(self) -> dict[str, NDArray[Any]]:
        return self.simulator.get_state()

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> Scenes:
        self.simulator.set_state(state)
        return self._read(None)

    def close(self) -> None:
        self.simulator.close()

    def _read(self, indices: NDArray[np.intp] | None) -> Scenes:
        simulator = self.simulator
        chosen = slice(None) if indices is None else indices
        observations = simulator.observe()[chosen]
        rows = observations if self._scene_spec is None else simulator.observe(self._scene_spec)[chosen]
        return Scenes(
            observations=observations,
            rows=rows,
            rewards=simulator.rewards[chosen].copy(),
            terminated=simulator.terminated[chosen].copy(),
            truncated=simulator.truncated[chosen].copy(),
            speed=simulator.ego_speed[chosen].copy(),
            heading=simulator.ego_heading[chosen].copy(),
            crashed=simulator.ego_crashed[chosen].copy(),
            on_road=simulator.ego_on_road[chosen].copy(),
            lateral_offset=simulator.ego_lateral_offset[chosen].copy(),
        )


def action_space(action: Mapping[str, Any]) -> spaces.Space:
    """Return the action space of one environment (highway_env/envs/common/action.py)."""
    axes = int(action.get("longitudinal", True)) + int(action.get("lateral", True))
    if action["type"] == "ContinuousAction":
        return spaces.Box(-1.0, 1.0, (len(action_names(action)),), np.float32)
    if action["type"] == "DiscreteAction":
        return spaces.Discrete(int(action.get("actions_per_axis", 3)) ** axes)
    return spaces.Discrete(5 if axes == 2 else 3)
