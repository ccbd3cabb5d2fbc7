"""Two planners over (lane, speed) plans: one sees what a policy sees, one drives copies of the world itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.envs.highway.drivers.base import Road, aim, read_rows
from racer.envs.highway.drivers.observed import SAME_LANE, TOP_SPEED, TTC_SCALE, Judgement, Scratch, search
from racer.envs.highway.drivers.plans import propose_first, propose_next, shift_rows
from racer.envs.highway.geometry import LANE_WIDTH, VEHICLE_LENGTH
from racer.envs.highway.world import RiskWorld

__all__ = ["ObservationPlanner", "StatePlanner"]

HORIZON = 5.0
"""How far the planners look ahead (s)."""

PARENTS = 4
"""Plans of a generation that the next one varies."""


class ObservationPlanner:
    """Plans on the observation alone: the others keep their speed and finish the lane changes that they show.

    Args:
        world: that it drives in; only its configuration is read.
        plans: of a generation.
        generations: of a step.
        overrides: of :class:`racer.envs.highway.drivers.observed.Judgement`.

    Raises:
        UsageError: the world's observation or action is not what drivers know.
    """

    observation_shape = None
    discrete = False
    size = 2

    def __init__(self, world: RiskWorld, *, plans: int = 128, generations: int = 2, **overrides: Any) -> None:
        self._road = Road.of(world)
        self._generations = generations
        self._judgement = judgement(world.config, self._road)._replace(**overrides)
        self._horizon = horizon(self._road)
        rows = int(world.config["observation"]["vehicles_count"])
        self._scratch = Scratch.make(plans, PARENTS, self._horizon, rows)

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        """Return no plans, and no steps taken."""
        return no_plans(count, self._horizon)

    def act(
        self,
        params: Mapping[str, Any],
        observations: Any,
        memory: Mapping[str, Any],
        key: Any,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.float32], dict[str, np.ndarray], dict[str, np.ndarray]]:
        """See :class:`racer.envs.highway.drivers.base.Driver`; the memory is the last best plan of each episode."""
        rows = read_rows(observations)
        best, steps = memory["plan"].copy(), memory["steps"]
        search(rows.astype(np.float64), best, steps, self._generations, self._judgement, self._scratch)
        actions = aim(rows, best[:, 0, 0], best[:, 0, 1], self._road.lanes)
        return actions, {"plan": best, "steps": steps + 1}, {}


class StatePlanner:
    """Plans in copies of the world, which go on exactly as the world itself would: a ceiling, not a rival.

    Environments are planned for side by side, one thread a core; what comes out does not depend on that.

    Args:
        world: that it drives in; its state is read at every plan.
        plans: of a generation.
        generations: of a replanning.
        every: steps from one replanning to the next.
        overrides: of :class:`racer.envs.highway.drivers.observed.Judgement`.

    Raises:
        UsageError: the world's observation or action is not what drivers know, or its engine cannot be copied.
    """

    observation_shape = None
    discrete = False
    size = 2

    def __init__(
        self, world: RiskWorld, *, plans: int = 144, generations: int = 1, every: int = 2, **overrides: Any
    ) -> None:
        if world.config["engine"] != "compiled":
            raise UsageError(
                f"this driver copies its world: it needs engine 'compiled', not {world.config['engine']!r}"
            )
        self._world = world
        self._road = Road.of(world)
        self._every = every
        counts = judgement(world.config, self._road)._replace(**overrides)
        cores = min(os.cpu_count() or 1, world.num_envs)
        self._searches = [Search(world, self._road, counts, plans, generations) for _ in range(cores)]

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        """Return no plans, and no steps taken."""
        return no_plans(count, horizon(self._road))

    def act(
        self,
        params: Mapping[str, Any],
        observations: Any,
        memory: Mapping[str, Any],
        key: Any,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.float32], dict[str, np.ndarray], dict[str, np.ndarray]]:
        """See :class:`racer.envs.highway.drivers.base.Driver`; the observations must be those of the world's state."""
        rows = read_rows(observations)
        best, steps = memory["plan"].copy(), memory["steps"]
        shift_rows(best)
        due = np.flatnonzero(steps % self._every == 0)
        if due.size:
            state = self._world.get_state()

            def plan(worker: int) -> None:
                for n in due[worker :: len(self._searches)]:
                    own = {name: value[n : n + 1] for name, value in state.items()}
                    self._searches[worker].improve(own, rows[n], best[n], int(steps[n]))

            workers = min(len(self._searches), due.size)
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(plan, range(workers)))
        actions = aim(rows, best[:, 0, 0], best[:, 0, 1], self._road.lanes)
        return actions, {"plan": best, "steps": steps + 1}, {}


class Search:
    """Drives plans in as many copies of a world.

    Args:
        world: whose configuration the copies have.
        road: its road.
        judgement: what a plan's score is made of.
        plans: of a generation.
        generations: of a search.
    """

    def __init__(self, world: RiskWorld, road: Road, judgement: Judgement, plans: int, generations: int) -> None:
        self._road, self._judgement, self._generations = road, judgement, generations
        self._copies = RiskWorld(world.config, plans)
        self._plans = np.zeros((plans, horizon(road), 2))
        self._draws = np.zeros(1, np.uint64)

    def improve(
        self, state: Mapping[str, Any], rows: NDArray[np.float32], best: NDArray[np.float64], step: int
    ) -> None:
        """Write the best plan ``[H, 2]`` over the last one, from an environment's state and rows ``[V, 6]``."""
        lanes, plans = self._road.lanes, self._plans
        lane = float(np.clip(np.round(rows[0, 2] / LANE_WIDTH), 0, lanes - 1))
        propose_first(self._draws, step, best, lane, lanes, plans)
        parents, parent_scores = plans[:0], np.zeros(0)
        for generation in range(self._generations):
            if generation:
                propose_next(self._draws, parents, lanes, plans)
            scores = self._drive(state)
            if generation == 0:
                scores[0] += self._judgement.loyalty
            candidates, all_scores = np.concatenate([parents, plans]), np.concatenate([parent_scores, scores])
            order = np.argsort(-all_scores, kind="stable")[:PARENTS]
            parents, parent_scores = candidates[order], all_scores[order]
        best[:] = parents[0]

    def _drive(self, state: Mapping[str, Any]) -> NDArray[np.float64]:
        """Drive all plans from the state of one environment; returns their scores ``[P]``."""
        judgement, copies = self._judgement, self._copies
        count = copies.num_envs
        rows = read_rows(copies.set_state({name: np.repeat(value, count, axis=0) for name, value in state.items()}))
        scores, alive, weight = np.zeros(count), np.ones(count, bool), 1.0
        for t in range(self._plans.shape[1]):
            step = copies.step(aim(rows, self._plans[:, t, 0], self._plans[:, t, 1], self._road.lanes))
            rows = read_rows(step.observations)
            scores += weight * np.where(alive, step.rewards - judgement.crash * step.terminated, 0.0)
            alive &= ~step.terminated
            weight *= judgement.discount
            if not alive.any():
                return scores
        return scores + weight * alive * self._future(rows)

    def _future(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what the ends of plans are worth ``[P]``: the speed lost and the gap that closes ahead."""
        others = rows[:, 1:].astype(np.float64)
        ahead = (others[..., 0] > 0.5) & (others[..., 1] > 0) & (np.abs(others[..., 2]) < SAME_LANE)
        closing = np.maximum(-others[..., 3], 1e-6)
        ttc = np.where(ahead, np.maximum(others[..., 1] - VEHICLE_LENGTH, 0.0) / closing, np.inf).min(axis=1)
        lost = TOP_SPEED - np.hypot(rows[:, 0, 3], rows[:, 0, 4])
        return -self._judgement.slow * lost - self._judgement.closing * np.exp(-ttc / TTC_SCALE)


def judgement(config: Mapping[str, Any], road: Road) -> Judgement:
    """Return what counts in a world with a resolved configuration."""
    shaped = config["reward"] == "training"
    low, high = config["forward_speed_range" if shaped else "reward_speed_range"]
    width = config["high_speed_reward"] + config["right_lane_reward"] - config["collision_reward"]
    scale = 1.0 / width if config["normalize_reward"] else 1.0
    return Judgement(
        lanes=road.lanes,
        frames=road.frames,
        frame=road.frame,
        speed_weight=scale * float(config["speed_weight" if shaped else "high_speed_reward"]),
        speed_low=float(low),
        speed_high=float(high),
        right_weight=scale * float(config["right_lane_reward"]),
    )


def horizon(road: Road) -> int:
    """Return the steps of a plan."""
    return max(round(HORIZON / road.step), 1)


def no_plans(count: int, steps: int) -> dict[str, np.ndarray]:
    """Return the memory of planners at the start of ``count`` episodes."""
    return {"plan": np.zeros((count, steps, 2)), "steps": np.zeros(count, np.int64)}
