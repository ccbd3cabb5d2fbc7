"""The door between the RACER environment and the simulators behind it.

An engine steps highway scenes and tells what happened; it knows nothing of RACER's reward. Two exist: highway-env
itself (:mod:`racer.envs.highway.reference`) and the exact compiled one (:mod:`racer.envs.highway.compiled`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from racer.envs.highway.reward import ROW_FEATURES

__all__ = ["Engine", "Scenes", "make_engine", "scene_observation"]


@dataclass(frozen=True)
class Scenes:
    """What an engine reports of N scenes, after a step or a reset."""

    observations: NDArray[np.float32]  # [N, V, F], the configured observation, before clipping
    rows: NDArray[np.float32]  # [N, R, 6], features ROW_FEATURES, in metres and m/s, ego-relative
    rewards: NDArray[np.float64]  # [N], highway-env's own reward
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N], by highway-env's clock
    speed: NDArray[np.float64]  # [N] m/s, of the ego, signed
    heading: NDArray[np.float64]  # [N] rad, of the ego, not wrapped
    crashed: NDArray[np.bool_]  # [N]
    on_road: NDArray[np.bool_]  # [N], highway-env's flag
    lateral_offset: NDArray[np.float64]  # [N] m, from the centre of the closest lane


class Engine(Protocol):
    """Steps ``num_envs`` scenes. No automatic resets: the caller decides what follows an episode's end."""

    num_envs: int
    single_action_space: spaces.Space

    def reset(self, seeds: Sequence[int | None], indices: NDArray[np.intp]) -> None:
        """Start new episodes in ``indices``; a seed re-seeds as ``env.reset(seed=...)``."""

    def step(self, actions: NDArray[Any], on_frame: Callable[[], None] | None = None) -> None:
        """Take one policy step everywhere; ``on_frame`` runs after every simulation frame but the last."""

    def scenes(self, indices: NDArray[np.intp]) -> Scenes:
        """Report the scenes ``indices`` as they are now, in arrays of the caller's own."""

    def cars(self, index: int) -> NDArray[np.float64]:
        """Return the vehicles of scene ``index``, ``[V, 6]``: x, y (m), heading (rad), length, width, crashed.

        The ego comes first.
        """

    def render(self, index: int) -> NDArray[np.uint8]:
        """Draw scene ``index`` with highway-env's viewer, ``[H, W, 3]``."""

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides how the scenes go on, as arrays."""

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Return to a state from :meth:`get_state`, exactly.

        Raises:
            UsageError: the state lacks something or holds what no state can hold; nothing has changed then.
        """

    def close(self) -> None:
        """Free the viewer."""


def scene_observation(observation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the observation that safety is computed from, whatever the agent is shown.

    It sees as many vehicles, and behind the ego exactly if the agent's observation does; it is never shuffled, as
    that would draw from the scene's random stream.
    """
    return {
        "type": "Kinematics",
        "features": list(ROW_FEATURES),
        "vehicles_count": observation.get("vehicles_count", 5),
        "normalize": False,
        "absolute": False,
        "order": "sorted",
        "see_behind": observation.get("see_behind", False),
    }


def shows_scene(observation: Mapping[str, Any]) -> bool:
    """Whether the agent's observation is :func:`scene_observation` already, so that one read serves both."""
    scene = scene_observation(observation)
    defaults = {"features": None, "normalize": True, "absolute": False, "order": "sorted"}
    return all(observation.get(key, default) == scene[key] for key, default in defaults.items())


def make_engine(config: Mapping[str, Any], num_envs: int, num_threads: int = 1) -> Engine:
    """Build the engine that a resolved configuration names. Imported late: each brings heavy packages.

    ``num_threads`` share a step of the compiled engine; highway-env has no use for them.
    """
    if config["engine"] == "highway-env":
        from racer.envs.highway.reference import HighwayEnvEngine

        return HighwayEnvEngine(config, num_envs)
    from racer.envs.highway.compiled import CompiledEngine

    return CompiledEngine(config, num_envs, num_threads)
