"""``racer/highway-v0`` and ``racer/highway-fast-v0``: one environment, highway-env's interface and class.

A twin *is* a highway-env environment whose steps and resets are compiled. Everything around them is either
highway-env's own code over views of the compiled state, or refused with the way out.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
from highway_env.envs.highway_env import HighwayEnvFast

from racer.envs.headless import prepare_drawing
from racer.envs.highway.twin_base import HOOKS, ORIGINALS, SCENE_HOOKS
from racer.envs.highway.twin_common import check_action, warn_of_unknown_options
from racer.envs.highway.twin_keys import same_config
from racer.envs.highway.twin_planning import PlanningTwin
from racer.envs.highway.twin_scene import Scene, place_vehicles

__all__ = ["HighwayFastTwin", "HighwayTwin"]


class HighwayTwin(PlanningTwin):
    """highway-v0 from compiled code: the same ``reset(seed=...)`` and actions give the same episode.

    Args:
        config: highway-env's configuration keys; the rest keeps the id's defaults.
        render_mode: None, ``rgb_array`` or ``human``.
        engine: ``compiled``; ``highway-env``, which leaves everything to highway-env; or ``auto``, which does so,
            with a warning, from the moment something needs it until the next reset.

    Attributes:
        simulator: the compiled scene; None while highway-env steps.

    Raises:
        UsageError: for a configuration or an override that the compiled simulator does not cover, naming it.
    """

    # episodes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a new scene.

        Args:
            seed: re-seeds the generator; None goes on with it.
            options: ``{"config": {...}}`` changes configuration keys first, as in highway-env; ``{"scene": {...}}``
                chooses the vehicles (see :mod:`racer.envs.highway.twin_scene`).

        Returns:
            the observation ``[K, F]`` float32 and the info ``speed`` (m/s), ``crashed``, ``action`` (a sample of
            the action space) and ``rewards``.

        Raises:
            UsageError: for what is not covered, and for a wrong scene.
        """
        gymnasium.Env.reset(self, seed=seed, options=options)
        options = options or {}
        warn_of_unknown_options(options, ("config", "scene"))
        if "config" in options:
            self.configure(options["config"])
        scene, others = None, None
        if options.get("scene") is not None:
            scene = Scene.parse(options["scene"], self.config["lanes_count"], self.config["vehicles_count"])
            others = scene.others
        simulator = self._compiled(others)
        self._views = self._views.next_episode()
        self.simulator, self._scene = simulator, scene
        if not same_config(self._seen, self.config):
            self._warn_of_keys()
            self._seen = copy.deepcopy(self.config)
        if simulator is None:
            return super().reset()
        self.update_metadata()
        self._set_spaces(simulator.parameters)
        self.done = False
        self._lend_generator()
        if scene is None:
            simulator.reset()
        else:
            simulator.reset_to(0, scene)
        self._return_generator()
        observation = self._observation()
        info = self._judge(observation, self.action_space.sample())[-1]
        if self.render_mode == "human":
            self.render()
        return observation, info

    def _reset(self) -> None:
        """Let highway-env draw a scene, and put the vehicles where the chosen one says."""
        scene = self._scene
        if scene is None:
            super()._reset()
            return
        drawn = self.config["vehicles_count"]
        self.config["vehicles_count"] = scene.others
        try:
            super()._reset()
        finally:
            self.config["vehicles_count"] = drawn
        place_vehicles(self.road.vehicles, scene)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one policy step; see highway-env for what an action means.

        Raises:
            UsageError: for an action that is NaN, out of range or of the wrong shape.
        """
        array = check_action(action)
        if self.simulator is not None:
            self._follow_config()
        simulator = self.simulator
        if simulator is None:
            return super().step(action)
        shuffled = simulator.parameters.observation.shuffled
        if shuffled:
            self._lend_generator()
        filming = self.viewer is not None and self.enable_auto_render
        films = filming or self._replaced("_automatic_rendering")
        simulator.policy_step(array[None], self._automatic_rendering if films else None)
        self.enable_auto_render = False
        if shuffled:
            self._return_generator()
        self._views.acted(action)
        observation = self._observation()
        reward, terminated, truncated, info = self._judge(observation, action)
        if self.render_mode == "human":
            self.render()
        return observation, reward, terminated, truncated, info

    def _observation(self) -> np.ndarray:
        simulator = self.simulator
        assert simulator is not None
        # with vehicles_count = 1 highway-env returns every perceived car, whatever its space says
        return simulator.observe()[0, : simulator.observed_rows[0]]

    def _judge(self, observation: np.ndarray, action: Any) -> tuple[float, bool, bool, dict[str, Any]]:
        """Return reward, end flags and info of the present state, by the methods that have been replaced."""
        simulator = self.simulator
        assert simulator is not None
        reward, terminated, truncated = (
            float(simulator.rewards[0]), bool(simulator.terminated[0]), bool(simulator.truncated[0])
        )  # fmt: skip
        if self._replaced(*HOOKS) is None:
            return reward, terminated, truncated, {
                "speed": float(simulator.ego_speed[0]),
                "crashed": bool(simulator.ego_crashed[0]),
                "action": action,
                "rewards": {name: float(value[0]) for name, value in simulator.reward_components.items()},
            }  # fmt: skip
        if simulator.frames[0] > 0:
            if self._replaced("_reward", "_rewards"):
                reward = self._reward(action)
            if self._replaced("_is_terminated"):
                terminated = self._is_terminated()
            if self._replaced("_is_truncated"):
                truncated = self._is_truncated()
        return reward, terminated, truncated, self._info(observation, action)

    # drawing

    def render(self) -> np.ndarray | None:
        """Return the frame ``[H, W, 3]`` uint8, drawn by highway-env's viewer; with ``human``, show it."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs a render mode: pass render_mode='rgb_array' to gymnasium.make")
            return None
        prepare_drawing()
        return super().render()


class HighwayFastTwin(HighwayTwin, HighwayEnvFast):
    """highway-fast-v0 from compiled code: its defaults, and only the ego's collisions count."""

    fast = True


def _methods(kind: type) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in (*HOOKS, *SCENE_HOOKS, "_automatic_rendering")}


ORIGINALS.update({kind: _methods(kind) for kind in (HighwayTwin, HighwayFastTwin)})
