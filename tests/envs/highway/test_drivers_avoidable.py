"""Avoidable crashes: when the planner takes over, from which state, and what it can still avoid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from racer.envs.highway.drivers.avoidable import crash_of, survives
from racer.envs.highway.drivers.planners import StatePlanner
from racer.envs.highway.world import RiskWorld


class Straight:
    """Full speed ahead."""

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        return {}

    def act(
        self, params: Any, observations: Any, memory: Any, key: Any, deterministic: bool = True
    ) -> tuple[np.ndarray, dict, dict]:
        return np.tile(np.float32([1.0, 0.0]), (len(observations), 1)), {}, {}


class Late(Straight):
    """Notes the steps of its world at which it was asked to begin, and drives on as before."""

    begun: list[int]

    def __init__(self, world: RiskWorld) -> None:
        self._world = world
        type(self).begun = []

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        self.begun.append(int(self._world.get_state()["steps"][0]))
        return {}


def blocked(distance: float) -> tuple[RiskWorld, dict[str, np.ndarray]]:
    """A slow car ``distance`` m ahead (centre to centre) of an ego at 40 m/s, on two lanes: the world and its state."""
    world = RiskWorld({"vehicles_count": 1, "lanes_count": 2}, 1)
    world.reset([1])
    world.engine.simulator.set_scene(  # type: ignore[attr-defined]
        0, x=np.array([100.0, 100.0 + distance]), y=np.zeros(2), heading=np.zeros(2), speed=np.array([40.0, 15.0]),
        target_lane=np.zeros(2, int), target_speed=np.full(2, 15.0),
    )  # fmt: skip
    return world, world.get_state()


@pytest.mark.parametrize(("distance", "avoidable"), [(10.0, False), (60.0, True)])
def test_a_planner_avoids_what_physics_allows(distance: float, avoidable: bool) -> None:
    world, state = blocked(distance)
    assert survives(world, StatePlanner(world, plans=48), state) is avoidable
    assert not survives(world, Straight(), state)


def test_the_planner_takes_over_as_many_steps_before_as_asked() -> None:
    crash = crash_of(Straight(), {}, {}, 10_000, steps_before=(1, 5, 500), make_planner=Late)
    assert crash is not None
    assert crash.seed == 10_000
    assert Late.begun == [crash.step - 1, crash.step - 5, 0]
    assert crash.avoidable == {1: False, 5: False, 500: False}


def test_an_episode_without_a_crash_has_none() -> None:
    assert crash_of(Straight(), {}, {"vehicles_count": 0, "duration": 4}, 10_000) is None
