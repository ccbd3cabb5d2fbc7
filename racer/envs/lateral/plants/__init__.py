"""Plants: how a car answers its steering. ``synthetic`` needs no file; any other name is the learned one's path."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["SYNTHETIC", "Memory", "Plant", "make_plant"]

SYNTHETIC = "synthetic"

Memory = dict[str, NDArray[np.float64]]
"""What a plant remembers of episodes beyond their history, by name ``[N, ...]``."""


class Plant(Protocol):
    """A batch of cars, one step at a time. A plant holds no state: what it remembers is handed in and out."""

    def start(self, uniforms: NDArray[np.float64]) -> Memory:
        """Return the memory of episodes that begin, from their draws ``[N, DRAWS]``."""
        ...

    def step(
        self,
        states: NDArray[np.float64],
        lataccels: NDArray[np.float64],
        uniforms: NDArray[np.float64],
        memory: Memory,
    ) -> tuple[NDArray[np.float64], Memory]:
        """Return the next lateral accelerations (m/s^2) ``[N]``, before their change is limited, and the memory.

        Args:
            states: ``[N, 20, 4]``: steer, lateral acceleration of the road's roll (m/s^2), forward speed (m/s) and
                acceleration (m/s^2), the last row being the step's own.
            lataccels: ``[N, 20]``, the ones before the step.
            uniforms: ``[N]``, the step's draw in [0, 1).
            memory: from the last step.
        """
        ...

    def moments(
        self, states: NDArray[np.float64], lataccels: NDArray[np.float64], memory: Memory
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and deviation (m/s^2) of what :meth:`step` draws from, ``[N]`` each."""
        ...


def make_plant(name: str) -> Plant:
    """Return the plant that ``name`` means: :data:`SYNTHETIC`, or the learned one from the ONNX file at that path.

    Raises:
        UsageError: the file is missing, no ONNX file, or another one than is known.
    """
    if name == SYNTHETIC:
        from racer.envs.lateral.plants.synthetic import SyntheticPlant

        return SyntheticPlant()
    from racer.envs.lateral.plants.learned import learned_plant

    return learned_plant(name)
