"""``racer/HighwayTrials-v0``, one environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from racer.core.errors import unknown_name
from racer.envs.trials.config import resolve_config, trials_config
from racer.envs.trials.drawing import DRAWING, overlaid
from racer.envs.trials.world import TrialWorld, WorldStep, trial_spaces

__all__ = ["HighwayTrialsEnv"]


class HighwayTrialsEnv(gymnasium.Env):
    """K attempts at one highway scene of a hidden type, in one episode.

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
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise unknown_name("render mode", str(render_mode), self.metadata["render_modes"])
        self.config = resolve_config(config)
        self.world = TrialWorld(trials_config(config), 1, DRAWING)
        self.observation_space, self.action_space = trial_spaces(self.world.config)
        self.render_mode = render_mode
        fps = 15 if render_mode == "rgb_array_list" else self.world.config.policy_frequency
        self.metadata = {**type(self).metadata, "render_fps": fps}
        self._frames: list[NDArray[np.uint8]] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.world.begin([0], [self.np_random])
        self._frames = []
        self._film()
        return self.world.observe()[0], {"trial": 0}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        filming = self.render_mode == "rgb_array_list"
        step: WorldStep = self.world.step(np.asarray(action)[None], self._film if filming else None)
        self._film()
        info: dict[str, Any] = {name: value[0].item() for name, value in step.info.items()}
        info |= {"trial_end": bool(step.truncations[0]), "limbo": bool(step.limbo[0])}
        ended = bool(step.terminals[0])
        if ended:
            info["episode_metrics"] = {name: float(value[0]) for name, value in step.metrics.items()}
        shown = step.final_observations if ended else step.observations
        return shown[0], float(step.rewards[0]), ended, False, info

    def render(self) -> Any:
        if self.render_mode == "rgb_array":
            return self._drawn()
        if self.render_mode == "rgb_array_list":
            frames, self._frames = self._frames, []
            return frames
        return None

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides how the episode goes on, as flat named arrays."""
        return self.world.get_state([self.np_random])

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return to :meth:`get_state` exactly; returns the observation there."""
        self.world.set_state(state, [self.np_random])
        return self.world.observe()[0]

    def close(self) -> None:
        self.world.simulator.close()

    def _drawn(self) -> NDArray[np.uint8]:
        world = self.world
        return overlaid(
            world.simulator.render(0), int(world.trial[0]), world.config.k_scenarios, world.config.scene,
            int(world.arm[0]),
        )  # fmt: skip

    def _film(self) -> None:
        if self.render_mode == "rgb_array_list":
            self._frames.append(self._drawn())
