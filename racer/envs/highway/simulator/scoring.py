"""RACER's reward and the accounts of running episodes, over the simulator's arrays, one pass over the environments.

:mod:`racer.envs.highway.reward` and :mod:`racer.envs.highway.episode` say what is computed and why. Here stand the same
operations in the same order, so that the bits agree wherever NumPy's own cos, exp and arctan2 round as libm's do.
"""

from __future__ import annotations

import math

import numpy as np

from racer.envs.highway.simulator.compiled import entry, kernel
from racer.envs.highway.simulator.layout import (
    EGO_CRASHED,
    EGO_HEADING,
    EGO_OFFSET,
    EGO_SPEED,
    LANE_WIDTH,
    LENGTH,
    ON_ROAD_REWARD,
    PERCEPTION_DISTANCE,
    REWARD,
    TERMINATED,
    TRUNCATED,
)
from racer.envs.highway.simulator.numeric import cosine, wrap_to_pi

# float64 parameters
(
    TTC_THRESHOLD, TTC_CRITICAL, GAP_THRESHOLD, CONE, NEAR, FAR, OFFROAD_SAFETY, REWARD_LOW, REWARD_HIGH, FORWARD_LOW,
    FORWARD_HIGH, SPEED_WEIGHT, SAFETY_COEFFICIENT, NORMALIZER, OFFROAD_PENALTY, FREQUENCY, REVERSE_BELOW, SPIN_ABOVE,
    STANDSTILL_BELOW,
) = range(19)  # fmt: skip
SCORE_REALS = 19

# int64 parameters
PROXIMITY, BASE_ONLY, MOST_STEPS = range(3)
SCORE_WHOLES = 3

# rows of the accounts [ACCOUNTS, E]: ``episode.SUMS`` in that order, then the nearest distance (m) and the last heading
(
    SUM_RETURN, SUM_BASE, SUM_LENGTH, SUM_SPEED, SUM_FORWARD, SUM_REVERSE, SUM_SPIN, SUM_STANDSTILL, SUM_VIOLATION,
    SUM_SAFETY, LEAST_DISTANCE, LAST_HEADING,
) = range(12)  # fmt: skip
SUMS = 10
ACCOUNTS = 12

# rows of the figures [FIGURES, M]: what is told of every scene, the reward and its parts, then ``EPISODE_METRICS``
SPEED_OUT, FORWARD_OUT, OFFSET_OUT, DISTANCE_OUT, TTC_OUT = range(5)
REWARD_OUT, BASE_OUT, ORIGINAL_OUT, FORWARD_TERM_OUT, SAFETY_OUT, TRAINING_OUT, PENALTY_OUT, METRICS_OUT = range(5, 13)
METRICS = 14
FIGURES = METRICS_OUT + METRICS

# rows of the flags [FLAGS, M] (bool)
TERMINATED_OUT, TRUNCATED_OUT, CRASHED_OUT, ON_ROAD_OUT = range(4)
FLAGS = 4


@kernel
def least(a: float, b: float) -> float:
    """``numpy.minimum``: nan wins."""
    if b < a or b != b:
        return b
    return a


@kernel
def share(value: float, low: float, high: float) -> float:
    """``reward.linear_share``: 0 at ``low``, 1 at ``high``, clipped; nan stays nan."""
    x = (value - low) / (high - low)
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    return x


@kernel
def meet(rows: np.ndarray, reals: np.ndarray) -> tuple[float, float, float]:
    """Read the other vehicles out of kinematic rows ``[K, 6]`` (float32).

    Returns:
        distance to the nearest one (m, inf if there is none), least time to collision (s, inf), and the collision
        risk in [-1, 0].
    """
    nearest = np.inf
    soonest = np.inf
    risk = 0.0
    heading = np.float64(rows[0, 5])
    for k in range(1, rows.shape[0]):
        if not rows[k, 0] > 0.5:
            continue
        dx, dy = np.float64(rows[k, 1]), np.float64(rows[k, 2])
        distance = math.hypot(dx, dy)
        nearest = least(nearest, distance)
        if not distance > 0.0:
            continue
        closing = -(dx * np.float64(rows[k, 3]) + dy * np.float64(rows[k, 4])) / distance
        # what is asked next costs an arctangent, and most cars are not closing
        if not closing > 0.0 or not abs(wrap_to_pi(math.atan2(dy, dx) - heading)) <= reals[CONE]:
            continue
        gap = max(distance - LENGTH, 0.0)
        time = gap / closing
        soonest = least(soonest, time)
        if time < reals[TTC_THRESHOLD] and gap < reals[GAP_THRESHOLD]:
            urgency = (reals[TTC_THRESHOLD] - time) / (reals[TTC_THRESHOLD] - reals[TTC_CRITICAL])
            risk = min(risk, -math.exp(-3.0 * (1.0 - min(urgency, 1.0))))
    return nearest, soonest, risk


@kernel
def proximity(nearest: float, reals: np.ndarray) -> float:
    """Risk in [-1, 0] from the distance (m) to the nearest vehicle."""
    if not nearest <= reals[FAR]:
        return 0.0
    return -math.exp(-max(nearest - reals[NEAR], 0.0) / (reals[FAR] - reals[NEAR]))


@kernel
def clip_rows(shown: np.ndarray, bound: np.float32, out: np.ndarray) -> None:
    """Clip ``shown [V, F]`` to +-``bound``; nan stays nan."""
    for row in range(out.shape[0]):
        for f in range(out.shape[1]):
            value = shown[row, f]
            if value < -bound:
                value = -bound
            elif value > bound:
                value = bound
            out[row, f] = value


@kernel
def describe(
    result: np.ndarray, nearest: float, soonest: float, figures: np.ndarray, flags: np.ndarray, k: int
) -> None:
    """Write what is told of a scene whether a step or a reset led to it."""
    figures[SPEED_OUT, k] = result[EGO_SPEED]
    figures[FORWARD_OUT, k] = result[EGO_SPEED] * cosine(result[EGO_HEADING])
    figures[OFFSET_OUT, k] = result[EGO_OFFSET]
    figures[DISTANCE_OUT, k] = least(PERCEPTION_DISTANCE, nearest)
    figures[TTC_OUT, k] = soonest
    flags[TERMINATED_OUT, k] = result[TERMINATED] != 0.0
    flags[TRUNCATED_OUT, k] = result[TRUNCATED] != 0.0
    flags[CRASHED_OUT, k] = result[EGO_CRASHED] != 0.0
    flags[ON_ROAD_OUT, k] = result[ON_ROAD_REWARD] != 0.0


@kernel
def reward(
    base: float, off_lane: bool, risk: float, reals: np.ndarray, base_only: int, figures: np.ndarray, flags: np.ndarray,
    k: int,
) -> None:  # fmt: skip
    """Write the reward and its parts (``reward.training_reward``, and the penalty for ending off the road)."""
    on_road = 1.0 if flags[ON_ROAD_OUT, k] else 0.0
    safety = risk - reals[OFFROAD_SAFETY] * (1.0 if off_lane else 0.0)
    factor = on_road / reals[NORMALIZER]
    speed = figures[FORWARD_OUT, k]
    original = share(speed, reals[REWARD_LOW], reals[REWARD_HIGH]) * factor
    forward = share(speed, reals[FORWARD_LOW], reals[FORWARD_HIGH]) * factor
    weight = reals[SPEED_WEIGHT]
    training = base - original * weight + forward * weight + safety * reals[SAFETY_COEFFICIENT]
    penalty = reals[OFFROAD_PENALTY] * (1.0 if flags[TERMINATED_OUT, k] and not flags[ON_ROAD_OUT, k] else 0.0)
    figures[REWARD_OUT, k] = (base if base_only else training) + penalty
    figures[BASE_OUT, k] = base
    figures[ORIGINAL_OUT, k] = original
    figures[FORWARD_TERM_OUT, k] = forward
    figures[SAFETY_OUT, k] = safety
    figures[TRAINING_OUT, k] = training
    figures[PENALTY_OUT, k] = penalty


@kernel
def account(heading: float, reals: np.ndarray, accounts: np.ndarray, e: int, figures: np.ndarray, k: int) -> None:
    """Add a step to the running episode of environment ``e`` (``EpisodeRecorder.add``)."""
    turn_rate = abs(heading - accounts[LAST_HEADING, e]) * reals[FREQUENCY]
    speed, forward = figures[SPEED_OUT, k], figures[FORWARD_OUT, k]
    accounts[SUM_RETURN, e] += figures[REWARD_OUT, k]
    accounts[SUM_BASE, e] += figures[BASE_OUT, k]
    accounts[SUM_LENGTH, e] += 1.0
    accounts[SUM_SPEED, e] += speed
    accounts[SUM_FORWARD, e] += forward
    accounts[SUM_REVERSE, e] += 1.0 if forward < reals[REVERSE_BELOW] else 0.0
    accounts[SUM_SPIN, e] += 1.0 if turn_rate > reals[SPIN_ABOVE] else 0.0
    accounts[SUM_STANDSTILL, e] += 1.0 if abs(speed) < reals[STANDSTILL_BELOW] else 0.0
    accounts[SUM_VIOLATION, e] += 1.0 if figures[SAFETY_OUT, k] < 0.0 else 0.0
    accounts[SUM_SAFETY, e] += figures[SAFETY_OUT, k]
    accounts[LEAST_DISTANCE, e] = least(accounts[LEAST_DISTANCE, e], figures[DISTANCE_OUT, k])
    accounts[LAST_HEADING, e] = heading


@kernel
def summarize(accounts: np.ndarray, e: int, figures: np.ndarray, flags: np.ndarray, k: int) -> None:
    """Write the metrics so far (``EpisodeRecorder.metrics``), in the order of ``EPISODE_METRICS``."""
    crashed, off_road = flags[CRASHED_OUT, k], not flags[ON_ROAD_OUT, k]
    ended = flags[TERMINATED_OUT, k] or flags[TRUNCATED_OUT, k]
    steps = max(accounts[SUM_LENGTH, e], 1.0)
    row = METRICS_OUT
    figures[row, k] = accounts[SUM_RETURN, e]
    figures[row + 1, k] = accounts[SUM_BASE, e]
    figures[row + 2, k] = accounts[SUM_LENGTH, e]
    figures[row + 3, k] = 1.0 if crashed else 0.0
    figures[row + 4, k] = 1.0 if off_road else 0.0
    figures[row + 5, k] = 1.0 if ended and not crashed and not off_road else 0.0
    for j in range(6):
        figures[row + 6 + j, k] = accounts[SUM_SPEED + j, e] / steps
    figures[row + 12, k] = accounts[LEAST_DISTANCE, e]
    figures[row + 13, k] = accounts[SUM_SAFETY, e] / steps


@entry
def score_batch(
    indices: np.ndarray,
    begin: bool,
    result: np.ndarray,
    rows: np.ndarray,
    shown: np.ndarray,
    bound: np.float32,
    reals: np.ndarray,
    wholes: np.ndarray,
    accounts: np.ndarray,
    steps: np.ndarray,
    figures: np.ndarray,
    flags: np.ndarray,
    observations: np.ndarray,
) -> int:
    """Score the environments ``indices [M]`` after a step, or open their accounts after a reset (``begin``).

    Returns:
        how many episodes have ended.

    Args:
        result: ``[E, RESULTS]`` of the simulator.
        rows: ``[E, K, 6]`` float32, the kinematic rows that safety is computed from.
        shown: ``[E, V, F]`` float32, the agent's observations before clipping to +-``bound``.
        accounts: ``[ACCOUNTS, E]``, and ``steps [E]`` int64: of the running episodes, brought up to date.
        figures, flags: ``[FIGURES, M]`` and ``[FLAGS, M]``, written; a reset writes no reward and no metrics.
        observations: ``[M, V, F]`` float32, written.
    """
    ended = 0
    for k in range(indices.shape[0]):
        e = indices[k]
        nearest, soonest, risk = meet(rows[e], reals)
        describe(result[e], nearest, soonest, figures, flags, k)
        clip_rows(shown[e], bound, observations[k])
        if begin:
            for row in range(SUMS):
                accounts[row, e] = 0.0
            accounts[LEAST_DISTANCE, e] = figures[DISTANCE_OUT, k]
            accounts[LAST_HEADING, e] = result[e, EGO_HEADING]
            steps[e] = 0
            continue
        steps[e] += 1
        if steps[e] >= wholes[MOST_STEPS]:
            flags[TRUNCATED_OUT, k] = True
        if wholes[PROXIMITY]:
            risk = proximity(nearest, reals)
        off_lane = abs(result[e, EGO_OFFSET]) > LANE_WIDTH / 2
        reward(result[e, REWARD], off_lane, risk, reals, wholes[BASE_ONLY], figures, flags, k)
        account(result[e, EGO_HEADING], reals, accounts, e, figures, k)
        summarize(accounts, e, figures, flags, k)
        if flags[TERMINATED_OUT, k] or flags[TRUNCATED_OUT, k]:
            ended += 1
    return ended
