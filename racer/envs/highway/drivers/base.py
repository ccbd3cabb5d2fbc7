"""What the drivers share: the road that they drive on, the door that they act through, and the actions they choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.envs.highway.config import action_names
from racer.envs.highway.geometry import LANE_WIDTH
from racer.envs.highway.reward import ROW_FEATURES
from racer.envs.highway.views import Targets
from racer.envs.highway.world import RiskWorld

__all__ = ["Driver", "Road", "aim", "read_rows"]

ACTION_NAMES = ("acceleration", "steering")


class Driver(Protocol):
    """Acts in the environments that it was made for, as :class:`racer.networks.policy.Policy` does; NumPy only.

    A driver takes no parameters and draws nothing from ``key``: it does the same for the same observations (and
    states of the environments) and memory, whatever the other rows of the batch hold.
    """

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        """Return the memory of ``count`` episodes that begin: zeros."""
        ...

    def act(
        self,
        params: Mapping[str, Any],
        observations: Any,
        memory: Mapping[str, Any],
        key: Any,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.float32], dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return actions ``[N, 2]`` for observations ``[N, ...]``, the memory after them, and no extras."""
        ...


@dataclass(frozen=True)
class Road:
    """What a driver must know of its world.

    Attributes:
        lanes: of the road.
        frames: simulation frames in a policy step.
        frame: duration of one (s).
        step: duration of a policy step as simulated (s).
    """

    lanes: int
    frames: int
    frame: float

    @property
    def step(self) -> float:
        return self.frames * self.frame

    @classmethod
    def of(cls, world: RiskWorld) -> Road:
        """Read a world.

        Raises:
            UsageError: its observation or its action is not what drivers read and give; the message names the key.
        """
        config = world.config
        _check(config)
        simulation = float(config["simulation_frequency"])
        return cls(int(config["lanes_count"]), int(simulation // config["policy_frequency"]), 1 / simulation)


def read_rows(observations: Any) -> NDArray[np.float32]:
    """Return observations ``[N, ...]`` as rows ``[N, V, 6]``."""
    found = np.asarray(observations, dtype=np.float32)
    return found.reshape(len(found), -1, len(ROW_FEATURES))


def aim(
    rows: NDArray[np.float32], lane: NDArray[np.float64], speed: NDArray[np.float64], lanes: int
) -> NDArray[np.float32]:
    """Return the actions ``[N, 2]`` that bring the ego towards lanes ``[N]`` at speeds ``[N]`` (m/s)."""
    offset = np.clip((LANE_WIDTH * lane - rows[:, 0, 2]) / 4.5, -1.0, 1.0)
    chosen = np.stack([(speed - 30.0) / 10.0, offset], axis=-1).astype(np.float32)
    return Targets(lanes)(rows, chosen).astype(np.float32)


def _check(config: Mapping[str, Any]) -> None:
    action, observation = config["action"], config["observation"]
    if action_names(action) != ACTION_NAMES:
        raise UsageError(f"drivers choose {', '.join(ACTION_NAMES)}: they need action.type 'ContinuousAction'")
    for key in ("acceleration_range", "steering_range", "speed_range"):
        if action.get(key):
            raise UsageError(f"drivers know the usual ranges only: leave out action.{key}, {action[key]!r}")
    needed = {"features": list(ROW_FEATURES), "normalize": False, "absolute": False, "order": "sorted"}
    for key, value in needed.items():
        if observation.get(key) != value:
            raise UsageError(f"drivers need observation.{key} {value!r}, not {observation.get(key)!r}")
