"""The controllers as drivers of an environment, for evaluations beside what was learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.lateral.controllers import CONTROLLERS, Controller
from racer.envs.lateral.world import LateralWorld

__all__ = ["DRIVERS", "ControllerDriver"]


class ControllerDriver:
    """Acts as :class:`racer.networks.policy.Policy` does, without parameters: it reads the world's own numbers.

    Args:
        world: of the environments that it acts in.
        controller: steers.
    """

    def __init__(self, world: LateralWorld, controller: Controller) -> None:
        self._world, self._controller = world, controller

    def initial_memory(self, count: int) -> dict[str, NDArray[np.float32]]:
        """Return the memory of episodes that begin: none."""
        return {}

    def act(
        self,
        params: Mapping[str, Any],
        observations: Any,
        memory: Mapping[str, Any],
        key: Any,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.float32], dict[str, Any], dict[str, Any]]:
        """Return the actions ``[N, 1]`` that come nearest to the controller's steers."""
        signals = self._world.signals
        actions = self._world.action_map.actions(signals, self._controller(signals))
        return actions[:, None].astype(np.float32), {}, {}


def _driver(name: str) -> Callable[[Any], ControllerDriver]:
    def make(env: Any) -> ControllerDriver:
        world: LateralWorld = env.unwrapped.world
        return ControllerDriver(world, CONTROLLERS[name](world.simulation))

    return make


DRIVERS: Mapping[str, Callable[[Any], ControllerDriver]] = {name: _driver(name) for name in CONTROLLERS}
