"""The T-maze on JAX arrays, for populations inside one compilation. JAX is imported when a key is first used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from racer.envs.tmaze import maze
from racer.envs.tmaze.config import tmaze_config
from racer.envs.tmaze.vector import maze_spaces
from racer.envs.world import Functional, FunctionalStep

__all__ = ["functional_tmaze"]


def functional_tmaze(config: Mapping[str, Any] | None) -> Functional:
    """Return one T-maze as pure functions; errors as :func:`racer.envs.tmaze.config.tmaze_config`."""
    resolved = tmaze_config(config)

    def reset(key: Any) -> tuple[maze.MazeState, Any]:
        state = maze.start(_random_goal(key))
        return state, maze.observe(resolved, state)

    def step(state: maze.MazeState, action: Any, key: Any) -> FunctionalStep:
        taken = maze.step(resolved, state, action)
        after = maze.restart(taken.state, taken.terminated | taken.truncated, _random_goal(key))
        return FunctionalStep(
            state=after,
            observation=maze.observe(resolved, after),
            reward=taken.reward.astype(np.float32),
            terminated=taken.terminated,
            truncated=taken.truncated,
            final_observation=maze.observe(resolved, taken.state),
            metrics={name: value.astype(np.float32) for name, value in taken.metrics.items()},
        )

    return Functional(*maze_spaces(resolved), reset, step)


def _random_goal(key: Any) -> Any:
    """Draw a goal, int32 ``[]``."""
    import jax

    return jax.random.bernoulli(key).astype(np.int32)
