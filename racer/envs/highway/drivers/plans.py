"""Plans of a lane and a speed for each step, and how they are varied: what both planners search over.

A plan is ``[H, 2]``: column 0 the lane to be in (0 is the left one), column 1 the speed to have (m/s), one row for each
policy step from now on. Random numbers come from a SplitMix64 counter (Steele et al. 2014, fig. 16) of the planner's
own, so that a plan depends on nothing but what the planner was told.
"""

from __future__ import annotations

import numpy as np

from racer.envs.highway.simulator.compiled import entry, kernel

__all__ = [
    "FASTEST",
    "SLOWEST",
    "begin_draws",
    "copy_plan",
    "first_plans",
    "keep_going",
    "propose_first",
    "propose_next",
    "shift",
    "shift_rows",
]

SLOWEST, FASTEST = 20.0, 40.0
"""Speeds that a plan may ask for (m/s), those of :class:`racer.envs.highway.views.Targets`."""

SHORTEST_SPAN, LONGEST_SPAN = 3, 20
"""Steps that a mutation changes at once."""

SPEEDS = 4  # structured plans: this many speeds from FASTEST down
DELAYS = 3  # after this many delays
DELAY_STEPS = 4
SPEED_STEP = 5.0  # m/s

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_A = np.uint64(0xBF58476D1CE4E5B9)
MIX_B = np.uint64(0x94D049BB133111EB)
S30, S27, S31, S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
UNIT = 1.0 / 9007199254740992.0  # 2^-53


@kernel
def draw(draws: np.ndarray) -> float:
    """Return the next number in [0, 1); ``draws`` ``[1]`` uint64 is the counter."""
    draws[0] += GOLDEN
    z = draws[0]
    z = (z ^ (z >> S30)) * MIX_A
    z = (z ^ (z >> S27)) * MIX_B
    return np.float64((z ^ (z >> S31)) >> S11) * UNIT


@kernel
def draw_below(draws: np.ndarray, n: int) -> int:
    """Return the next whole number in [0, n)."""
    return int(draw(draws) * n)


@kernel
def begin_draws(draws: np.ndarray, step: int) -> None:
    """Set the counter to the place where the random numbers of step ``step`` of an episode begin."""
    draws[0] = np.uint64(step + 1) * MIX_B


@kernel
def copy_plan(source: np.ndarray, target: np.ndarray) -> None:
    """Copy a plan ``[H, 2]``; an array assignment would allocate."""
    for t in range(source.shape[0]):
        target[t, 0] = source[t, 0]
        target[t, 1] = source[t, 1]


@kernel
def shift(plan: np.ndarray, steps: int) -> None:
    """Move a plan ``[H, 2]`` on by ``steps``; its last row is repeated."""
    last = plan.shape[0] - 1
    for t in range(plan.shape[0]):
        source = min(t + steps, last)
        plan[t, 0] = plan[source, 0]
        plan[t, 1] = plan[source, 1]


@kernel
def keep_going(plan: np.ndarray, lane: float) -> None:
    """Write the plan of an episode's start: stay in ``lane``, at full speed."""
    plan[:, 0] = lane
    plan[:, 1] = FASTEST


@kernel
def mutate(draws: np.ndarray, parent: np.ndarray, child: np.ndarray, lanes: int) -> None:
    """Write a parent ``[H, 2]`` with another lane, speed, or both over a span of steps."""
    horizon = parent.shape[0]
    copy_plan(parent, child)
    kind = draw(draws)
    for column in range(2):
        if (column == 0 and kind > 0.67) or (column == 1 and kind < 0.33):
            continue
        first = draw_below(draws, horizon)
        length = SHORTEST_SPAN + draw_below(draws, LONGEST_SPAN - SHORTEST_SPAN + 1)
        last = horizon if draw(draws) < 0.3 else min(first + length, horizon)
        if column == 0:
            value = 1.0 * draw_below(draws, lanes)
        elif draw(draws) < 0.3:
            value = FASTEST
        else:
            value = SLOWEST + (FASTEST - SLOWEST) * draw(draws)
        child[first:last, column] = value


@kernel
def first_plans(draws: np.ndarray, best: np.ndarray, lane: float, lanes: int, plans: np.ndarray) -> None:
    """Write the first generation ``[P, H, 2]``: the last best plan, structured ones, then mutations of the last best.

    A structured plan keeps ``lane`` and full speed for a while, then goes to a lane and a speed for good.
    """
    copy_plan(best, plans[0])
    p = 1
    for delay in range(DELAYS):
        for target in range(lanes):
            for slower in range(SPEEDS):
                if p == plans.shape[0]:
                    return
                wait = delay * DELAY_STEPS
                plans[p, :wait, 0] = lane
                plans[p, wait:, 0] = target
                plans[p, :wait, 1] = FASTEST
                plans[p, wait:, 1] = FASTEST - SPEED_STEP * slower
                p += 1
    for child in range(p, plans.shape[0]):
        mutate(draws, best, plans[child], lanes)


@kernel
def next_plans(draws: np.ndarray, parents: np.ndarray, lanes: int, plans: np.ndarray) -> None:
    """Write a further generation ``[P, H, 2]``: mutations of the parents ``[E, H, 2]`` in turn."""
    for p in range(plans.shape[0]):
        mutate(draws, parents[p % parents.shape[0]], plans[p], lanes)


@entry
def propose_first(draws: np.ndarray, step: int, best: np.ndarray, lane: float, lanes: int, plans: np.ndarray) -> None:
    """:func:`first_plans` for Python, at step ``step`` of an episode; ``best`` is made where ``step`` is 0."""
    begin_draws(draws, step)
    if step == 0:
        keep_going(best, lane)
    first_plans(draws, best, lane, lanes, plans)


@entry
def propose_next(draws: np.ndarray, parents: np.ndarray, lanes: int, plans: np.ndarray) -> None:
    """:func:`next_plans` for Python."""
    next_plans(draws, parents, lanes, plans)


@entry
def shift_rows(plans: np.ndarray) -> None:
    """:func:`shift` all plans ``[N, H, 2]`` by a step, for Python."""
    for n in range(plans.shape[0]):
        shift(plans[n], 1)
