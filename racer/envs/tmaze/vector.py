"""``racer/TMaze-v0``, batched, on NumPy arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from racer.envs.keywords import keys_in_config
from racer.envs.tmaze import maze
from racer.envs.tmaze.config import TMazeConfig, resolve_config, tmaze_config
from racer.envs.vectors import SeededVectorEnv, final_observations, masked

__all__ = ["TMazeVectorEnv", "maze_spaces", "random_goals"]


def maze_spaces(config: TMazeConfig) -> tuple[spaces.Box, spaces.Discrete]:
    """Return the spaces of one environment's observations and actions."""
    return spaces.Box(0.0, 1.0, (8 if config.previous_action else 4,), np.float32), spaces.Discrete(4)


def random_goals(generators: Sequence[np.random.Generator]) -> NDArray[np.int32]:
    """Draw one goal from each of N generators, ``[N]``."""
    return np.array([generator.integers(2) for generator in generators], dtype=np.int32)


@keys_in_config
class TMazeVectorEnv(SeededVectorEnv):
    """N environments of :class:`racer.envs.tmaze.env.TMazeEnv`, with the same numbers.

    An environment that ends is reset within the same step (gymnasium's SAME_STEP): its last observation is
    ``infos["final_obs"][i]``, and ``infos["final_info"]["episode_metrics"]`` holds its metrics.

    Args:
        num_envs: N.
        config: overrides of :class:`racer.envs.tmaze.config.TMazeConfig`.
    """

    def __init__(self, num_envs: int = 1, config: Mapping[str, Any] | None = None, render_mode: None = None) -> None:
        super().__init__(num_envs, maze_spaces(tmaze_config(config)), render_mode)
        self.config = resolve_config(config)
        self._maze = tmaze_config(config)
        self._state = maze.start(np.zeros(num_envs, np.int32))

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[
        NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        step = maze.step(self._maze, self._state, np.asarray(actions))
        self._state = step.state
        ended = step.terminated | step.truncated
        infos: dict[str, Any] = {}
        if ended.any():
            final = final_observations(maze.observe(self._maze, self._state), ended)
            metrics = {key: value.astype(np.float64) for key, value in step.metrics.items()}
            final_info = masked({"episode_metrics": metrics}, ended)
            infos.update(final_obs=final, _final_obs=ended, final_info=final_info, _final_info=ended)
            self._begin(ended)
        return maze.observe(self._maze, self._state), step.reward, step.terminated, step.truncated, infos

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides how the environments go on, as flat named arrays."""
        generators = json.dumps([generator.bit_generator.state for generator in self._generators])
        arrays = {name: value.copy() for name, value in self._state._asdict().items()}
        return {**arrays, "generators": np.frombuffer(generators.encode(), dtype=np.uint8).copy()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return to :meth:`get_state` exactly; returns the observations there."""
        fields = {name: np.array(state[name], np.int32) for name in maze.MazeState._fields if name in state}
        # Earlier versions saved no action.
        fields.setdefault("action", np.full(self.num_envs, maze.NO_ACTION, np.int32))
        self._state = maze.MazeState(**fields)
        for generator, saved in zip(self._generators, json.loads(bytes(state["generators"]).decode()), strict=True):
            generator.bit_generator.state = saved
        return maze.observe(self._maze, self._state)

    def _begin(self, mask: NDArray[np.bool_]) -> None:
        goals = np.zeros(self.num_envs, np.int32)
        goals[mask] = random_goals([self._generators[i] for i in np.flatnonzero(mask)])
        self._state = maze.restart(self._state, mask, goals)

    def _observe(self) -> NDArray[np.float32]:
        return maze.observe(self._maze, self._state)
