"""A controller that looks ahead through the plant itself: one step of policy improvement on the feed-forward one.

Before every step it lets copies of each episode run on for a short while, all under draws of its own, with the
feed-forward controller's steer shifted by a few offsets. A parabola through the offsets' mean costs says which offset
to steer by (rollout, Bertsekas & Castañon 1999, with common random numbers). It never sees the draws to come.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from racer.envs.lateral.controllers import Controller, FeedForward
from racer.envs.lateral.rules import DRAWS
from racer.envs.lateral.simulation import Signals, Simulation

__all__ = ["ModelPredictive"]


class ModelPredictive:
    """See the module.

    Args:
        simulation: that it steers.
        base: the controller that is improved on.
        horizon: steps that the copies run.
        offsets: of the steer, tried in every step; at least three.
        samples: random streams of each.
        seed: of its own draws.
    """

    def __init__(
        self,
        simulation: Simulation,
        *,
        base: Controller | None = None,
        horizon: int = 8,
        offsets: tuple[float, ...] = (-0.12, -0.05, 0.0, 0.05, 0.12),
        samples: int = 4,
        seed: int = 0,
    ) -> None:
        self._simulation, self._base = simulation, FeedForward() if base is None else base
        self._horizon, self._samples, self._offsets = horizon, samples, np.array(offsets)
        self._rng = np.random.default_rng(seed)
        self._fit = np.linalg.pinv(np.vander(self._offsets, 3))

    def __call__(self, signals: Signals) -> NDArray[np.float64]:
        return self._base(signals) + self._best(self._tried())

    def _tried(self) -> NDArray[np.float64]:
        """Return the mean cost of each offset in each episode, ``[C, N]``."""
        count, num = len(self._offsets), self._simulation.num
        copy = self._simulation.copies(np.tile(np.arange(num), count * self._samples))
        copy.redraw(np.tile(self._rng.random((self._samples * num, DRAWS)), (count, 1)))
        offsets = np.repeat(self._offsets, self._samples * num)
        total, running = np.zeros(copy.num), np.ones(copy.num, bool)
        for _ in range(self._horizon):
            step = copy.step(self._base(copy.signals()) + offsets)
            total += np.where(running, step.costs.total, 0.0)
            running &= ~step.ended
        return total.reshape(count, self._samples, num).mean(axis=1)

    def _best(self, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the offsets ``[N]`` at the least of a parabola through costs ``[C, N]``, within those tried."""
        curvature, slope, _ = self._fit @ costs
        inner = -slope / (2.0 * np.maximum(curvature, 1e-12))
        tried = self._offsets[costs.argmin(axis=0)]
        return np.clip(np.where(curvature > 1e-12, inner, tried), self._offsets.min(), self._offsets.max())
