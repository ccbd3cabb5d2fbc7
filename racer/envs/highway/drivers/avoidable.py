"""Which crashes of a policy were avoidable: a planner that knows what comes takes over shortly before.

The simulator is exact and can be copied, so the planner drives the very scene that the policy crashed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.envs.highway.drivers.base import Driver
from racer.envs.highway.drivers.planners import StatePlanner
from racer.envs.highway.world import RiskWorld

__all__ = ["STEPS_BEFORE", "Crash", "crash_of", "survives"]

STEPS_BEFORE = (5, 10, 20)
"""Steps before a crash at which the planner takes over."""

SURVIVAL = 8.0
"""How long the planner must drive without an end (s), unless the episode is over sooner."""

State = Mapping[str, np.ndarray]
MakePlanner = Callable[[RiskWorld], Driver]


@dataclass(frozen=True)
class Crash:
    """A crash of a policy.

    Attributes:
        seed: of the episode.
        step: in which it happened, from 1.
        avoidable: steps before it to whether the planner, taking over then, survived. An episode that is shorter than
            that is taken over at its start.
    """

    seed: int
    step: int
    avoidable: Mapping[int, bool]


def crash_of(
    policy: Any,
    params: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    seed: int,
    *,
    deterministic: bool = True,
    steps_before: Sequence[int] = STEPS_BEFORE,
    make_planner: MakePlanner = StatePlanner,
) -> Crash | None:
    """Run one episode of a policy; if it ends in a crash, say from when on the planner would have survived.

    Args:
        policy: see :class:`racer.networks.policy.Policy`.
        params: its arrays.
        config: of the world; engine "compiled".
        seed: of the episode.
        deterministic: take the policy's mode; otherwise sample with a generator of the episode's seed.
        steps_before: when the planner takes over.
        make_planner: makes the planner for a world of one environment.

    Raises:
        UsageError: the world is not one that the planner can drive in.
    """
    world = RiskWorld(config, 1)
    planner = make_planner(world)
    observations, _ = world.reset([seed])
    memory, rng = policy.initial_memory(1), np.random.default_rng(seed)
    states: deque[State] = deque(maxlen=max(steps_before))
    for step in range(1, int(world.config["max_episode_steps"]) + 1):
        states.append(world.get_state())
        actions, memory, _ = policy.act(params, observations, memory, rng, deterministic)
        result = world.step(actions)
        observations = result.observations
        if result.info["crashed"][0]:
            return Crash(seed, step, {k: survives(world, planner, states[-min(k, len(states))]) for k in steps_before})
        if result.terminated[0] or result.truncated[0]:
            return None
    return None


def survives(world: RiskWorld, planner: Driver, state: State) -> bool:
    """Let a planner drive on from a state of its world (one environment): does it neither crash nor leave the road?"""
    observations = world.set_state(state)
    memory = planner.initial_memory(1)
    for _ in range(round(SURVIVAL * world.config["policy_frequency"])):
        actions, memory, _ = planner.act({}, observations, memory, None)
        result = world.step(actions)
        observations = result.observations
        if result.terminated[0] or result.info["crashed"][0]:
            return False
        if result.truncated[0]:
            return True
    return True
