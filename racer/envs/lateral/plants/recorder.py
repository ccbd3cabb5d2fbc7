"""A plant that notes what it is asked and what it would draw from, for a model of it to learn from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from racer.envs.lateral.plants import Memory, Plant

__all__ = ["Recorder", "Seen"]


class Seen(NamedTuple):
    """What a plant was asked and would draw from; ``[M, ...]``, float32.

    Attributes:
        states: as :class:`racer.envs.lateral.plants.Plant` takes them, ``[M, 20, 4]``.
        lataccels: the same, ``[M, 20]``.
        means: of the next lateral acceleration (m/s^2), ``[M]``.
        deviations: of the same, ``[M]``.
    """

    states: NDArray[np.float32]
    lataccels: NDArray[np.float32]
    means: NDArray[np.float32]
    deviations: NDArray[np.float32]


class Recorder:
    """A plant that remembers what it was asked.

    Args:
        plant: that answers.
    """

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._seen: list[tuple[NDArray[Any], ...]] = []

    def start(self, uniforms: NDArray[np.float64]) -> Memory:
        return self._plant.start(uniforms)

    def moments(
        self, states: NDArray[np.float64], lataccels: NDArray[np.float64], memory: Memory
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._plant.moments(states, lataccels, memory)

    def step(
        self,
        states: NDArray[np.float64],
        lataccels: NDArray[np.float64],
        uniforms: NDArray[np.float64],
        memory: Memory,
    ) -> tuple[NDArray[np.float64], Memory]:
        self._seen.append((states, lataccels, *self._plant.moments(states, lataccels, memory)))
        return self._plant.step(states, lataccels, uniforms, memory)

    @property
    def seen(self) -> Seen:
        """All of it, one step of all episodes after the other."""
        return Seen(*(np.concatenate(column).astype(np.float32) for column in zip(*self._seen, strict=True)))
