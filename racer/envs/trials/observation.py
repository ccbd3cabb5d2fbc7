"""What the ego sees: itself on its way to the goal, the cars around it, the clock, and what the last step paid."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from racer.envs.trials.config import TrialsConfig
from racer.envs.trials.scenes import START_SPEED

__all__ = ["BOUND", "observation_names", "observation_space", "observe"]

BOUND = 5.0
"""No number of an observation is beyond it."""

EGO = ("to_go", "y", "speed", "lateral_speed", "target_lane", "target_speed", "clock")
CAR = ("presence", "x", "y", "vx", "vy")
CAR_SCALES = (1.0, 100.0, 12.0, 20.0, 5.0)


def observation_names(config: TrialsConfig) -> tuple[str, ...]:
    """Name every number of an observation, in order."""
    cars = tuple(f"{name}_{i}" for i in range(config.vehicles_seen) for name in CAR)
    arms = tuple(f"arm_{i}" for i in range(config.arm_count)) if config.show_arm else ()
    return (*EGO, *cars, *arms, *(("last_reward",) if config.show_reward else ()))


def observation_space(config: TrialsConfig) -> spaces.Box:
    """Return the space of one environment's observations."""
    return spaces.Box(-BOUND, BOUND, (len(observation_names(config)),), np.float32)


def observe(
    config: TrialsConfig,
    rows: NDArray[np.float32],
    to_go: NDArray[np.float64],
    target_lane: NDArray[np.int64],
    target_speed: NDArray[np.float64],
    clock: NDArray[np.int64],
    arms: NDArray[np.int64],
    rewards: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Return observations ``[N, D]``.

    Args:
        config: of the world.
        rows: ``[N, V, 5]``, the ego and the cars around it, m and m/s.
        to_go: share of the way that is left.
        target_lane: lane that a choice has set; the closest one for continuous actions.
        target_speed: m/s, that a choice has set; not finite for continuous actions.
        clock: steps of the trial so far.
        arms: types.
        rewards: of the last step.
    """
    ego = rows[:, 0]
    aim = np.where(np.isfinite(target_speed), target_speed, ego[:, 3])
    own = [
        to_go,
        ego[:, 2] / 12.0,
        (ego[:, 3] - START_SPEED) / 15.0,
        ego[:, 4] / 5.0,
        target_lane / 3.0,
        (aim - START_SPEED) / 15.0,
        1.0 - clock / config.length,
    ]
    parts = [np.stack(own, axis=1), (rows[:, 1:] / np.array(CAR_SCALES, np.float32)).reshape(len(rows), -1)]
    if config.show_arm:
        parts.append(arms[:, None] == np.arange(config.arm_count))
    if config.show_reward:
        parts.append(rewards[:, None])
    return np.clip(np.concatenate(parts, axis=1), -BOUND, BOUND).astype(np.float32)
