"""Score the same scenes by NumPy functions and by the compiled pass and report every difference.

Run as a program it prints one JSON line, as ``highway_pairs.py`` does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from racer.envs.highway.compiled_scoring import CompiledScorer
from racer.envs.highway.config import resolve_config
from racer.envs.highway.engine import Scenes
from racer.envs.highway.scoring import ArrayScorer, Scoring
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.vector import RiskHighwayVectorEnv

STRANGE = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, 1e30)


def random_config(rng: np.random.Generator) -> dict[str, Any]:
    """Draw a configuration with everything that a scorer reads."""
    critical = float(rng.uniform(0, 2))
    near = float(rng.uniform(0, 8))
    config: dict[str, Any] = {
        "scenario": str(rng.choice(["highway-v0", "highway-fast-v0"])),
        "reward": str(rng.choice(["training", "training", "base"])),
        "safety_mode": str(rng.choice(["ttc", "proximity"])),
        "ttc_critical": critical,
        "ttc_threshold": critical + float(rng.uniform(0.1, 8)),
        "gap_threshold": float(rng.choice([0.5, 1.0, 30.0])),
        "cone_half_angle_degrees": float(rng.choice([0.0, 11.25, 60.0, 180.0])),
        "proximity_near": near,
        "proximity_far": near + float(rng.uniform(0.1, 40)),
        "offroad_safety_penalty": float(rng.choice([0.0, 0.5])),
        "offroad_penalty": float(rng.choice([0.0, -2.0])),
        "offroad_terminal": bool(rng.random() < 0.5),
        "safety_coeff": float(rng.choice([0.01, 1.0, -0.3])),
        "speed_weight": None if rng.random() < 0.5 else float(rng.uniform(0, 1)),
        "forward_speed_range": [float(rng.uniform(10, 25)), float(rng.uniform(25, 45))],
        "normalize_reward": bool(rng.random() < 0.5),
        "max_episode_steps": int(rng.choice([3, 9, 1000])),
        "observation_clip": float(rng.choice([0.7, 30.0, 100.0])),
        "flatten_observation": bool(rng.random() < 0.5),
        "vehicles_count": int(rng.choice([0, 1, 6, 15])),
        "vehicles_density": float(rng.choice([1.0, 2.5])),
        "duration": float(rng.choice([2, 4])),
        "simulation_frequency": 15,
        "policy_frequency": 5,
    }
    observation: dict[str, Any] = {"vehicles_count": int(rng.choice([2, 5, 15]))}
    if rng.random() < 0.5:
        observation.update(normalize=True, absolute=bool(rng.random() < 0.5), features=["x", "vx", "cos_h"])
        observation["order"] = str(rng.choice(["sorted", "shuffled"]))
    observation["see_behind"] = bool(rng.random() < 0.5)
    return {**config, "observation": observation}


def differences(theirs: Any, ours: Any, where: str, tolerance: float) -> list[str]:
    """Compare nested results: by bits, nan as nan and the types too, or within a relative tolerance."""
    if isinstance(theirs, Mapping):
        if theirs.keys() != ours.keys():
            return [f"{where}: keys {sorted(theirs.keys() ^ ours.keys())}"]
        return [line for key in theirs for line in differences(theirs[key], ours[key], f"{where}.{key}", tolerance)]
    theirs, ours = np.asarray(theirs), np.asarray(ours)
    if theirs.dtype != ours.dtype or theirs.shape != ours.shape:
        return [f"{where}: {theirs.dtype} {theirs.shape} != {ours.dtype} {ours.shape}"]
    if theirs.dtype == object:
        pairs = zip(theirs, ours, strict=True)
        return [line for a, b in pairs if a is not None for line in differences(a, b, where, tolerance)]
    if tolerance:
        same = np.allclose(theirs, ours, rtol=tolerance, atol=tolerance, equal_nan=True)
    else:
        same = np.array_equal(theirs, ours, equal_nan=theirs.dtype.kind == "f")
        # 0.0 == -0.0, but a checkpoint would differ
        same = same and np.array_equal(np.signbit(theirs[theirs == 0]), np.signbit(ours[ours == 0]))
    return [] if same else [f"{where}: {theirs.tolist()} != {ours.tolist()}"]


def run_driven(seed: int, tolerance: float, seen: Counter[str]) -> list[str]:
    """Drive two vector environments alike, everything they return and their states compared."""
    rng = np.random.default_rng(seed)
    config, n = random_config(rng), int(rng.integers(1, 6))
    pair = [RiskHighwayVectorEnv(n, config, scoring=scoring) for scoring in ("arrays", "compiled")]
    theirs, ours = (env.reset(seed=seed) for env in pair)
    found = differences(dict(enumerate(theirs)), dict(enumerate(ours)), f"seed {seed} reset", tolerance)
    scale = rng.choice([0.03, 0.2, 1.0])
    for step in range(25):
        actions = (rng.normal(size=(n, 2)) * [1.0, scale]).astype(np.float32)
        theirs, ours = (env.step(actions.copy()) for env in pair)
        where = f"seed {seed} step {step}"
        found += differences(dict(enumerate(theirs)), dict(enumerate(ours)), where, tolerance)
        found += differences(pair[0].get_state(), pair[1].get_state(), f"{where} state", tolerance)
        infos = theirs[4]
        parts = infos["reward_components"]
        seen["risk"] += bool((parts["safety_reward"] < 0).any())
        seen["penalty"] += bool((parts["offroad_penalty"] < 0).any())
        seen["terminated"] += bool(theirs[2].any())
        seen["truncated"] += bool(theirs[3].any())
        seen["closing"] += bool(np.isfinite(infos["time_to_collision"]).any())
    for key in ("reward", "safety_mode", "normalize_reward", "scenario"):
        seen[f"{key}={config[key]}"] += 1
    seen["another view"] += config["observation"].get("normalize", False)
    return found


class Stage:
    """An engine whose scenes are made up: both scorers read the same arrays."""

    def __init__(self, rng: np.random.Generator, num_envs: int, vehicles: int) -> None:
        self.rng, self.num_envs, self.vehicles = rng, num_envs, vehicles
        self.simulator = SimpleNamespace(results=np.zeros((num_envs, at.RESULTS)))
        self.rows = np.zeros((num_envs, vehicles, 6), np.float32)

    def draw(self) -> None:
        """Make up scenes: near and far cars, ties, absent rows, and a value that is not finite here and there."""
        rng, shape = self.rng, self.rows.shape[:2]
        spread = rng.choice([3.0, 8.0, 60.0, 300.0])
        self.rows[...] = rng.normal(size=self.rows.shape) * spread
        self.rows[..., 0] = rng.random(shape) < 0.8
        self.rows[..., 5] = rng.normal(size=shape) * rng.choice([0.0, 0.1, 4.0])
        if rng.random() < 0.4:
            self.rows[..., 1:] = np.round(self.rows[..., 1:])
        if rng.random() < 0.4:
            self.rows[rng.random(self.rows.shape) < 0.02] = rng.choice(STRANGE)
        result = self.simulator.results
        result[:, at.REWARD] = rng.normal(size=self.num_envs)
        result[:, at.EGO_SPEED] = rng.choice([-3.0, 0.0, 0.5, 20.0, 30.0, 38.0], self.num_envs)
        result[:, at.EGO_HEADING] = rng.choice([0.0, -0.0, 1e-9, 0.1, 2.0, 40.0], self.num_envs)
        result[:, at.EGO_OFFSET] = rng.choice([0.0, 2.0, -2.0, np.nextafter(2, 3), -7.0], self.num_envs)
        for column in (at.EGO_CRASHED, at.ON_ROAD_REWARD, at.TERMINATED, at.TRUNCATED):
            result[:, column] = rng.random(self.num_envs) < 0.4
        if rng.random() < 0.3:
            row = rng.integers(self.num_envs)
            result[row, rng.choice([at.REWARD, at.EGO_SPEED, at.EGO_HEADING, at.EGO_OFFSET])] = rng.choice(STRANGE)

    def arrays(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.rows, self.rows

    def scenes(self, indices: np.ndarray) -> Scenes:
        result = self.simulator.results[indices]
        flags = {
            "terminated": at.TERMINATED, "truncated": at.TRUNCATED, "crashed": at.EGO_CRASHED,
            "on_road": at.ON_ROAD_REWARD,
        }  # fmt: skip
        reals = {
            "rewards": at.REWARD, "speed": at.EGO_SPEED, "heading": at.EGO_HEADING, "lateral_offset": at.EGO_OFFSET,
        }  # fmt: skip
        return Scenes(
            observations=self.rows[indices],
            rows=self.rows[indices],
            **{name: result[:, column] != 0 for name, column in flags.items()},
            **{name: result[:, column] for name, column in reals.items()},
        )


def run_made_up(seed: int, tolerance: float, seen: Counter[str]) -> list[str]:
    """Score made-up scenes with both scorers."""
    rng = np.random.default_rng(seed)
    vehicles = int(rng.choice([1, 2, 15]))
    stage = Stage(rng, int(rng.integers(1, 6)), vehicles)
    scoring = Scoring.parse(resolve_config(random_config(rng)), (vehicles, 6))
    scorers = [ArrayScorer(stage, scoring), CompiledScorer(stage, scoring)]
    found: list[str] = []
    with np.errstate(all="ignore"):
        for step in range(12):
            stage.draw()
            where = f"seed {seed} step {step}"
            if step % 5 == 0:
                some = np.flatnonzero(rng.random(stage.num_envs) < (2.0 if step == 0 else 0.5))
                theirs, ours = (dict(enumerate(scorer.start(some))) for scorer in scorers)
            else:
                theirs, ours = (vars(scorer.step()) for scorer in scorers)
                safety = theirs["info"]["reward_components"]["safety_reward"]
                seen["risk"] += bool(((safety < 0) & (safety != -0.5)).any())
                seen["time to collision"] += bool(np.isfinite(theirs["info"]["time_to_collision"]).any())
                seen["nan"] += bool(np.isnan(theirs["rewards"]).any())
                seen["nan distance"] += bool(np.isnan(theirs["info"]["min_distance"]).any())
            found += differences(theirs, ours, where, tolerance)
            found += differences(scorers[0].get_state(), scorers[1].get_state(), f"{where} state", tolerance)
    seen["nobody else"] += vehicles == 1
    return found


SUITES = {"driven": run_driven, "made_up": run_made_up}


def run(suite: str, seeds: range, tolerance: float) -> dict[str, Any]:
    """Run a suite over seeds."""
    seen: Counter[str] = Counter()
    found = [line for seed in seeds for line in SUITES[suite](seed, tolerance, seen)]
    return {"episodes": len(seeds), "seen": dict(seen), "differences": found[:20]}


def main() -> None:
    """Run the suite named on the command line and print its outcome."""
    parser = argparse.ArgumentParser()
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--tolerance", type=float, default=0.0)
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.episodes)
    json.dump(run(arguments.suite, seeds, arguments.tolerance), sys.stdout)
    print()


if __name__ == "__main__":
    main()
