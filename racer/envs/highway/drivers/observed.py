"""The search of the observation planner, compiled: forecasts, plans driven through them, and their scores.

Other vehicles keep their speed and finish the lane change that they show. The ego follows a plan through
:class:`racer.envs.highway.views.Targets` and the bicycle model (highway_env/vehicle/kinematics.py) with the sine and
tangent of its small angles in their series.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from racer.envs.highway.drivers.plans import SLOWEST, begin_draws, copy_plan, first_plans, keep_going, next_plans, shift
from racer.envs.highway.simulator.compiled import entry, kernel
from racer.envs.highway.simulator.layout import LANE_WIDTH, LENGTH, WIDTH

__all__ = ["Judgement", "Scratch", "search"]


class Judgement(NamedTuple):
    """What a plan's score is made of.

    Attributes:
        lanes: of the road.
        frames: simulation frames in a policy step.
        frame: its duration (s).
        speed_weight, speed_low, speed_high: the reward of forward speed (m/s), as in the world.
        right_weight: the reward of the rightmost lane.
        discount: of a step.
        crash: cost of a crash.
        along, across: how near to another outline counts as a crash (m).
        near_along, near_across: how near counts as a near miss (m).
        near: cost of a step with a near miss.
        slow: cost at the end for each m/s below 40.
        closing: cost at the end of a closing gap, times ``exp(-time to collision / 1.5 s)``.
        loyalty: advantage of the last best plan over new ones.
    """

    lanes: int
    frames: int
    frame: float
    speed_weight: float
    speed_low: float
    speed_high: float
    right_weight: float
    discount: float = 0.98
    crash: float = 20.0
    along: float = 0.5
    across: float = 0.15
    near_along: float = 2.0
    near_across: float = 0.5
    near: float = 0.3
    slow: float = 0.1
    closing: float = 1.5
    loyalty: float = 0.05


class Scratch(NamedTuple):
    """Arrays that a search works in.

    Attributes:
        plans: ``[P, H, 2]``.
        parents: ``[E, H, 2]``, the best plans of a generation.
        parent_scores: ``[E]``, theirs, falling.
        cars: ``[H, V - 1, 2]``, where other vehicles will be after each step (m, along from the ego's place now).
        met: ``[H, V - 1, 2]``, those of them that the ego can meet then.
        met_counts: ``[H]``, how many.
        draws: ``[1]`` uint64.
    """

    plans: np.ndarray
    parents: np.ndarray
    parent_scores: np.ndarray
    cars: np.ndarray
    met: np.ndarray
    met_counts: np.ndarray
    draws: np.ndarray

    @classmethod
    def make(cls, plans: int, parents: int, horizon: int, rows: int) -> Scratch:
        """Allocate for P plans of H steps, E parents and observations of V rows."""
        return cls(
            np.zeros((plans, horizon, 2)), np.zeros((parents, horizon, 2)), np.zeros(parents),
            np.zeros((horizon, rows - 1, 2)), np.zeros((horizon, rows - 1, 2)), np.zeros(horizon, np.int64),
            np.zeros(1, np.uint64),
        )  # fmt: skip


CHANGING_SPEED = 0.25  # m/s sideways, above which a car is on its way into another lane
LANE_CHANGE_SHARE = 0.25  # of the rest of its way that a changing car covers in a step
TTC_SCALE = 1.5  # s
TOP_SPEED = 40.0  # m/s
TOO_FAR = 150.0  # m ahead, beyond which a car cannot be met within a plan
HARDEST = 5.0  # m/s2, of braking and accelerating
STRAIGHTNESS = 0.95  # share of its way that the ego makes along the road at least, also across lanes
SAME_LANE = 2.0  # m apart sideways, below which two cars follow one another


@kernel
def forecast(rows: np.ndarray, judgement: Judgement, cars: np.ndarray) -> int:
    """Write where the vehicles of ``rows`` [V, 6] will be; return how many."""
    count = 0
    step = judgement.frames * judgement.frame
    for v in range(1, rows.shape[0]):
        if rows[v, 0] < 0.5 or rows[v, 1] > TOO_FAR:
            continue
        x, y = rows[v, 1], rows[v, 2] + rows[0, 2]
        speed, sideways = rows[v, 3] + rows[0, 3], rows[v, 4] + rows[0, 4]
        place = y / LANE_WIDTH
        if sideways > CHANGING_SPEED:
            lane = math.ceil(place)
        elif sideways < -CHANGING_SPEED:
            lane = math.floor(place)
        else:
            lane = math.floor(place + 0.5)
        goal = LANE_WIDTH * min(max(lane, 0.0), judgement.lanes - 1.0)
        for t in range(cars.shape[0]):
            x += speed * step
            y += LANE_CHANGE_SHARE * (goal - y)
            cars[t, count, 0] = x
            cars[t, count, 1] = y
        count += 1
    return count


@kernel
def sift(speed: float, count: int, judgement: Judgement, scratch: Scratch) -> None:
    """Keep at each step the vehicles that the ego can meet then, whatever plan it follows from a speed (m/s) on."""
    step = judgement.frames * judgement.frame
    reach = LENGTH + judgement.near_along + 0.1
    slow, fast, low, high = speed, speed, 0.0, 0.0
    for t in range(scratch.cars.shape[0]):
        slow = max(slow - HARDEST * step, min(slow, SLOWEST))
        fast = min(fast + HARDEST * step, max(fast, TOP_SPEED))
        low += STRAIGHTNESS * slow * step
        high += fast * step
        kept = 0
        for c in range(count):
            x = scratch.cars[t, c, 0]
            if low - reach < x and x < high + reach:
                scratch.met[t, kept, 0] = x
                scratch.met[t, kept, 1] = scratch.cars[t, c, 1]
                kept += 1
        scratch.met_counts[t] = kept


@kernel
def drive(
    x: float, y: float, heading: float, speed: float, lane: float, wanted: float, judgement: Judgement
) -> tuple[float, float, float, float]:
    """Take a policy step towards a lane and a speed (m/s): place (m), heading (rad) and speed (m/s) after it."""
    slowness = 1.0 / max(speed, 1.0)
    offset = min(max(LANE_WIDTH * lane - y, -4.5), 4.5)
    target = min(max(min(max(1.5 * offset, -4.0), 4.0) * slowness, -0.7), 0.7)
    steering = min(max(17.5 / (math.pi / 4) * (target - heading) * slowness, -0.1), 0.1) * (math.pi / 4)
    acceleration = HARDEST * min(max(0.5 * (wanted - speed), -1.0), 1.0)
    beta = 0.5 * steering * (1.0 + steering * steering / 4.0)
    for _ in range(judgement.frames):
        if speed > TOP_SPEED:
            acceleration = min(acceleration, TOP_SPEED - speed)
        course = heading + beta
        square = course * course
        x += speed * (1.0 - 0.5 * square) * judgement.frame
        y += speed * course * (1.0 - square / 6.0) * judgement.frame
        heading += speed * beta / (LENGTH / 2) * judgement.frame
        speed += acceleration * judgement.frame
    return x, y, heading, speed


@kernel
def future(x: float, y: float, speed: float, cars: np.ndarray, count: int, judgement: Judgement) -> float:
    """Return what the end of a plan is worth: the speed lost and the gap that closes ahead."""
    last = cars.shape[0] - 1
    soonest = np.inf
    for c in range(count):
        ahead = cars[last, c, 0] - x
        if ahead <= 0.0 or abs(cars[last, c, 1] - y) > SAME_LANE:
            continue
        leader = (cars[last, c, 0] - cars[last - 1, c, 0]) / (judgement.frames * judgement.frame)
        if speed > leader:
            soonest = min(soonest, max(ahead - LENGTH, 0.0) / (speed - leader))
    return -judgement.slow * (TOP_SPEED - speed) - judgement.closing * math.exp(-soonest / TTC_SCALE)


@kernel
def score(
    plan: np.ndarray, row: np.ndarray, count: int, judgement: Judgement, needed: float, scratch: Scratch
) -> float:
    """Drive a plan ``[H, 2]`` from the ego's ``row`` [6] through the forecast; return the discounted score.

    A plan that cannot come above ``needed`` any more is given up, with a score of -inf.
    """
    x, y, heading = 0.0, row[2], row[5]
    speed = math.sqrt(row[3] * row[3] + row[4] * row[4])
    total, weight = 0.0, 1.0
    right = judgement.right_weight / max(judgement.lanes - 1, 1)
    best = judgement.speed_weight + judgement.right_weight
    left = best * (1.0 - judgement.discount ** plan.shape[0]) / (1.0 - judgement.discount)
    for t in range(plan.shape[0]):
        x, y, heading, speed = drive(x, y, heading, speed, plan[t, 0], plan[t, 1], judgement)
        turned = 0.5 * LENGTH * abs(heading)
        near = False
        for c in range(scratch.met_counts[t]):
            along = abs(scratch.met[t, c, 0] - x) - LENGTH
            if along >= judgement.near_along:
                continue
            across = abs(scratch.met[t, c, 1] - y) - WIDTH - turned
            if along < judgement.along and across < judgement.across:
                return total - weight * judgement.crash
            near |= across < judgement.near_across
        share = (speed * (1.0 - 0.5 * heading * heading) - judgement.speed_low) / (
            judgement.speed_high - judgement.speed_low
        )
        lane = min(max(math.floor(y / LANE_WIDTH + 0.5), 0.0), judgement.lanes - 1.0)
        reward = judgement.speed_weight * min(max(share, 0.0), 1.0) + right * lane
        if near:
            reward -= judgement.near
        total += weight * reward
        left -= weight * best
        weight *= judgement.discount
        if total + left <= needed:
            return -np.inf
    return total + weight * future(x, y, speed, scratch.cars, count, judgement)


@kernel
def rank(plan: np.ndarray, value: float, parents: np.ndarray, falling: np.ndarray) -> None:
    """Let a plan of score ``value`` into the parents where it is better; the first of equals stays."""
    e = falling.shape[0] - 1
    if value <= falling[e]:
        return
    while e > 0 and value > falling[e - 1]:
        falling[e] = falling[e - 1]
        copy_plan(parents[e - 1], parents[e])
        e -= 1
    falling[e] = value
    copy_plan(plan, parents[e])


@entry
def search(
    rows: np.ndarray,
    best: np.ndarray,
    steps: np.ndarray,
    generations: int,
    judgement: Judgement,
    scratch: Scratch,
) -> None:
    """Find a plan for each of N environments.

    Args:
        rows: observations ``[N, V, 6]`` float64.
        best: ``[N, H, 2]``, the last best plans, one step old; the new ones are written there.
        steps: ``[N]`` steps of the episode so far; at 0 there is no last plan.
        generations: how often plans are varied.
        judgement: what a plan's score is made of.
        scratch: where to work.
    """
    for n in range(rows.shape[0]):
        row = rows[n, 0]
        lane = min(max(math.floor(row[2] / LANE_WIDTH + 0.5), 0.0), judgement.lanes - 1.0)
        if steps[n] == 0:
            keep_going(best[n], lane)
        else:
            shift(best[n], 1)
        begin_draws(scratch.draws, steps[n])
        count = forecast(rows[n], judgement, scratch.cars)
        sift(math.sqrt(row[3] * row[3] + row[4] * row[4]), count, judgement, scratch)
        scratch.parent_scores[:] = -np.inf
        first_plans(scratch.draws, best[n], lane, judgement.lanes, scratch.plans)
        for generation in range(generations):
            if generation > 0:
                next_plans(scratch.draws, scratch.parents, judgement.lanes, scratch.plans)
            for p in range(scratch.plans.shape[0]):
                loyalty = judgement.loyalty if generation == 0 and p == 0 else 0.0
                needed = scratch.parent_scores[-1] - loyalty
                value = score(scratch.plans[p], row, count, judgement, needed, scratch) + loyalty
                rank(scratch.plans[p], value, scratch.parents, scratch.parent_scores)
        copy_plan(scratch.parents[0], best[n])
