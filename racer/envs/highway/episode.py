"""What is measured of an episode: the same numbers online, in training logs and in evaluation.

The shares of reverse driving, spinning and standing still are there because continuous control of highway-env is
known to be exploited that way: a return alone would not show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError

__all__ = [
    "EPISODE_METRICS",
    "REVERSE_SPEED",
    "SPIN_RATE",
    "STANDSTILL_SPEED",
    "SUMS",
    "EpisodeRecorder",
    "checked_accounts",
]

REVERSE_SPEED = -0.5
"""Forward speeds below this count as driving backwards (m/s)."""

STANDSTILL_SPEED = 1.0
"""Speeds below this in magnitude count as standing still (m/s)."""

SPIN_RATE = 1.0
"""Turning faster than this counts as spinning (rad/s). A brisk lane change stays under 0.3 rad/s."""

EPISODE_METRICS = (
    "return",
    "base_return",
    "length",
    "crashed",
    "off_road",
    "success",
    "mean_speed",
    "mean_forward_speed",
    "reverse_share",
    "spin_share",
    "standstill_share",
    "violation_rate",
    "min_distance",
    "mean_safety_reward",
)

SUMS = (
    "return", "base_return", "length", "speed", "forward_speed", "reverse", "spin", "standstill", "violation",
    "safety_reward",
)  # fmt: skip
"""What is added up over an episode."""


class EpisodeRecorder:
    """Accumulates the metrics of the running episode in each of N environments."""

    def __init__(self, num_envs: int, policy_frequency: float) -> None:
        """``policy_frequency`` in Hz turns the change of heading between two steps into a rate."""
        self._frequency = policy_frequency
        self._sums = {name: np.zeros(num_envs) for name in SUMS}
        self._min_distance = np.full(num_envs, np.inf)
        self._heading = np.zeros(num_envs)

    def start(self, indices: NDArray[np.intp], heading: NDArray[np.float64], distance: NDArray[np.float64]) -> None:
        """Begin an episode in ``indices`` from the heading (rad) and nearest distance (m) after its reset."""
        for total in self._sums.values():
            total[indices] = 0.0
        self._min_distance[indices] = distance
        self._heading[indices] = heading

    def add(
        self,
        *,
        reward: NDArray[np.float64],
        base_reward: NDArray[np.float64],
        safety_reward: NDArray[np.float64],
        speed: NDArray[np.float64],
        forward_speed: NDArray[np.float64],
        heading: NDArray[np.float64],
        distance: NDArray[np.float64],
    ) -> None:
        """Add one step of all environments; arrays ``[N]``."""
        turn_rate = np.abs(heading - self._heading) * self._frequency
        for name, value in (
            ("return", reward),
            ("base_return", base_reward),
            ("length", 1.0),
            ("speed", speed),
            ("forward_speed", forward_speed),
            ("reverse", forward_speed < REVERSE_SPEED),
            ("spin", turn_rate > SPIN_RATE),
            ("standstill", np.abs(speed) < STANDSTILL_SPEED),
            ("violation", safety_reward < 0),
            ("safety_reward", safety_reward),
        ):
            self._sums[name] += value
        np.minimum(self._min_distance, distance, out=self._min_distance)
        self._heading[:] = heading

    def metrics(
        self, crashed: NDArray[np.bool_], off_road: NDArray[np.bool_], ended: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.float64]]:
        """Return the metrics so far, each ``[N]``; meaningful where ``ended``.

        ``off_road`` says that the ego is off the road in the episode's last step; success is running to the time
        limit without that and without a crash.
        """
        steps = np.maximum(self._sums["length"], 1.0)
        return {
            "return": self._sums["return"].copy(),
            "base_return": self._sums["base_return"].copy(),
            "length": self._sums["length"].copy(),
            "crashed": crashed.astype(np.float64),
            "off_road": off_road.astype(np.float64),
            "success": (ended & ~crashed & ~off_road).astype(np.float64),
            "mean_speed": self._sums["speed"] / steps,
            "mean_forward_speed": self._sums["forward_speed"] / steps,
            "reverse_share": self._sums["reverse"] / steps,
            "spin_share": self._sums["spin"] / steps,
            "standstill_share": self._sums["standstill"] / steps,
            "violation_rate": self._sums["violation"] / steps,
            "min_distance": self._min_distance.copy(),
            "mean_safety_reward": self._sums["safety_reward"] / steps,
        }

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Return the running sums as arrays."""
        return {
            **{f"sum/{name}": total.copy() for name, total in self._sums.items()},
            "min_distance": self._min_distance.copy(),
            "heading": self._heading.copy(),
        }

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Return to :meth:`get_state`; :func:`checked_accounts` has seen the arrays."""
        for name, total in self._sums.items():
            total[:] = state[f"sum/{name}"]
        self._min_distance[:] = state["min_distance"]
        self._heading[:] = state["heading"]


def checked_accounts(state: Mapping[str, Any], num_envs: int) -> dict[str, NDArray[Any]]:
    """Return the accounts of ``num_envs`` running episodes out of a state that may come from a file.

    They are ``steps`` (int64) and, after ``episode/``, what :meth:`EpisodeRecorder.get_state` returns.

    Raises:
        UsageError: an array is missing, has another shape or type, or holds what no episode can; it is named.
    """
    counts = ("length", "reverse", "spin", "standstill", "violation")
    accounts: dict[str, NDArray[Any]] = {}
    for name in ("steps", *(f"episode/sum/{name}" for name in SUMS), "episode/min_distance", "episode/heading"):
        if name not in state:
            raise UsageError(f"the state of the environments lacks {name!r}")
        array = np.asarray(state[name])
        kind = np.dtype(np.int64 if name == "steps" else np.float64)
        if array.shape != (num_envs,) or array.dtype != kind:
            raise UsageError(f"the state's {name!r} is {array.dtype} {array.shape}, not {kind} {(num_envs,)}")
        if name == "episode/min_distance":
            # infinite before the first reset
            sound = array >= 0
        elif name == "steps" or name.removeprefix("episode/sum/") in counts:
            sound = (array >= 0) & (array < 2**53)
        else:
            sound = np.isfinite(array)
        if not sound.all():
            raise UsageError(f"the state's {name!r} holds {array[~sound][0]}, which no episode reaches")
        accounts[name] = array
    return accounts
