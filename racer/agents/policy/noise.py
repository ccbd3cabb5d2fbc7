"""Exploration whose noise is correlated in time.

White noise at 5 Hz cancels out before the car has moved: a policy that holds its lane or its speed damps it away. Noise
with a memory of a second or two changes lanes and speeds. Each draw alone is still standard normal, so the policy's own
distribution in a state, and with it what an off-policy learner assumes, stays as it was (an autoregressive form of the
Ornstein-Uhlenbeck noise of Lillicrap et al. 2015, arXiv 1509.02971, put inside the policy's distribution).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["CorrelatedGenerator", "exploration_generator"]


class CorrelatedGenerator(np.random.Generator):
    """Draws standard normal arrays ``x_t = c x_(t-1) + sqrt(1 - c^2) e_t``; other draws are as usual.

    Draws of another shape than the last begin anew.

    Args:
        bit_generator: source of all randomness.
        correlation: ``c``, in [0, 1).
        noise: the last draw, where a generator goes on.
    """

    def __init__(
        self, bit_generator: np.random.BitGenerator, correlation: float, noise: np.ndarray | None = None
    ) -> None:
        super().__init__(bit_generator)
        self.correlation = np.float32(correlation)
        self._share = np.float32(np.sqrt(1.0 - correlation**2))
        self.noise = noise

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """Return the next draw, float32 or float64."""
        fresh = super().standard_normal(size, dtype, out)
        if self.noise is None or np.shape(fresh) != self.noise.shape:
            self.noise = np.array(fresh)
        else:
            self.noise = self.correlation * self.noise + self._share * fresh
        return self.noise.copy()


def exploration_generator(
    policy_spec: Mapping[str, Any], rng: np.random.Generator, noise: np.ndarray | None = None
) -> np.random.Generator:
    """Return what a collecting policy of this specification draws from: ``rng``, or its correlated form.

    Args:
        policy_spec: whose ``noise_correlation`` counts; 0 where it has none.
        rng: the stream.
        noise: the last draw, where collecting goes on.
    """
    correlation = float(policy_spec.get("noise_correlation", 0.0))
    return CorrelatedGenerator(rng.bit_generator, correlation, noise) if correlation > 0.0 else rng
