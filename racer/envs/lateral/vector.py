"""``racer/LateralControl-v0``, batched: one call of the plant steps all environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.keywords import keys_in_config
from racer.envs.lateral.config import lateral_config, resolve_config
from racer.envs.lateral.world import LateralWorld, lateral_spaces
from racer.envs.vectors import SeededVectorEnv, final_observations, masked

__all__ = ["VectorizedLateralControlEnv"]


@keys_in_config
class VectorizedLateralControlEnv(SeededVectorEnv):
    """N environments of :class:`racer.envs.lateral.env.LateralControlEnv`, with the same rules.

    An environment that ends is reset within the same step (gymnasium's SAME_STEP): its last observation is
    ``infos["final_obs"][i]``, and ``infos["final_info"]`` holds its last info and its ``episode_metrics``.

    Args:
        num_envs: N.
        config: overrides of :class:`racer.envs.lateral.config.LateralConfig`.
    """

    def __init__(self, num_envs: int = 1, config: Mapping[str, Any] | None = None, render_mode: None = None) -> None:
        super().__init__(num_envs, lateral_spaces(), render_mode)
        self.config = resolve_config(config)
        self.world = LateralWorld(lateral_config(config), num_envs)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        step = self.world.step(actions)
        observations, never = step.observations, np.zeros(self.num_envs, bool)
        infos: dict[str, Any] = masked(step.info, ~step.ended)
        if step.ended.any():
            final = final_observations(observations, step.ended)
            final_info = masked({**step.info, "episode_metrics": step.metrics}, step.ended)
            infos.update(final_obs=final, _final_obs=step.ended, final_info=final_info, _final_info=step.ended)
            self._begin(step.ended)
            observations = self.world.observe()
        return observations, step.rewards, never, step.ended, infos

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides how the environments go on, as flat named arrays."""
        return self.world.get_state(self._generators)

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return to :meth:`get_state` exactly; returns the observations there."""
        self.world.set_state(state, self._generators)
        return self.world.observe()

    def _begin(self, mask: NDArray[np.bool_]) -> None:
        places = np.flatnonzero(mask)
        self.world.begin(places, [self._generators[i] for i in places])

    def _observe(self) -> NDArray[np.float32]:
        return self.world.observe()
