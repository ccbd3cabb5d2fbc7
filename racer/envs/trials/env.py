"""``racer/HighwayTrials-v0``, one environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from racer.envs.drawn import DrawnEnv
from racer.envs.keywords import keys_in_config
from racer.envs.trials.config import TrialsConfig, resolve_config, trials_config
from racer.envs.trials.drawing import DRAWING, overlaid
from racer.envs.trials.world import TrialWorld, WorldStep, trial_spaces

__all__ = ["HighwayTrialsEnv"]


@keys_in_config
class HighwayTrialsEnv(DrawnEnv):
    """K attempts at one highway scene of a hidden type, in one episode.

    With several ``egos``, A, observations are ``[A, D]``, actions one choice for each, the reward is their mean, and
    ``info`` is the first ego's, with ``info["egos"]``, a mapping for each of them, beside it.

    Observation ``[D]`` float32, named by :func:`racer.envs.trials.observation.observation_names`. Actions: five
    choices, or ``[acceleration, steering]``. ``info`` says ``trial`` and ``trial_end``, and holds ``episode_metrics``
    after the last trial, where the episode terminates. Steps after that, until ``reset``, are limbo: no reward, no
    event.

    Args:
        config: overrides of :class:`racer.envs.trials.config.TrialsConfig`.
        render_mode: "rgb_array" for one frame, "rgb_array_list" for all simulation frames since the last call.
    """

    metadata = {"render_modes": ["rgb_array", "rgb_array_list"], "render_fps": 15}

    def __init__(self, config: Mapping[str, Any] | None = None, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.config = resolve_config(config)
        self.world = TrialWorld(trials_config(config), 1, DRAWING)
        self.observation_space, self.action_space = _spaces(self.world.config)
        fps = 15 if render_mode == "rgb_array_list" else self.world.config.policy_frequency
        self.metadata = {**type(self).metadata, "render_fps": fps}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.world.begin([0], [self.np_random])
        self._film()
        return self._one(self.world.observe()), {"trial": 0}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        filming = self.render_mode == "rgb_array_list"
        alone = self.world.config.egos == 1
        actions = np.asarray(action)
        step: WorldStep = self.world.step(actions[None] if alone else actions, self._film if filming else None)
        self._film()
        infos = [_info(step, row) for row in range(len(step.rewards))]
        ended = bool(step.terminals[0])
        shown = step.final_observations if ended else step.observations
        info = infos[0] if alone else {**infos[0], "egos": tuple(infos)}
        return self._one(shown), float(step.rewards.mean()), ended, False, info

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides how the episode goes on, as flat named arrays."""
        return self.world.get_state([self.np_random])

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return to :meth:`get_state` exactly; returns the observation there."""
        self.world.set_state(state, [self.np_random])
        return self._one(self.world.observe())

    def close(self) -> None:
        self.world.simulator.close()

    def _one(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return observations ``[A, D]`` as this environment's observation."""
        return rows[0] if self.world.config.egos == 1 else rows

    def _drawn(self) -> NDArray[np.uint8]:
        world = self.world
        return overlaid(
            world.simulator.render(0, world.config.egos, int(world.egos.cars[world.followed])), int(world.trial[0]),
            world.config.k_scenarios, world.config.scene, int(world.arm[0]),
        )  # fmt: skip


def _spaces(config: TrialsConfig) -> tuple[spaces.Space, spaces.Space]:
    observations, actions = trial_spaces(config)
    if config.egos == 1:
        return observations, actions
    return batch_space(observations, config.egos), batch_space(actions, config.egos)


def _info(step: WorldStep, row: int) -> dict[str, Any]:
    """Return what a step tells of one ego."""
    info: dict[str, Any] = {name: value[row].item() for name, value in step.info.items()}
    flags = {"trial_end": step.trial_ends, "limbo": step.limbo, "removed": step.removed}
    info |= {name: bool(values[row]) for name, values in flags.items()}
    if step.terminals[row]:
        info["episode_metrics"] = {name: float(value[row]) for name, value in step.metrics.items()}
    return info
