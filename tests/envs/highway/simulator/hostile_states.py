"""Change states of the simulator as a damaged or forged file would, and step on from what is let through.

Run as a program it does so with many random changes and prints how many were refused; with Numba's bounds checking
(``NUMBA_BOUNDSCHECK=1``) an access outside an array is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from typing import Any

import numpy as np
from highway_pairs import random_scene

from racer.core.errors import UsageError
from racer.envs.highway.defaults import highway_defaults
from racer.envs.highway.simulator import HighwaySimulator
from racer.envs.highway.simulator import layout as at

NUM_ENVS = 3
VICTIM = 1
"""The environment whose part of the state is changed."""

CONFIGS: tuple[dict[str, Any], ...] = (
    {"action": {"type": "ContinuousAction"}},
    {"action": {"type": "DiscreteMetaAction"}, "lanes_count": 3},
    {"action": {"type": "ContinuousAction"}, "other_vehicles_type": "highway_env.vehicle.behavior.LinearVehicle"},
    {"action": {"type": "DiscreteMetaAction"}, "observation": {"type": "Kinematics", "order": "shuffled"}},
)

ENTRIES: tuple[tuple[str, int], ...] = (
    *(("real", row) for row in range(at.REALS)),
    *(("whole", row) for row in range(at.WHOLES)),
    *(("clock", column) for column in range(at.CLOCKS)),
    *(("rng", column) for column in range(at.RNGS)),
    *(("result", column) for column in range(at.RESULTS)),
    ("observations", 0),
    ("is_reset", 0),
)
"""Every class of entries: an array and a row (or column) of it."""

WHOLE_VALUES = (-1, 1, 2, 3, 7, 12, 1000, -(2**40), 2**40, 2**63 - 1, -(2**63))
REAL_VALUES = (np.nan, np.inf, -np.inf, -1.0, 0.0, 2.0, 1e6, -1e6, 1e300, -1e300, 5e-324)
RNG_VALUES = (0, 1, 2, 2**32, 2**63, 2**64 - 1)


def simulator(config: dict[str, Any]) -> HighwaySimulator:
    base = {"vehicles_count": 9, "vehicles_density": 2.5, "policy_frequency": 5}
    return HighwaySimulator({**highway_defaults(False), **base, **config}, NUM_ENVS)


def actions(sim: HighwaySimulator, rng: np.random.Generator) -> np.ndarray:
    """Draw valid actions."""
    action = sim.parameters.action
    if action.is_discrete:
        return rng.integers(action.size, size=sim.num_envs)
    return (rng.normal(size=(sim.num_envs, action.size)) * [0.5, 0.05]).astype(np.float32)


def driven(config: dict[str, Any], steps: int = 6) -> dict[str, np.ndarray]:
    """Return the state after some steps."""
    sim, rng = simulator(config), np.random.default_rng(0)
    sim.reset(list(range(NUM_ENVS)))
    for _ in range(steps):
        sim.step(actions(sim, rng))
    return sim.get_state()


def mutated(state: dict[str, np.ndarray], entry: tuple[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the state with some entries of one class, in one environment, replaced."""
    name, row = entry
    changed = {key: array.copy() for key, array in state.items()}
    victim = changed[name][VICTIM : VICTIM + 1]
    flat = (victim if name in ("observations", "is_reset") else victim[0, row : row + 1]).reshape(-1)
    places = rng.choice(flat.size, size=int(rng.integers(1, flat.size + 1)), replace=False)
    if name == "is_reset":
        flat[places] = ~flat[places]
    elif name == "whole":
        if rng.random() < 0.3:
            flat[...] = rng.permutation(flat)
        else:
            flat[places] = rng.choice(np.array(WHOLE_VALUES), size=len(places))
    elif name == "rng":
        flat[places] = rng.choice(np.array(RNG_VALUES, dtype=np.uint64), size=len(places))
    else:
        with np.errstate(over="ignore"):
            flat[places] = rng.choice(np.array(REAL_VALUES), size=len(places)).astype(flat.dtype)
    return changed


def go_on(sim: HighwaySimulator, steps: int) -> dict[str, np.ndarray]:
    """Step, reset one environment in between, look and draw; returns the state then."""
    rng = np.random.default_rng(1)
    spec = sim.observation_spec({"type": "Kinematics", "vehicles_count": 4, "see_behind": True})
    for step in range(steps):
        sim.step(actions(sim, rng))
        sim.observe(spec)
        if step == steps // 2:
            sim.reset(indices=[VICTIM])
    return sim.get_state()


def place_scenes(sim: HighwaySimulator, rng: np.random.Generator) -> None:
    """Put made-up scenes into all environments, with every choice that a state may hold."""
    lanes, vehicles = int(sim.parameters.wholes[at.LANES]), sim.num_vehicles
    for index in range(sim.num_envs):
        sim.set_scene(index, **random_scene(rng, vehicles, lanes))
    state = sim.get_state()
    state["whole"][:, at.SPEED_INDEX] = rng.integers(len(sim.parameters.action.target_speeds), size=vehicles)
    state["whole"][:, at.HAS_IMPACT] = rng.integers(2, size=vehicles)
    state["whole"][:, at.PAIR] = rng.integers(vehicles**2, size=vehicles)
    state["whole"][:, at.CHANGING] = rng.integers(vehicles, size=vehicles)
    state["rng"][:, at.RNG_HAS_32] = 1
    state["rng"][:, at.RNG_32] = rng.choice([0, 1, 2**32 - 1])
    sim.set_state(state)


def breaks_out(sim: HighwaySimulator) -> bool:
    """Whether an order that skips the check is caught when it indexes memory: else nothing here proves anything."""
    sim.reset([0, 1, 2])
    sim._whole[VICTIM, at.ORDER, 3] = 1000
    try:
        sim.step(actions(sim, np.random.default_rng(0)))
    except IndexError:
        return True
    return False


def main() -> None:
    """Try many changes and print what became of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tries", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    rng, seen = np.random.default_rng(7), Counter[str]()
    for config in CONFIGS:
        state, sim = driven(config), simulator(config)
        for entry in ENTRIES:
            for _ in range(arguments.tries):
                try:
                    sim.set_state(mutated(state, entry, rng))
                except UsageError:
                    seen["refused"] += 1
                    continue
                if not sim.get_state()["is_reset"].all():
                    seen["not reset"] += 1
                    continue
                go_on(sim, arguments.steps)
                seen["stepped"] += 1
        for _ in range(10 * arguments.tries):
            sim.reset([0, 1, 2])
            place_scenes(sim, rng)
            go_on(sim, arguments.steps)
            seen["made up"] += 1
        if "NUMBA_BOUNDSCHECK" in os.environ:
            seen["caught"] += breaks_out(sim)
    json.dump(seen, sys.stdout)
    print()


if __name__ == "__main__":
    main()
