"""What an action of the environment means as a steer, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.lateral.config import LateralConfig
from racer.envs.lateral.controllers import FeedForward
from racer.envs.lateral.rules import MAX_STEER
from racer.envs.lateral.simulation import Signals

__all__ = ["ActionMap"]


@dataclass(frozen=True)
class ActionMap:
    """Actions in [-1, 1] as steers in [-2, 2].

    Attributes:
        kind: one of :data:`racer.envs.lateral.config.ACTIONS`.
        size: steer of an action of 1 as increment or residual.
    """

    kind: str
    size: float

    @classmethod
    def of(cls, config: LateralConfig) -> ActionMap:
        """Return the map of a configuration."""
        return cls(config.action, config.action_size)

    def steers(self, signals: Signals, actions: Any) -> Any:
        """Return steers ``[N]`` for actions ``[N]``, all in NumPy arrays, or all in JAX's."""
        xp = signals.target.__array_namespace__()
        given = xp.clip(xp.asarray(actions, signals.target.dtype), -1.0, 1.0)
        return xp.clip(self._origin(signals) + self._scale * given, -MAX_STEER, MAX_STEER)

    def actions(self, signals: Signals, steers: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the actions ``[N]`` that come nearest to steers ``[N]``."""
        wanted = np.clip(np.asarray(steers, np.float64), -MAX_STEER, MAX_STEER)
        return np.clip((wanted - self._origin(signals)) / self._scale, -1.0, 1.0)

    @property
    def _scale(self) -> float:
        return MAX_STEER if self.kind == "steer" else self.size

    def _origin(self, signals: Signals) -> Any:
        if self.kind == "increment":
            return signals.actions[:, -1]
        if self.kind == "residual":
            return signals.target.__array_namespace__().clip(FeedForward()(signals), -MAX_STEER, MAX_STEER)
        return signals.target * 0.0
