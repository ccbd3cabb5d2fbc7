"""Made-up routes whose difficulty is that of real ones, seeded, in three splits that share none.

Speeds, road roll and targets are random processes; a route is of one of two kinds, each for half of them. On the
learned plant the reference PID costs what it costs on recorded routes (docs/lateral.md prints it).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError, unknown_name
from racer.envs.lateral.routes import SPLITS, Route
from racer.envs.lateral.rules import FIRST_STEP, GRAVITY, STEP

__all__ = ["ROWS", "GeneratedRoutes", "generate_route", "steady_gain"]

ROWS = 600
GENERATED_SPLITS = SPLITS[:3]
MAX_ROUTES = 1 << 31

_MAX_TARGET = 4.9
_LEAST_SPEED, _GREATEST_SPEED = 1.0, 45.0
_JITTER = 0.012
_SMOOTHING = 0.4
_JUMP_SIZE, _JUMP_DECAY = 1.0, 0.6


@dataclass(frozen=True)
class _Kind:
    """How the targets of a kind of route are drawn.

    Attributes:
        wander: median amplitude of the slow wander (m/s^2).
        wander_spread: standard deviation of its logarithm.
        bends: expected number of bends, by class.
        bend_seconds: shortest and longest.
        bend_amplitudes: standard deviation of a bend's height by class (m/s^2).
        shares: probability of each class.
        jumps: expected number of decaying jumps.
    """

    wander: float
    wander_spread: float
    bends: tuple[float, ...]
    bend_seconds: tuple[float, float]
    bend_amplitudes: tuple[float, ...]
    shares: tuple[float, ...]
    jumps: float


_KINDS = (
    _Kind(0.15, 0.6, (0.5, 2.5, 5.0), (2.5, 14.0), (0.4, 0.9, 1.6), (0.6, 0.3, 0.1), 0.0),
    _Kind(0.12, 0.7, (0.5, 3.0, 7.0), (4.0, 16.0), (0.4, 1.0, 1.4), (0.5, 0.4, 0.1), 6.0),
)


def steady_gain(speed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lateral acceleration that a unit of steer settles at (m/s^2), by forward speed (m/s)."""
    return 0.0093 * speed + 1.34


def generate_route(seed: int, split: str, number: int) -> Route:
    """Make route ``number`` of a split; equal arguments give equal routes.

    Raises:
        UsageError: an unknown split, or a negative seed or number.
    """
    if split not in GENERATED_SPLITS:
        raise unknown_name("split of generated routes", split, GENERATED_SPLITS)
    if seed < 0 or number < 0:
        raise UsageError(f"seed and number of a generated route are at least 0, not {seed} and {number}")
    rng = np.random.default_rng([seed, GENERATED_SPLITS.index(split), number])
    kind = _KINDS[int(rng.integers(len(_KINDS)))]
    speed, acceleration = _speeds(rng)
    roll = rng.normal(0.0, 0.012) + _smoothed(_ornstein_uhlenbeck(rng, 8.0, 0.018), times=3)
    target = np.clip(_targets(rng, kind), -_MAX_TARGET, _MAX_TARGET)
    # The sign of a file is left-positive; blank from the first controlled step on.
    steer = -(target - np.sin(roll) * GRAVITY) / steady_gain(speed)
    steer[FIRST_STEP:] = np.nan
    time = np.round(np.arange(ROWS) * STEP, 1)
    return Route(f"{number:05d}.csv", np.stack([time, speed, acceleration, roll, target, steer], axis=1))


class GeneratedRoutes:
    """All routes of a seed and a split, made when they are asked for."""

    def __init__(self, seed: int, split: str) -> None:
        if split not in GENERATED_SPLITS:
            raise unknown_name("split of generated routes", split, GENERATED_SPLITS)
        self._seed, self._split = seed, split

    def __len__(self) -> int:
        return MAX_ROUTES

    def __getitem__(self, number: int) -> Route:
        return _kept(self._seed, self._split, int(number))


_kept = lru_cache(maxsize=256)(generate_route)


def _ornstein_uhlenbeck(rng: np.random.Generator, tau: float, sigma: float) -> NDArray[np.float64]:
    """Return a stationary path ``[ROWS]`` with standard deviation ``sigma`` and time constant ``tau`` (s)."""
    keep = np.exp(-STEP / tau)
    noise = rng.standard_normal(ROWS) * sigma * np.sqrt(1.0 - keep**2)
    noise[0] = rng.normal(0.0, sigma)
    # x_k = sum of keep^(k - j) noise_j, written as a cumulative sum: 600 steps of tau above a second stay in range.
    growth = keep ** -np.arange(ROWS)
    return np.cumsum(noise * growth) / growth


def _smoothed(path: NDArray[np.float64], times: int = 1) -> NDArray[np.float64]:
    """Return a path ``[ROWS]`` without its corners, which roads have not: averages over the last second.

    The learned plant has seen recorded roads only, and is the noisier the less a route looks like one.
    """
    weights = np.exp(-np.arange(10) * STEP / _SMOOTHING)
    for _ in range(times):
        padded = np.concatenate([np.full(len(weights) - 1, path[0]), path])
        path = np.convolve(padded, weights / weights.sum(), "valid")
    return path


def _speeds(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    start = rng.normal(30.0, 3.5) if rng.random() < 0.6 else rng.normal(18.0, 6.0)
    acceleration = _ornstein_uhlenbeck(rng, 6.0, 0.35)
    speed = np.clip(start + np.cumsum(acceleration) * STEP, _LEAST_SPEED, _GREATEST_SPEED)
    return speed, acceleration


def _targets(rng: np.random.Generator, kind: _Kind) -> NDArray[np.float64]:
    amplitude = kind.wander * np.exp(kind.wander_spread * rng.standard_normal())
    target = amplitude * _smoothed(_ornstein_uhlenbeck(rng, 4.0, 1.0))
    number = int(rng.choice(len(kind.shares), p=kind.shares))
    time = np.arange(ROWS) * STEP
    for _ in range(rng.poisson(kind.bends[number])):
        length, centre = rng.uniform(*kind.bend_seconds), rng.uniform(0.0, ROWS * STEP)
        height = rng.normal(0.0, kind.bend_amplitudes[number])
        phase = np.clip((time - centre) / length, -0.5, 0.5)
        target += height * 0.5 * (1.0 + np.cos(2.0 * np.pi * phase))
    for _ in range(rng.poisson(kind.jumps)):
        start, height = int(rng.integers(ROWS)), rng.normal(0.0, _JUMP_SIZE * amplitude)
        target[start:] += height * np.exp(-time[: ROWS - start] / _JUMP_DECAY)
    return target + rng.normal(0.0, _JITTER, ROWS)
