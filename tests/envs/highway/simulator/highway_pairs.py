"""Run highway-env and the compiled simulator side by side and report the first difference.

Run as a program it prints one JSON line: the number of episodes and steps compared, what they covered, and the
differences found. The tests start it in a child process with the floating-point library pinned.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from highway_env.envs.highway_env import HighwayEnv, HighwayEnvFast

from racer.envs.highway.defaults import highway_defaults
from racer.envs.highway.simulator import HighwaySimulator
from racer.envs.highway.simulator.generator import unpack
from racer.envs.highway.simulator.layout import FEATURES

BEHAVIORS = "highway_env.vehicle.behavior."
TRAFFIC = ("IDMVehicle", "LinearVehicle", "AggressiveVehicle", "DefensiveVehicle")


class Difference(AssertionError):
    """The two engines disagree; the message says where."""


class Pair:
    """highway-env and the compiled simulator under one configuration.

    Args:
        config: keys on top of the id's defaults.
        fast: highway-fast-v0 instead of highway-v0.
        tolerance: 0 compares bits; otherwise the greatest allowed absolute difference.
        search: the simulator's search.
    """

    def __init__(
        self, config: dict[str, Any], *, fast: bool = False, tolerance: float = 0.0, search: str = "sorted"
    ) -> None:
        self.config = config
        self.reference = (HighwayEnvFast if fast else HighwayEnv)(config=config)
        self.simulator = HighwaySimulator({**highway_defaults(fast), **config}, 1, fast=fast, search=search)
        self.tolerance = tolerance
        self.steps = 0

    def reset(self, seed: int | None) -> None:
        """Reset both and compare scene, observation and generator."""
        observation, info = self.reference.reset(seed=seed)
        self.simulator.reset([seed])
        if seed is not None:
            theirs = self.reference.np_random.bit_generator.state
            ours = unpack(self.simulator.get_generator_state(0))
            if theirs != ours:
                raise Difference(f"generator after reset: {theirs} != {ours}")
            self.compare("reset", observation, info)

    def step(self, action: Any) -> tuple[bool, bool]:
        """Step both, compare everything, and return (terminated, truncated)."""
        observation, reward, terminated, truncated, info = self.reference.step(action)
        self.simulator.step(np.asarray(action)[None])
        self.steps += 1
        where = f"step {self.steps}"
        self.compare(where, observation, info)
        self.equal(where, "reward", reward, self.simulator.rewards[0])
        if (bool(terminated), bool(truncated)) != (self.simulator.terminated[0], self.simulator.truncated[0]):
            raise Difference(f"{where}: end flags {terminated, truncated}")
        return bool(terminated), bool(truncated)

    def equal(self, where: str, what: str, theirs: Any, ours: Any) -> None:
        """Compare numbers: by bits (the sign of zero apart), or within the tolerance."""
        theirs, ours = np.asarray(theirs), np.asarray(ours)
        if theirs.shape != ours.shape:
            raise Difference(f"{where}: {what} has shape {theirs.shape} != {ours.shape}")
        if self.tolerance == 0:
            same = np.array_equal(theirs, ours, equal_nan=theirs.dtype.kind == "f")
        else:
            same = np.allclose(theirs, ours, rtol=0, atol=self.tolerance, equal_nan=True)
        if not same:
            gap = np.abs(theirs.astype(float) - ours.astype(float)).max()
            raise Difference(f"{where}: {what} differs by {gap:.3g}")

    def compare(self, where: str, observation: np.ndarray, info: dict[str, Any]) -> None:
        """Compare every vehicle, the observation and the info."""
        scene = self.simulator.scene(0)
        vehicles = self.reference.road.vehicles
        self.equal(where, "x", [v.position[0] for v in vehicles], scene["x"])
        self.equal(where, "y", [v.position[1] for v in vehicles], scene["y"])
        self.equal(where, "heading", [v.heading for v in vehicles], scene["heading"])
        self.equal(where, "speed", [v.speed for v in vehicles], scene["speed"])
        self.equal(where, "crashed", [v.crashed for v in vehicles], scene["crashed"])
        self.equal(where, "lane", [v.lane_index[2] for v in vehicles], scene["lane"])
        targets = [v.target_lane_index[2] if hasattr(v, "target_lane_index") else None for v in vehicles]
        for theirs, ours in zip(targets, scene["target_lane"], strict=True):
            if theirs is not None and theirs != ours:
                raise Difference(f"{where}: target lane {theirs} != {ours}")
        timers = [getattr(v, "timer", 0.0) for v in vehicles]
        self.equal(where, "timer", timers, scene["timer"])
        rows = self.simulator.observed_rows[0]
        ours = self.simulator.observe()[0, :rows]
        if observation.dtype != ours.dtype:
            raise Difference(f"{where}: observation dtype {observation.dtype}")
        self.equal(where, "observation", observation, ours)
        self.equal(where, "info speed", info["speed"], self.simulator.ego_speed[0])
        for name, value in info["rewards"].items():
            self.equal(where, name, value, self.simulator.reward_components[name][0])

    def place(self, scene: dict[str, Any]) -> None:
        """Write a hand-made scene into both: x, y, heading, speed and optionally target lanes, timers, crashed."""
        road = self.reference.road
        for i, vehicle in enumerate(road.vehicles):
            vehicle.position = np.array([scene["x"][i], scene["y"][i]], dtype=np.float64)
            vehicle.heading = float(scene["heading"][i])
            vehicle.speed = float(scene["speed"][i])
            vehicle.crashed = bool(scene["crashed"][i])
            vehicle.impact = None
            vehicle.on_state_update()
            if hasattr(vehicle, "target_lane_index"):
                vehicle.target_lane_index = ("0", "1", int(scene["target_lane"][i]))
            if hasattr(vehicle, "timer"):
                vehicle.timer = float(scene["timer"][i])
        self.simulator.set_scene(0, **scene)


def random_observation(rng: np.random.Generator) -> dict[str, Any]:
    """Draw a Kinematics observation with any of its settings."""
    config: dict[str, Any] = {"type": "Kinematics"}
    if rng.random() < 0.7:
        names = rng.permutation(FEATURES)[: rng.integers(1, len(FEATURES) + 1)]
        config["features"] = [str(name) for name in names]
    if rng.random() < 0.8:
        config["vehicles_count"] = int(rng.choice([1, 2, 3, 5, 8, 15, 40]))
    for key, chance in (("absolute", 0.4), ("see_behind", 0.5), ("observe_intentions", 0.3)):
        config[key] = bool(rng.random() < chance)
    for key, chance in (("normalize", 0.6), ("clip", 0.6)):
        config[key] = bool(rng.random() < chance)
    config["order"] = str(rng.choice(["sorted", "sorted", "shuffled"]))
    if rng.random() < 0.3:
        config["features_range"] = {
            str(name): [-float(rng.uniform(1, 90)), int(rng.integers(1, 90))]
            for name in rng.permutation(FEATURES)[:4]
        }
    return config


def random_action(rng: np.random.Generator) -> dict[str, Any]:
    """Draw an action type with any of its settings."""
    kind = str(rng.choice(["ContinuousAction", "ContinuousAction", "DiscreteMetaAction", "DiscreteAction"]))
    config: dict[str, Any] = {"type": kind}
    axes = rng.random()
    if axes < 0.15:
        config["lateral"] = False
    elif axes < 0.3:
        config["longitudinal"] = False
    if kind == "DiscreteMetaAction":
        if rng.random() < 0.5:
            start = float(rng.uniform(-5, 20))
            config["target_speeds"] = np.linspace(
                start, start + rng.uniform(5, 30), rng.integers(2, 7)
            ).tolist()
        return config
    if rng.random() < 0.5:
        config["acceleration_range"] = [-float(rng.uniform(0, 12)), int(rng.integers(1, 12))]
    if rng.random() < 0.5:
        config["steering_range"] = [-float(rng.uniform(0, 1)), float(rng.uniform(0, 1))]
    if rng.random() < 0.5:
        config["clip"] = bool(rng.random() < 0.5)
    if kind == "ContinuousAction" and rng.random() < 0.4:
        config["speed_range"] = [float(rng.uniform(-10, 15)), float(rng.uniform(20, 60))]
    if kind == "DiscreteAction" and rng.random() < 0.5:
        config["actions_per_axis"] = int(rng.integers(2, 6))
    return config


def random_config(rng: np.random.Generator, most_vehicles: int = 14) -> dict[str, Any]:
    """Draw a whole configuration, mostly of few vehicles."""
    lanes = int(rng.integers(1, 7))
    simulation = int(rng.choice([5, 10, 15, 20]))
    config = {
        "observation": random_observation(rng),
        "action": random_action(rng),
        "other_vehicles_type": BEHAVIORS + str(rng.choice(TRAFFIC, p=[0.55, 0.15, 0.15, 0.15])),
        "lanes_count": lanes,
        "vehicles_count": int(rng.integers(0, most_vehicles + 1)),
        "vehicles_density": float(rng.choice([0.7, 1.0, 1.6, 2.5, 3.5])),
        "ego_spacing": float(rng.choice([0.6, 1.5, 2.0])),
        "simulation_frequency": simulation,
        "policy_frequency": int(rng.choice([1, 2, 5])),
        "duration": float(rng.choice([3, 6, 40])),
        "initial_lane_id": None if rng.random() < 0.6 else int(rng.integers(-lanes, lanes)),
        "offroad_terminal": bool(rng.random() < 0.3),
        "normalize_reward": bool(rng.random() < 0.7),
        "collision_reward": float(rng.uniform(-3, 0)),
        "right_lane_reward": float(rng.uniform(0, 1)),
        "high_speed_reward": float(rng.uniform(0.1, 1)),
        "reward_speed_range": [float(rng.uniform(0, 20)), int(rng.integers(21, 40))],
        "neighbour_vehicles_connected_lanes": bool(rng.random() < 0.2),
    }
    if rng.random() < 0.2:
        config["on_road_reward"] = float(rng.uniform(0, 1))
    return config


def wild_action(pair: Pair, rng: np.random.Generator) -> Any:
    """Draw an action; continuous ones leave [-1, 1] at times and come as float32 or float64."""
    action = pair.simulator.parameters.action
    if action.is_discrete:
        return int(rng.integers(action.size))
    dtype = np.float32 if rng.random() < 0.7 else np.float64
    scale = rng.choice([0.05, 0.3, 1.0, 1.3])
    return (rng.normal(size=action.size) * scale).astype(dtype)


def random_scene(rng: np.random.Generator, vehicles: int, lanes: int) -> dict[str, Any]:
    """Draw an adversarial scene: overlaps, exact ties, reversing cars, pile-ups, cars around the lane's end."""
    where = rng.choice([100.0, 100.0, 9960.0, 10005.0, -5.0, 0.0])
    spread = rng.choice([4.0, 15.0, 60.0, 150.0])
    x = where + rng.uniform(-spread, spread, vehicles)
    y = rng.uniform(-3, 4 * lanes, vehicles)
    heading = rng.normal(size=vehicles) * rng.choice([0.0, 0.01, 0.3, 2.0])
    speed = rng.uniform(-10, 35, vehicles)
    if rng.random() < 0.5:
        x = np.round(x / 5) * 5
    if rng.random() < 0.5:
        y = 4.0 * rng.integers(0, lanes, vehicles)
    if rng.random() < 0.3:
        y = 2.0 * rng.integers(0, 2 * lanes, vehicles)
    if rng.random() < 0.3:
        speed = np.round(speed / 10) * 10
    timer = rng.uniform(0, 1.2, vehicles)
    timer[0] = 0.0  # the ego decides nothing by itself
    return {
        "x": x,
        "y": y,
        "heading": heading,
        "speed": speed,
        "crashed": rng.random(vehicles) < rng.choice([0.0, 0.0, 0.3]),
        "target_lane": rng.integers(0, lanes, vehicles),
        "timer": timer,
    }


def run_random(seed: int, tolerance: float, seen: Counter[str], most_vehicles: int, steps: int) -> int:
    """Run one random episode, going on for a while after its end; returns the steps compared."""
    rng = np.random.default_rng(seed)
    config = random_config(rng, most_vehicles)
    fast = bool(rng.random() < 0.3)
    search = str(rng.choice(["sorted", "brute"]))
    pair = Pair(config, fast=fast, tolerance=tolerance, search=search)
    pair.reset(int(rng.integers(1 << 31)))
    if rng.random() < 0.3:
        pair.reset(int(rng.integers(1 << 31)))
    seen[config["action"]["type"]] += 1
    seen[config["other_vehicles_type"].removeprefix(BEHAVIORS)] += 1
    seen[search] += 1
    seen["fast"] += fast
    after = 0
    for _ in range(steps):
        terminated, truncated = pair.step(wild_action(pair, rng))
        after += terminated or truncated
        if after > 15:
            break
    seen["crashed"] += bool(pair.simulator.ego_crashed[0])
    seen["traffic crashed"] += bool(pair.simulator.scene(0)["crashed"][1:].any())
    seen["lane changes"] += bool(
        (pair.simulator.scene(0)["target_lane"] != pair.simulator.scene(0)["lane"]).any()
    )
    return pair.steps


def run_adversarial(seed: int, tolerance: float, seen: Counter[str], most_vehicles: int, steps: int) -> int:
    """Run one episode from a hand-made scene; returns the steps compared."""
    rng = np.random.default_rng(seed)
    config = random_config(rng, most_vehicles)
    config["vehicles_count"] = max(config["vehicles_count"], 2)
    pair = Pair(
        config,
        fast=bool(rng.random() < 0.2),
        tolerance=tolerance,
        search=str(rng.choice(["sorted", "brute"])),
    )
    pair.reset(int(rng.integers(1 << 31)))
    pair.place(random_scene(rng, config["vehicles_count"] + 1, config["lanes_count"]))
    for _ in range(steps):
        pair.step(wild_action(pair, rng))
    crashed = int(pair.simulator.scene(0)["crashed"].sum())
    seen["pile-ups"] += crashed > 2
    seen["past the end"] += bool((pair.simulator.scene(0)["x"] > 10000).any())
    return pair.steps


def run_dense(seed: int, tolerance: float, seen: Counter[str], vehicles: int, steps: int) -> int:
    """Run dense traffic with the default observation; returns the steps compared."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(["ContinuousAction", "DiscreteMetaAction"]))
    pair = Pair(
        {
            "action": {"type": kind},
            "vehicles_count": vehicles,
            "vehicles_density": 2.5,
            "policy_frequency": 5,
            "lanes_count": int(rng.integers(2, 6)),
        },
        tolerance=tolerance,
    )
    pair.reset(int(rng.integers(1 << 31)))
    for _ in range(steps):
        action = wild_action(pair, rng)
        pair.step(action if kind != "ContinuousAction" else action * np.float32(0.1))
    seen["dense"] += 1
    return pair.steps


SUITES = {"random": run_random, "adversarial": run_adversarial, "dense": run_dense}


def run(suite: str, seeds: Iterator[int], tolerance: float, vehicles: int, steps: int) -> dict[str, Any]:
    """Run a suite over seeds; differences are collected, not raised."""
    seen: Counter[str] = Counter()
    differences: list[str] = []
    episodes = compared = 0
    for seed in seeds:
        episodes += 1
        try:
            compared += SUITES[suite](seed, tolerance, seen, vehicles, steps)
        except Difference as error:
            differences.append(f"{suite} seed {seed}: {error}")
    return {"episodes": episodes, "steps": compared, "seen": dict(seen), "differences": differences}


def main() -> None:
    """Run the suite named on the command line and print its outcome."""
    parser = argparse.ArgumentParser()
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--vehicles", type=int, default=14)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--tolerance", type=float, default=0.0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    seeds = iter(range(arguments.first, arguments.first + arguments.episodes))
    outcome = run(arguments.suite, seeds, arguments.tolerance, arguments.vehicles, arguments.steps)
    json.dump(outcome, sys.stdout)
    print()


if __name__ == "__main__":
    main()
