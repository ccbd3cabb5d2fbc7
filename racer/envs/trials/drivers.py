"""Scripted drivers: what is to be had without a memory of earlier trials, and what knowledge of the type adds.

"prober" remembers nothing from trial to trial; "oracle" is told the type. Both drive alike otherwise, so the gap
between their scores is what a memory can be worth. They read the simulator's own state and choose among five actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.envs.highway.simulator import layout as at
from racer.envs.trials.scenes import FIRST_GUARD, HOLD, LANE_WIDTH, PLATOON_LANE, SPEEDS
from racer.envs.trials.world import TrialWorld

__all__ = ["DRIVERS", "ScriptedDriver"]

LEAST_AHEAD, LEAST_BEHIND = 9.0, 8.0
"""m between centres that a lane change needs."""

BRAKING = 2.5
"""m/s2 that the choice "slower" is sure of, step after step."""

NEAR, NEAR_LANE = 300.0, 90.0
"""m before the goal's lane counts, and for each lane apart, where a driver begins to go for it."""

PASSING = 8.0
"""m: a car of the next lane that is nearer is passed rather than let go."""

SETTLE = 1.0
"""m across the road within which the next lane change may begin."""

_SUSPICION = 0.8
"""m/s above the platoon's speed at which the car behind gives itself away."""


class ScriptedDriver:
    """Acts as :class:`racer.networks.policy.Policy` does, without parameters.

    Args:
        world: of the environments that it drives in.
        told: whether it knows the type.

    Raises:
        UsageError: the world takes continuous actions.
    """

    def __init__(self, world: TrialWorld, told: bool) -> None:
        if world.config.actions != "choices":
            raise UsageError("the scripted drivers choose among five actions: pass --env.actions=choices")
        self._world, self._told = world, told
        drive = _HiddenLane if world.config.scene == "hidden_lane" else _Courteous
        self._drivers = [drive(world, i, told) for i in range(len(world.egos.envs))]

    def initial_memory(self, count: int) -> dict[str, NDArray[np.float32]]:
        """Return the memory of episodes that begin: none."""
        return {}

    def act(
        self,
        params: Mapping[str, Any],
        observations: Any,
        memory: Mapping[str, Any],
        key: Any,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.int64], dict[str, Any], dict[str, Any]]:
        """Return choices ``[N]``."""
        return np.array([driver.choose() for driver in self._drivers], np.int64), {}, {}


class _Driver:
    """What both scripts share: the scene as one ego (row ``index``) has it, speeds and safe lane changes."""

    def __init__(self, world: TrialWorld, index: int, told: bool) -> None:
        self.world, self.index, self.told = world, index, told

    def choose(self) -> int:
        """Return the choice of this step."""
        if self.world.removed[self.index]:
            return at.IDLE
        self.look()
        if self.world.clock[self.index] == 0:
            self.start()
        return self.drive()

    def look(self) -> None:
        """Read the scene."""
        egos = self.world.egos
        scene, own = self.world.simulator.scene(int(egos.envs[self.index])), int(egos.cars[self.index])
        self.x, self.y, self.v = float(scene["x"][own]), float(scene["y"][own]), float(scene["speed"][own])
        self.target = int(scene["target_lane"][own])
        self.aim = float(scene["target_speed"][own])
        others = (np.delete(scene[name], own) for name in ("x", "y", "speed"))
        self.dx, self.cars_y, self.cars_v = next(others) - self.x, next(others), next(others)
        self.to_go = self.world.scene.distance - float(self.world.travelled[self.index])

    def start(self) -> None:
        """Begin a trial."""

    def drive(self) -> int:
        """Return the choice of this step."""
        raise NotImplementedError

    @property
    def settled(self) -> bool:
        """Whether no lane change is going on."""
        return abs(self.y - LANE_WIDTH * self.target) < SETTLE

    def lead(self, lane: int) -> tuple[float, float]:
        """Return the gap (m, between centres) to the next car in a lane, and its speed (m/s)."""
        ahead = (np.abs(self.cars_y - LANE_WIDTH * lane) < 2.6) & (self.dx > 0)
        if not ahead.any():
            return np.inf, np.inf
        k = int(np.flatnonzero(ahead)[np.argmin(self.dx[ahead])])
        return float(self.dx[k]), float(self.cars_v[k])

    def is_free(self, lane: int) -> bool:
        """Whether a change to a lane ends in no car's way."""
        if not 0 <= lane <= 3:
            return False
        beside = np.abs(self.cars_y - LANE_WIDTH * lane) < 2.6
        closing = self.v - self.cars_v
        ahead = (self.dx >= 0) & (self.dx < LEAST_AHEAD + np.maximum(closing, 0) ** 2 / (2.0 * BRAKING))
        behind = (self.dx < 0) & (-self.dx < LEAST_BEHIND + 1.5 * np.maximum(-closing, 0))
        return not (beside & (ahead | behind)).any()

    def towards(self, lane: int) -> int:
        """Return the choice that changes the target lane by one, towards ``lane``."""
        return at.LANE_LEFT if lane < self.target else at.LANE_RIGHT

    def at_speed(self, wanted: float) -> int:
        """Return the choice that brings the target speed nearest to ``wanted`` (m/s)."""
        steps = np.array(SPEEDS)
        now = int(np.argmin(np.abs(steps - self.v)))
        best = int(np.argmin(np.abs(steps - wanted)))
        if abs(self.aim - steps[best]) < 0.5:
            return at.IDLE
        return at.FASTER if best > now else at.SLOWER if best < now else at.FASTER if self.aim < wanted else at.SLOWER

    def followed(self, wanted: float, lanes: tuple[int, ...] = ()) -> float:
        """Return ``wanted`` (m/s), or less where the cars ahead in its lanes and in ``lanes`` ask for it."""
        for lane in {self.target, int(np.clip(round(self.y / LANE_WIDTH), 0, 3)), *lanes}:
            gap, speed = self.lead(lane)
            if gap < np.inf:
                room = gap - LEAST_AHEAD
                wanted = min(wanted, speed + (np.sqrt(2.0 * BRAKING * room) if room > 0.0 else room))
        return wanted


class _HiddenLane(_Driver):
    """Overtake as fast as the traffic allows, and be in the chosen lane in time."""

    def start(self) -> None:
        arms = self.world.config.arms or range(self.world.config.arm_count)
        # Drawn from what a driver sees, so that nothing but the scene and the trial decides.
        rng = np.random.default_rng([int(1000 * self.x), int(self.world.trial[self.index])])
        self.lane = int(self.world.goal_lane[self.index]) if self.told else int(rng.choice(list(arms)))

    def drive(self) -> int:
        apart = abs(self.target - self.lane)
        near = self.to_go < HOLD + NEAR_LANE * apart + NEAR
        if self.settled and near and apart:
            step = self.target + (1 if self.lane > self.target else -1)
            if self.is_free(step):
                return self.towards(self.lane)
            gap, _ = self.lead(step)
            own, _ = self.lead(self.target)
            if gap > PASSING or own < 2.0 * PASSING:
                return self.at_speed(self.followed(SPEEDS[-1], (step,)))
        elif self.settled and not near:
            best, gain = self.target, self.worth(self.target) + 0.8
            for lane in (self.target - 1, self.target + 1):
                if self.is_free(lane) and self.worth(lane) > gain:
                    best, gain = lane, self.worth(lane)
            if best != self.target:
                return self.towards(best)
        return self.at_speed(self.followed(SPEEDS[-1]))

    def worth(self, lane: int) -> float:
        """Speed (m/s) that a lane allows over the next seconds, less for lanes far from the chosen one."""
        gap, speed = self.lead(lane)
        pace = SPEEDS[-1] if gap == np.inf else min(SPEEDS[-1], speed + max(gap - 12.0, 0.0) / 3.0)
        return pace - 0.7 * abs(lane - self.lane)


class _Courteous(_Driver):
    """Nose into a gap of the platoon; retreat where the car behind closes up, and try the next one ahead."""

    def start(self) -> None:
        self.gap = int(self.world.arm[self.index]) if self.told else 0

    def drive(self) -> int:
        guard = FIRST_GUARD + self.gap
        behind, ahead = float(self.dx[guard]), float(self.dx[guard + 1])
        inside = abs(self.y - LANE_WIDTH * PLATOON_LANE)
        pace = float(self.cars_v[guard + 1])
        if self.target == PLATOON_LANE:
            others = np.delete(self.cars_v, [guard])
            if inside > 1.9 and self.cars_v[guard] > np.median(others) + _SUSPICION:
                self.gap = min(self.gap + 1, 7)
                return at.LANE_LEFT
            return self.at_speed(pace + 0.4 * (ahead - 9.5))
        if inside > LANE_WIDTH - 0.25 and 7.0 < ahead < 12.5 and behind < -6.0 and abs(self.v - pace) < 2.5:
            return at.LANE_RIGHT
        return self.at_speed(pace + 0.5 * (ahead - 9.5))


def _driver(told: bool) -> Callable[[Any], ScriptedDriver]:
    def make(env: Any) -> ScriptedDriver:
        world: TrialWorld = env.unwrapped.world
        return ScriptedDriver(world, told)

    return make


DRIVERS: Mapping[str, Callable[[Any], ScriptedDriver]] = {"prober": _driver(False), "oracle": _driver(True)}
