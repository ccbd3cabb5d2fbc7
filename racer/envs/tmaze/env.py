"""``racer/TMaze-v0``, one environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.drawn import DrawnEnv
from racer.envs.keywords import keys_in_config
from racer.envs.tmaze import maze
from racer.envs.tmaze.config import resolve_config, tmaze_config
from racer.envs.tmaze.drawing import draw
from racer.envs.tmaze.vector import maze_spaces, random_goals

__all__ = ["TMazeEnv"]


@keys_in_config
class TMazeEnv(DrawnEnv):
    """A corridor with a sign at its start and a junction at its end.

    Observation ``[4]`` float32: the sign, in the corridor, at the junction, turned. Actions: north, south, east,
    west. The turn that the sign told pays 4, the other one -0.1; either ends the episode, and ``info`` then holds
    ``episode_metrics``.

    Args:
        config: overrides of :class:`racer.envs.tmaze.config.TMazeConfig`.
        render_mode: "rgb_array" for one frame, "rgb_array_list" for all frames since the last call.
    """

    metadata = {"render_modes": ["rgb_array", "rgb_array_list"], "render_fps": 4}

    def __init__(self, config: Mapping[str, Any] | None = None, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.config = resolve_config(config)
        self._maze = tmaze_config(config)
        self.observation_space, self.action_space = maze_spaces(self._maze)
        self._state = maze.start(np.zeros(1, np.int32))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._state = maze.start(random_goals([self.np_random]))
        self._film()
        return maze.observe(self._maze, self._state)[0], {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        step = maze.step(self._maze, self._state, np.array([action]))
        self._state = step.state
        self._film()
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        info: dict[str, Any] = {}
        if terminated or truncated:
            info["episode_metrics"] = {key: float(value[0]) for key, value in step.metrics.items()}
        return maze.observe(self._maze, self._state)[0], float(step.reward[0]), terminated, truncated, info

    @property
    def state(self) -> maze.MazeState:
        """Where the agent and the goal are, ``[1]`` each."""
        return self._state

    def _drawn(self) -> NDArray[np.uint8]:
        return draw(self._maze, self._state)
