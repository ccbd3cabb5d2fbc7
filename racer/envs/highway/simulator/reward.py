"""Reward, termination and what the ego shows of itself (highway_env/envs/highway_env.py)."""

from __future__ import annotations

import numpy as np

from racer.envs.highway.simulator.compiled import kernel
from racer.envs.highway.simulator.lanes import on_lane
from racer.envs.highway.simulator.layout import (
    COLLISION_COEFFICIENT,
    COLLISION_REWARD,
    COS,
    CRASHED,
    DURATION,
    EGO_CRASHED,
    EGO_HEADING,
    EGO_KIND,
    EGO_LANE,
    EGO_META,
    EGO_OFFSET,
    EGO_SPEED,
    EGO_X,
    EGO_Y,
    HEADING,
    HIGH_SPEED_COEFFICIENT,
    HIGH_SPEED_REWARD,
    LANE,
    LANE_WIDTH,
    LANES,
    NORMALIZE_REWARD,
    OFFROAD_TERMINAL,
    ON_ROAD_COEFFICIENT,
    ON_ROAD_REWARD,
    REWARD,
    REWARD_SPEED_HIGH,
    REWARD_SPEED_LOW,
    RIGHT_LANE_COEFFICIENT,
    RIGHT_LANE_REWARD,
    SPEED,
    TARGET_LANE,
    TERMINATED,
    TRUNCATED,
    X,
    Y,
)
from racer.envs.highway.simulator.numeric import clip


@kernel
def judge(
    real: np.ndarray,
    whole: np.ndarray,
    time: float,
    reals: np.ndarray,
    wholes: np.ndarray,
    result: np.ndarray,
) -> None:
    """Write the reward, its components, the end flags and the ego's own figures into ``result [RESULTS]``."""
    x, y = real[X, 0], real[Y, 0]
    lane = whole[LANE, 0]
    crashed = 1.0 if whole[CRASHED, 0] else 0.0
    on_road = 1.0 if on_lane(x, y, lane, 0.0) else 0.0
    rewarded_lane = whole[TARGET_LANE, 0] if wholes[EGO_KIND] == EGO_META else lane
    right = rewarded_lane / max(wholes[LANES] - 1, 1)
    low, high = reals[REWARD_SPEED_LOW], reals[REWARD_SPEED_HIGH]
    fast = clip(0 + (real[SPEED, 0] * real[COS, 0] - low) * 1 / (high - low), 0.0, 1.0)
    reward = (
        reals[COLLISION_COEFFICIENT] * crashed
        + reals[RIGHT_LANE_COEFFICIENT] * right
        + reals[HIGH_SPEED_COEFFICIENT] * fast
        + reals[ON_ROAD_COEFFICIENT] * on_road
    )
    if wholes[NORMALIZE_REWARD]:
        worst = reals[COLLISION_COEFFICIENT]
        best = reals[HIGH_SPEED_COEFFICIENT] + reals[RIGHT_LANE_COEFFICIENT]
        reward = 0 + (reward - worst) * 1 / (best - worst)
    result[REWARD] = reward * on_road
    result[COLLISION_REWARD] = crashed
    result[RIGHT_LANE_REWARD] = right
    result[HIGH_SPEED_REWARD] = fast
    result[ON_ROAD_REWARD] = on_road
    offroad = wholes[OFFROAD_TERMINAL] != 0 and on_road == 0.0
    result[TERMINATED] = 1.0 if crashed != 0.0 or offroad else 0.0
    result[TRUNCATED] = 1.0 if time >= reals[DURATION] else 0.0
    result[EGO_X] = x
    result[EGO_Y] = y
    result[EGO_HEADING] = real[HEADING, 0]
    result[EGO_SPEED] = real[SPEED, 0]
    result[EGO_CRASHED] = crashed
    result[EGO_OFFSET] = y - LANE_WIDTH * lane
    result[EGO_LANE] = lane
