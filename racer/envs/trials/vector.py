"""``racer/HighwayTrials-v0``, batched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.envs.keywords import keys_in_config
from racer.envs.trials.config import resolve_config, trials_config
from racer.envs.trials.world import TrialWorld, trial_spaces
from racer.envs.vectors import SeededVectorEnv, final_observations, masked

__all__ = ["HighwayTrialsVectorEnv"]


@keys_in_config
class HighwayTrialsVectorEnv(SeededVectorEnv):
    """Environments of :class:`racer.envs.trials.env.HighwayTrialsEnv`, with the same rules; N rows, each an ego.

    With ``egos`` A, rows e * A to e * A + A - 1 are the egos of one environment, which is seeded as the first of them
    says. ``infos["trial_end"]``, ``infos["limbo"]`` and ``infos["removed"]``, bool ``[N]``, say where the environment's
    trial ended in this step, where the ego was off the road during it, and where it is after it. An episode that ends
    is ``terminated`` once, with its last observation in ``infos["final_obs"][i]`` and its ``episode_metrics`` in
    ``infos["final_info"]``. With ``fill_window`` the egos then stay in limbo until K * L steps of the episode are over;
    else the next episode begins within the step.

    Args:
        num_envs: N, a multiple of the egos of an environment.
        config: overrides of :class:`racer.envs.trials.config.TrialsConfig`.

    Raises:
        UsageError: N is none.
    """

    def __init__(self, num_envs: int = 1, config: Mapping[str, Any] | None = None, render_mode: None = None) -> None:
        checked = trials_config(config)
        if num_envs % checked.egos:
            raise UsageError(
                f"num_envs = {num_envs} rows do not make environments of egos = {checked.egos} each: choose a multiple"
            )
        super().__init__(num_envs, trial_spaces(checked), render_mode)
        self.config = resolve_config(config)
        self.world = TrialWorld(checked, num_envs // checked.egos)
        # One row cannot begin anew without its neighbours.
        self.metadata = {**self.metadata, "reset_mask": checked.egos == 1}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[
        NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        step = self.world.step(actions)
        observations, ended = step.observations, step.terminals
        infos: dict[str, Any] = masked(
            {**step.info, "trial_end": step.trial_ends, "limbo": step.limbo, "removed": step.removed},
            np.ones(self.num_envs, bool),
        )
        if ended.any():
            final = final_observations(step.final_observations, ended)
            final_info = masked({**step.info, "episode_metrics": step.metrics}, ended)
            infos.update(final_obs=final, _final_obs=ended, final_info=final_info, _final_info=ended)
        if step.window_ends.any():
            self._begin(step.window_ends)
            observations = self.world.observe()
        return observations, step.rewards, ended, np.zeros(self.num_envs, bool), infos

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides how the environments go on, as flat named arrays."""
        return self.world.get_state(self._generators)

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return to :meth:`get_state` exactly; returns the observations there."""
        self.world.set_state(state, self._generators)
        return self.world.observe()

    def close_extras(self, **kwargs: Any) -> None:
        self.world.simulator.close()

    def _begin(self, mask: NDArray[np.bool_]) -> None:
        egos = self.world.config.egos
        whole = mask.reshape(-1, egos)
        if (whole.any(axis=1) != whole.all(axis=1)).any():
            raise UsageError(f"reset_mask must be the same for the {egos} rows of an environment")
        places = np.flatnonzero(whole[:, 0])
        self.world.begin(places, [self._generators[i * egos] for i in places])

    def _observe(self) -> NDArray[np.float32]:
        return self.world.observe()
