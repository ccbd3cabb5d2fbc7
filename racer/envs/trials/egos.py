"""The agents of an environment: which car is whose, what each sees, how it drives, and how it leaves the road.

A row is an agent: agent j of environment e has row e * A + j and drives car j of the scene. The first car is the
simulator's own ego; the others obey the targets that choices set, as partners do. An agent that is done for a trial is
taken off the road, where nobody meets it, until the next trial puts everybody back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.highway.simulator import HighwaySimulator
from racer.envs.highway.simulator import layout as at
from racer.envs.trials.scenes import LANE_WIDTH, PARKED, SPEEDS, START_SPEED

__all__ = ["Egos", "obey", "rows_around"]


class Egos:
    """The agents of E environments, A each; N = E * A rows.

    Args:
        simulator: of the environments.
        count: A.
        seen: other cars that each is shown.

    Attributes:
        envs: ``[N]``, the environment of a row.
        cars: ``[N]``, the car of a row in its scene.
    """

    def __init__(self, simulator: HighwaySimulator, count: int, seen: int) -> None:
        self._simulator, self.count, self._seen = simulator, count, seen
        self.envs = np.repeat(np.arange(simulator.num_envs), count)
        self.cars = np.tile(np.arange(count), simulator.num_envs)
        self._others = np.flatnonzero(self.cars > 0)

    def real(self, row: int) -> NDArray[np.float64]:
        """Return a row of the simulator's real numbers for every agent, ``[N]``."""
        return self._simulator.packed[0][self.envs, row, self.cars]

    def whole(self, row: int) -> NDArray[np.int64]:
        """Return a row of the simulator's whole numbers for every agent, ``[N]``."""
        return self._simulator.packed[1][self.envs, row, self.cars]

    @property
    def on_road(self) -> NDArray[np.bool_]:
        """``[N]``, whether the car's centre is on the lane that it is closest to."""
        return np.abs(self.real(at.Y) - LANE_WIDTH * self.whole(at.LANE)) <= LANE_WIDTH / 2

    def shown(self) -> NDArray[np.float32]:
        """Return what every agent sees of the road, ``[N, 1 + seen, 5]``, its own row first."""
        own = self._simulator.shown
        if self.count == 1:
            return own
        rows = np.empty((len(self.envs), *own.shape[1:]), np.float32)
        rows[:: self.count] = own
        others = self._others
        rows[others] = rows_around(self._simulator, self.envs[others], self.cars[others], self._seen)
        return rows

    def begin(self, env: int) -> None:
        """Hand the cars of an environment, whose trial was just begun, to its agents."""
        if self.count == 1:
            return
        scene = self._simulator.scene(env)
        guard, speed, target = scene["guard"], scene["speed"], scene["target_speed"]
        others = np.arange(1, self.count)
        guard[others] = at.DRIVEN
        speed[others], target[others] = START_SPEED, target[0]
        self._simulator.set_scene(env, guard=guard, speed=speed, target_speed=target)

    def choose(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Set the targets of all but the first agents from actions ``[N, ...]``; returns those of the first."""
        if self.count > 1:
            others = self._others
            obey(self._simulator, self.envs[others], self.cars[others], actions[others])
        return actions[:: self.count]

    def remove(self, rows: NDArray[np.intp]) -> None:
        """Take agents off the road and stop them."""
        for env in np.unique(self.envs[rows]):
            cars = self.cars[rows[self.envs[rows] == env]]
            scene = self._simulator.scene(int(env))
            guard = scene["guard"]
            # The first car obeys its own targets in any case, which are to stand.
            guard[cars[cars > 0]] = at.REPLAYED
            scene["x"][cars] = PARKED - 20.0 * cars
            for name in ("heading", "speed", "target_speed", "steering", "acceleration"):
                scene[name][cars] = 0.0
            fields = ("x", "heading", "speed", "target_speed", "steering", "acceleration", "guard")
            self._simulator.set_scene(int(env), **{name: scene[name] for name in fields})


def rows_around(
    simulator: HighwaySimulator, envs: NDArray[np.intp], cars: NDArray[np.int64], seen: int
) -> NDArray[np.float32]:
    """Return what ``cars`` ``[M]`` of ``envs`` ``[M]`` see, ``[M, 1 + seen, 5]``, as the simulator shows it to the ego.

    The car's own row comes first and is absolute, then the nearest others by distance along the road: presence, x, y
    (m), vx, vy (m/s). Rows of nobody are zero.
    """
    real, _ = simulator.packed
    x, y = real[envs, at.X], real[envs, at.Y]
    vx, vy = (real[envs, at.SPEED] * real[envs, way] for way in (at.COS, at.SIN))
    rows = np.arange(len(envs))
    own = [value[rows, cars] for value in (x, y, vx, vy)]
    parts = [value - mine[:, None] for value, mine in zip((x, y, vx, vy), own, strict=True)]
    near = np.sqrt(parts[0] ** 2 + parts[1] ** 2) < at.PERCEPTION_DISTANCE
    near[rows, cars] = False
    away = np.where(near, np.abs(parts[0]), np.inf)
    order = np.argsort(away, axis=1, kind="stable")[:, :seen]
    shown = np.zeros((len(envs), 1 + seen, 5), np.float32)
    shown[:, 0, 0] = 1.0
    present = np.take_along_axis(near, order, axis=1)
    shown[:, 1 : 1 + order.shape[1], 0] = present
    for column, (mine, others) in enumerate(zip(own, parts, strict=True), 1):
        shown[:, 0, column] = mine
        shown[:, 1 : 1 + order.shape[1], column] = np.where(present, np.take_along_axis(others, order, axis=1), 0.0)
    return shown


def obey(
    simulator: HighwaySimulator, envs: NDArray[np.intp], cars: NDArray[np.int64], chosen: NDArray[np.int64]
) -> None:
    """Turn choices ``[M]`` into targets, as the simulator does for the ego."""
    real, whole = simulator.packed
    speeds = np.array(SPEEDS)
    # Of equal steps: the closest one, halves to even.
    share = (real[envs, at.SPEED, cars] - speeds[0]) / (speeds[-1] - speeds[0])
    index = np.clip(np.rint(share * (len(speeds) - 1)), 0, len(speeds) - 1).astype(np.int64)
    index = np.clip(index + (chosen == at.FASTER) - (chosen == at.SLOWER), 0, len(speeds) - 1)
    faster = np.isin(chosen, (at.FASTER, at.SLOWER))
    real[envs[faster], at.TARGET_SPEED, cars[faster]] = speeds[index[faster]]
    lanes = int(simulator.parameters.wholes[at.LANES])
    lane = whole[envs, at.TARGET_LANE, cars] + (chosen == at.LANE_RIGHT) - (chosen == at.LANE_LEFT)
    lane = np.clip(lane, 0, lanes - 1)
    # A lane is reachable from at most two of its widths away (highway_env/road/lane.py).
    away = np.abs(real[envs, at.Y, cars] - LANE_WIDTH * lane)
    reachable = (away <= 2.0 * LANE_WIDTH) & (real[envs, at.X, cars] >= 0.0)
    whole[envs, at.TARGET_LANE, cars] = np.where(reachable, lane, whole[envs, at.TARGET_LANE, cars])
