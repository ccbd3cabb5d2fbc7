"""``racer/highway-v0`` and ``racer/highway-fast-v0``: one environment, highway-env's interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from racer.core.errors import UsageError
from racer.envs.highway.defaults import highway_defaults
from racer.envs.highway.simulator import HighwaySimulator
from racer.envs.highway.simulator.actions import ActionMap
from racer.envs.highway.simulator.config import Observation
from racer.envs.highway.simulator.generator import pack, unpack

__all__ = ["HighwayFastTwin", "HighwayTwin", "action_space", "merge_config", "observation_space"]

# highway-env films at twice real time (AbstractEnv.update_metadata)
VIDEO_SPEED = 2


def merge_config(config: Mapping[str, Any] | None, fast: bool) -> dict[str, Any]:
    """Put ``config`` on top of the id's defaults, key by key at the top level, as highway-env does."""
    merged = {**highway_defaults(fast), **(config or {})}
    if merged["offscreen_rendering"] is None:
        merged["offscreen_rendering"] = True
    return merged


def observation_space(observation: Observation) -> spaces.Box:
    """Return the space of ``[K, F]`` float32 observations.

    highway-env's space is unbounded; this one has the greatest finite float32 as its bounds, which holds the
    same observations and which gymnasium's checker takes without a warning.
    """
    bound = np.finfo(np.float32).max
    return spaces.Box(-bound, bound, (observation.rows, len(observation.features)), np.float32)


def action_space(action: ActionMap) -> spaces.Space:
    """Return the action space, highway-env's own."""
    if action.is_discrete:
        return spaces.Discrete(action.size)
    return spaces.Box(-1.0, 1.0, (action.size,), np.float32)


class HighwayTwin(gymnasium.Env):
    """highway-v0 from compiled code: the same ``reset(seed=...)`` and actions give the same episode.

    Args:
        config: highway-env's configuration keys; the rest keeps the id's defaults.
        render_mode: None or ``rgb_array``.

    Raises:
        UsageError: for a configuration that the compiled simulator does not cover, naming the key.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": VIDEO_SPEED}
    fast = False

    def __init__(self, config: Mapping[str, Any] | None = None, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UsageError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.render_mode = render_mode
        self.config = merge_config(config, self.fast)
        self.metadata = dict(self.metadata)
        self._record_video_wrapper: Any = None
        self._film_frames = False
        self._build()
        self.reset()

    def _build(self) -> None:
        self.simulator = HighwaySimulator(self.config, 1, fast=self.fast)
        parameters = self.simulator.parameters
        self.observation_space = observation_space(parameters.observation)
        self.action_space = action_space(parameters.action)
        self._update_metadata()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a new scene.

        Args:
            seed: re-seeds the generator; None goes on with it.
            options: ``{"config": {...}}`` changes configuration keys first, as in highway-env.

        Returns:
            the observation ``[K, F]`` float32 and the info ``speed`` (m/s), ``crashed``, ``action`` (a sample of
            the action space) and ``rewards``.
        """
        super().reset(seed=seed, options=options)
        if options and "config" in options:
            self.simulator.close()
            self.config.update(options["config"])
            self._build()
        else:
            # as highway-env, which rebuilds its spaces: a seed given to the action space ends here
            self.action_space = action_space(self.simulator.parameters.action)
        self._lend_generator()
        self.simulator.reset()
        self._return_generator()
        return self._observation(), self._info(self.action_space.sample())

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one policy step; see highway-env for what an action means."""
        filming = self._film_frames and self._record_video_wrapper is not None
        shuffled = self.simulator.parameters.observation.shuffled
        if shuffled:
            self._lend_generator()
        self.simulator.step(
            np.asarray(action)[None], self._record_video_wrapper._capture_frame if filming else None
        )
        if shuffled:
            self._return_generator()
        self._film_frames = False
        simulator = self.simulator
        return (
            self._observation(),
            float(simulator.rewards[0]),
            bool(simulator.terminated[0]),
            bool(simulator.truncated[0]),
            self._info(action),
        )

    def render(self) -> np.ndarray | None:
        """Return the frame ``[H, W, 3]`` uint8, drawn by highway-env's viewer."""
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() needs a render mode: pass render_mode='rgb_array' to gymnasium.make"
            )
            return None
        self._film_frames = True
        return self.simulator.render(0)

    def close(self) -> None:
        """Close the viewer."""
        self.simulator.close()

    def set_record_video_wrapper(self, wrapper: gymnasium.wrappers.RecordVideo) -> None:
        """Let a RecordVideo wrapper film every simulation frame, as highway-env's method of the same name."""
        self._record_video_wrapper = wrapper
        self._update_metadata()
        wrapper.frames_per_sec = self.metadata["render_fps"]

    def _update_metadata(self) -> None:
        key = "simulation_frequency" if self._record_video_wrapper else "policy_frequency"
        self.metadata["render_fps"] = VIDEO_SPEED * self.config[key]

    def _lend_generator(self) -> None:
        self.simulator.set_generator_state(0, pack(self.np_random.bit_generator.state))

    def _return_generator(self) -> None:
        self.np_random.bit_generator.state = unpack(self.simulator.get_generator_state(0))

    def _observation(self) -> np.ndarray:
        # with vehicles_count = 1 highway-env returns every perceived car, whatever its space says
        return self.simulator.observe()[0, : self.simulator.observed_rows[0]]

    def _info(self, action: Any) -> dict[str, Any]:
        simulator = self.simulator
        return {
            "speed": float(simulator.ego_speed[0]),
            "crashed": bool(simulator.ego_crashed[0]),
            "action": action,
            "rewards": {name: float(value[0]) for name, value in simulator.reward_components.items()},
        }


class HighwayFastTwin(HighwayTwin):
    """highway-fast-v0 from compiled code: its defaults, and only the ego's collisions count."""

    fast = True
