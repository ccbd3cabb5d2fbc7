"""``racer/LateralControl-v0``, one environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.drawn import DrawnEnv
from racer.envs.keywords import keys_in_config
from racer.envs.lateral.config import lateral_config, resolve_config
from racer.envs.lateral.drawing import draw
from racer.envs.lateral.rules import STEP
from racer.envs.lateral.world import LateralWorld, lateral_spaces

__all__ = ["LateralControlEnv"]


@keys_in_config
class LateralControlEnv(DrawnEnv):
    """A car that is to follow a lateral acceleration by steering.

    Observation ``[256]`` float32, see :func:`racer.envs.lateral.observation.observe`. Action ``[1]`` in [-1, 1]. The
    return of an episode is the negative of its total cost exactly; ``info`` holds the parts of each step, and at the
    end ``episode_metrics``. Nothing terminates an episode: it is truncated after its last controlled step.

    Args:
        config: overrides of :class:`racer.envs.lateral.config.LateralConfig`.
        render_mode: "rgb_array" for one frame, "rgb_array_list" for all frames since the last call.

    Raises:
        UsageError: a wrong configuration, or a plant or routes that cannot be read.
    """

    metadata = {"render_modes": ["rgb_array", "rgb_array_list"], "render_fps": round(1.0 / STEP)}

    def __init__(self, config: Mapping[str, Any] | None = None, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.config = resolve_config(config)
        self.world = LateralWorld(lateral_config(config), 1)
        self.observation_space, self.action_space = lateral_spaces()
        self._trace: list[tuple[float, float, float]] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.world.begin([0], [self.np_random])
        self._trace = []
        self._film()
        return self.world.observe()[0], {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        step = self.world.step(np.asarray(action)[None])
        info: dict[str, Any] = {name: float(value[0]) for name, value in step.info.items()}
        self._trace.append((info["target"], info["lataccel"], info["steer"]))
        self._film()
        if step.ended[0]:
            info["episode_metrics"] = {name: float(value[0]) for name, value in step.metrics.items()}
        return step.observations[0], float(step.rewards[0]), False, bool(step.ended[0]), info

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides how the episode goes on, as flat named arrays."""
        return self.world.get_state([self.np_random])

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return to :meth:`get_state` exactly; returns the observation there. The trace that is drawn begins anew."""
        self.world.set_state(state, [self.np_random])
        self._trace = []
        return self.world.observe()[0]

    def _drawn(self) -> NDArray[np.uint8]:
        return draw(self._trace, int(self.world.simulation.steps[0]))
