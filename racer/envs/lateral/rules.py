"""The rules of the task: constants, tokens, sampling, costs and seeds, as comma.ai's controls challenge v2 has them.

NumPy only, in float64 but for the softmax, which the official scorer takes in float32.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BINS",
    "CONTEXT",
    "DRAWS",
    "FIRST_STEP",
    "GRAVITY",
    "LAST_STEP",
    "LATACCEL_WEIGHT",
    "MAX_CHANGE",
    "MAX_INTEGRAL",
    "MAX_LATACCEL",
    "MAX_STEER",
    "PLAN",
    "SEEDS",
    "STEP",
    "STEPS",
    "TEMPERATURE",
    "Costs",
    "decode",
    "encode",
    "episode_costs",
    "official_seed",
    "official_uniforms",
    "probabilities",
    "sampled_tokens",
    "step_costs",
]

STEP = 0.1
"""Seconds of a step."""

CONTEXT = 20
"""Steps of history that a plant reads; the first ones are given."""

FIRST_STEP, LAST_STEP = 100, 500
"""The controller's steers count from the first on; costs are taken over steps before the last."""

STEPS = LAST_STEP - FIRST_STEP
"""Controlled steps of a full episode."""

DRAWS = LAST_STEP - CONTEXT
"""Uniform draws of an episode: one for each step from :data:`CONTEXT` on."""

PLAN = 49
"""Rows of the future that a controller is told."""

GRAVITY = 9.81
MAX_STEER = 2.0
MAX_CHANGE = 0.5
"""Greatest change of the lateral acceleration in a step (m/s^2)."""

MAX_LATACCEL = 5.0
MAX_INTEGRAL = 15.0
"""Of the sum of errors that is clamped (m/s^2): beyond it the steer is at its limit, and the sum would only wind up."""

TEMPERATURE = 0.8
SEEDS = 10_000
"""Different random streams that the official scorer has."""

LATACCEL_WEIGHT = 50.0
BINS: NDArray[np.float64] = np.linspace(-MAX_LATACCEL, MAX_LATACCEL, 1024)
"""Lateral acceleration that each token stands for (m/s^2)."""


class Costs(NamedTuple):
    """Costs of episodes, ``[N]`` each.

    Attributes:
        total: ``50 * lataccel + jerk``, what is to be small.
        lataccel: 100 times the mean squared error of the lateral acceleration.
        jerk: 100 times the mean squared jerk.
    """

    total: NDArray[np.float64]
    lataccel: NDArray[np.float64]
    jerk: NDArray[np.float64]


def encode(lataccels: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the tokens of lateral accelerations (m/s^2)."""
    return np.digitize(np.clip(lataccels, -MAX_LATACCEL, MAX_LATACCEL), BINS, right=True)


def decode(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the lateral accelerations (m/s^2) that tokens stand for."""
    return BINS[tokens]


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of the tokens, ``[N, 1024]`` float32, as the official scorer takes them from logits."""
    scaled = logits / np.float32(TEMPERATURE)
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def sampled_tokens(logits: NDArray[np.float32], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draw a token for each row.

    Args:
        logits: ``[N, 1024]`` float32.
        uniforms: ``[N]`` in [0, 1), the only randomness.
    """
    cdf = np.cumsum(probabilities(logits), axis=-1, dtype=np.float64)
    cdf /= cdf[:, -1:]
    # The first place that exceeds the draw: what searchsorted(side="right") finds in each row.
    return (cdf <= uniforms[:, None]).sum(axis=-1)


def step_costs(
    errors: NDArray[np.float64], changes: NDArray[np.float64], steps: NDArray[np.int64], first: NDArray[np.bool_]
) -> Costs:
    """Return what one step adds to the costs of an episode; over all its steps the sums are :func:`episode_costs`.

    Args:
        errors: target minus actual (m/s^2), ``[N]``.
        changes: of the lateral acceleration in the step (m/s^2), ``[N]``.
        steps: in the episode, ``[N]``.
        first: where the step is the episode's first, whose change is not counted, ``[N]``.
    """
    lataccel = 100.0 * np.square(errors) / steps
    jerk = np.where(first, 0.0, 100.0 * np.square(changes / STEP) / np.maximum(steps - 1, 1))
    return Costs(LATACCEL_WEIGHT * lataccel + jerk, lataccel, jerk)


def episode_costs(targets: NDArray[np.float64], actual: NDArray[np.float64]) -> Costs:
    """Return the costs of one trace, ``[]`` each, from targets and lateral accelerations ``[T]`` of the cost window."""
    lataccel = np.asarray(100.0 * np.mean(np.square(targets - actual)))
    jerk = np.asarray(100.0 * np.mean(np.square(np.diff(actual) / STEP)))
    return Costs(LATACCEL_WEIGHT * lataccel + jerk, lataccel, jerk)


def official_seed(path: str) -> int:
    """Return the seed that the official scorer gives to the route file at ``path``, as it was written."""
    return int(hashlib.md5(path.encode(), usedforsecurity=False).hexdigest(), 16) % SEEDS


def official_uniforms(seed: int) -> NDArray[np.float64]:
    """Return the draws of an episode with an official seed, ``[DRAWS]``: those of NumPy's legacy generator."""
    return np.random.RandomState(seed).random_sample(DRAWS)
