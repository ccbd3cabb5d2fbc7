"""Straight parallel lanes: lane k runs along y = 4 k from x = 0 to 10000 m (highway_env/road/lane.py).

On them the longitudinal coordinate *is* x and the lateral one y - 4 k, exactly: the direction vectors are
(1, 0) and (-0, 1), and neither product nor sum rounds.
"""

from __future__ import annotations

from racer.envs.highway.simulator.compiled import inlined, kernel
from racer.envs.highway.simulator.layout import LANE_LENGTH, LANE_WIDTH, LENGTH
from racer.envs.highway.simulator.numeric import wrap_to_pi


@inlined
def on_lane(x: float, y: float, lane: int, margin: float) -> bool:
    """Is the point on the lane, ``margin`` m wider on both sides?"""
    return abs(y - LANE_WIDTH * lane) <= LANE_WIDTH / 2 + margin and -LENGTH <= x < LANE_LENGTH + LENGTH


@inlined
def is_reachable(x: float, y: float, lane: int) -> bool:
    """May a car at the point begin a change to the lane?"""
    return abs(y - LANE_WIDTH * lane) <= 2 * LANE_WIDTH and 0 <= x < LANE_LENGTH + LENGTH


@kernel
def closest_lane(x: float, y: float, heading: float, lanes: int) -> int:
    """First lane with the least |lateral| + overshoot + undershoot + |angle|, summed in that order."""
    over = max(x - LANE_LENGTH, 0.0)
    under = max(0.0 - x, 0.0)
    angle = abs(wrap_to_pi(heading))
    best = 0
    least = abs(y) + over + under + angle
    for lane in range(1, lanes):
        distance = abs(y - LANE_WIDTH * lane) + over + under + angle
        if distance < least:
            least = distance
            best = lane
    return best


@inlined
def update_lane(x: float, y: float, heading: float, lane: int, lanes: int) -> int:
    """The closest lane, given the last one.

    Within 1.9 m of a centre every other lane is at least 0.2 m farther, which no rounding of the sum can hide
    while |x| is far below 2^52.
    """
    if abs(y - LANE_WIDTH * lane) < 1.9 and abs(x) < 1e6:
        return lane
    return closest_lane(x, y, heading, lanes)
