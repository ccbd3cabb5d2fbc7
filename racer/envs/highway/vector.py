"""``racer/RiskHighway-v0``, batched: one call steps all environments of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.envs.highway.world import RiskWorld
from racer.envs.keywords import keys_in_config
from racer.envs.vectors import final_observations, masked, reset_arguments

__all__ = ["RiskHighwayVectorEnv"]


@keys_in_config
class RiskHighwayVectorEnv(VectorEnv):
    """N environments of :class:`racer.envs.highway.env.RiskHighwayEnv`, with the same numbers.

    An environment that ends is reset within the same step (gymnasium's SAME_STEP): its last observation is
    ``infos["final_obs"][i]``, its last info, with ``episode_metrics``, stands in ``infos["final_info"]``.

    Args:
        num_envs: N.
        config: as for the single environment.
        num_threads: threads that share a step of the compiled engine; results do not depend on it.
        scoring: as for :class:`racer.envs.highway.world.RiskWorld`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "reset_mask": True, "render_modes": []}

    def __init__(
        self,
        num_envs: int = 1,
        config: Mapping[str, Any] | None = None,
        render_mode: None = None,
        *,
        num_threads: int = 1,
        scoring: str = "compiled",
    ) -> None:
        if num_envs < 1:
            raise UsageError(f"num_envs must be at least 1, not {num_envs}")
        if render_mode is not None:
            raise UsageError("the vector environment does not draw: film one environment with gymnasium.make")
        self.num_envs = num_envs
        self.world = RiskWorld(config, num_envs, num_threads=num_threads, scoring=scoring)
        self.config = self.world.config
        self.action_names = self.world.action_names
        self.single_observation_space = self.world.observation_space
        self.single_action_space = self.world.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode in every environment; an integer seeds them with seed, seed+1, ...

        ``options={"reset_mask": bool [N]}`` resets only some, as gymnasium's own vector environments do.
        """
        seeds, mask = reset_arguments(self.num_envs, seed, options)
        indices = np.flatnonzero(mask)
        _, info = self.world.reset([seeds[i] for i in indices], indices)
        return self.world.observe(), masked({k: _spread(v, mask) for k, v in info.items()}, mask)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[
        NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        step = self.world.step(actions)
        observations = step.observations
        if not step.metrics:
            infos = masked(step.info, np.ones(self.num_envs, dtype=bool))
            return observations, step.rewards, step.terminated, step.truncated, infos
        ended = step.terminated | step.truncated
        indices = np.flatnonzero(ended)
        final_obs = final_observations(observations, ended)
        final_info = masked({**step.info, "episode_metrics": step.metrics}, ended)
        observations[indices], started = self.world.reset([None] * len(indices), indices)
        infos = masked(step.info, ~ended)
        everywhere = np.ones(self.num_envs, dtype=bool)
        for key, values in started.items():
            infos[key] = infos[key].copy()
            infos[key][indices] = values
            infos[f"_{key}"] = everywhere
        infos.update(final_obs=final_obs, _final_obs=ended, final_info=final_info, _final_info=ended)
        return observations, step.rewards, step.terminated, step.truncated, infos

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides how the environments go on, as flat named arrays."""
        return self.world.get_state()

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return to :meth:`get_state` exactly; returns the observations there."""
        return self.world.set_state(state)

    def close_extras(self, **kwargs: Any) -> None:
        self.world.engine.close()


def _spread(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Write the values of the masked environments where they belong among all."""
    spread = np.zeros(mask.shape, dtype=values.dtype)
    spread[mask] = values
    return spread
