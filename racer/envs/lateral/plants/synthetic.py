"""A small plant that needs no file: first-order lag, gain by speed, delay and a slow drift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from racer.envs.lateral.generator import steady_gain
from racer.envs.lateral.plants import Memory

__all__ = ["SyntheticPlant"]

_DRIFT_KEPT = 0.98
_DRIFT_NOISE = 0.012
_NOISE = 0.03
_DELAYS = (2, 4)
_LAGS = (0.25, 0.4)


class SyntheticPlant:
    """``y += lag * (G(v) * steer_delayed + roll + drift - y) + noise``, with ``drift = 0.98 drift + noise``.

    Every episode has its own delay of 2 to 4 steps and its own lag. Both come from draws that fall before the first
    controlled step, so an episode follows from its draws as with the learned plant.
    """

    def start(self, uniforms: NDArray[np.float64]) -> Memory:
        low, high = _DELAYS
        return {
            "delay": np.floor(low + (high + 1 - low) * uniforms[:, 0]),
            "lag": _LAGS[0] + (_LAGS[1] - _LAGS[0]) * uniforms[:, 1],
            "drift": _normal(uniforms[:, 2]) * _DRIFT_NOISE / np.sqrt(1.0 - _DRIFT_KEPT**2),
        }

    def step(
        self,
        states: NDArray[np.float64],
        lataccels: NDArray[np.float64],
        uniforms: NDArray[np.float64],
        memory: Memory,
    ) -> tuple[NDArray[np.float64], Memory]:
        noise = _normal(uniforms)
        mean, deviation = self.moments(states, lataccels, memory)
        drift = _DRIFT_KEPT * memory["drift"] + _DRIFT_NOISE * noise
        return np.clip(mean + deviation * noise, -5.0, 5.0), {**memory, "drift": drift}

    def moments(
        self, states: NDArray[np.float64], lataccels: NDArray[np.float64], memory: Memory
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        current, rows = lataccels[:, -1], np.arange(len(states))
        steer = states[rows, states.shape[1] - 1 - memory["delay"].astype(np.int64), 0]
        settled = steady_gain(states[:, -1, 2]) * steer + states[:, -1, 1] + _DRIFT_KEPT * memory["drift"]
        # The draw that moves the drift is the step's noise as well.
        return current + memory["lag"] * (settled - current), memory["lag"] * _DRIFT_NOISE + _NOISE


def _normal(uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard normal numbers for draws in [0, 1)."""
    from scipy.special import ndtri  # type: ignore[import-untyped]

    return ndtri(np.clip(uniforms, 1e-9, 1.0 - 1e-9))
