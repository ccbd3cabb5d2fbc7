"""``racer/RiskHighway-v0``, one environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.drawn import DrawnEnv
from racer.envs.highway.world import RiskWorld
from racer.envs.keywords import keys_in_config

__all__ = ["RiskHighwayEnv"]


@keys_in_config
class RiskHighwayEnv(DrawnEnv):
    """Driving on highway-env's highway with a safety-shaped reward.

    Observation: ``[V, F]`` float32, vehicle rows [presence, x, y, vx, vy, heading] clipped to +-100. Action:
    ``[acceleration, steering]`` in [-1, 1] (``action_names`` tells which is which). ``info`` holds
    ``reward_components`` after every step and ``episode_metrics`` after an episode's last.

    Args:
        config: overrides of the defaults in :mod:`racer.envs.highway.config`.
        render_mode: "rgb_array" for one frame, "rgb_array_list" for all simulation frames since the last call.
    """

    metadata = {"render_modes": ["rgb_array", "rgb_array_list"], "render_fps": 15}

    def __init__(self, config: Mapping[str, Any] | None = None, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.world = RiskWorld(config, num_envs=1)
        self.config = self.world.config
        self.action_names = self.world.action_names
        self.observation_space = self.world.observation_space
        self.action_space = self.world.action_space
        self.metadata = {**type(self).metadata, "render_fps": self._frame_rate()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        observations, info = self.world.reset([seed])
        self._film()
        return observations[0], _first(info)

    def step(self, action: NDArray[Any]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        step = self.world.step(np.asarray(action)[None], self._film if self.render_mode == "rgb_array_list" else None)
        self._film()
        info = _first(step.info)
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        if terminated or truncated:
            info["episode_metrics"] = _first(step.metrics)
        return step.observations[0], float(step.rewards[0]), terminated, truncated, info

    def close(self) -> None:
        self.world.engine.close()

    def _frame_rate(self) -> float:
        """Frames a second of real time. highway-env simulates a whole number of frames a policy step."""
        policy = self.config["policy_frequency"]
        if self.render_mode != "rgb_array_list":
            return policy
        return self.config["simulation_frequency"] // policy * policy

    def _drawn(self) -> NDArray[np.uint8]:
        return self.world.engine.render(0).copy()


def _first(values: Mapping[str, Any]) -> dict[str, Any]:
    """Take environment 0 out of (nested) arrays, as plain Python values."""
    return {k: _first(v) if isinstance(v, Mapping) else v[0].item() for k, v in values.items()}
