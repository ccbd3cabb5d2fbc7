"""How much faster is the compiled simulator than highway-env, on the same seeds and actions?

    python benchmarks/simulator.py                       # the whole table, a few minutes
    python benchmarks/simulator.py --vehicles 20 50 --seconds 2

Both engines run highway-v0 (4 lanes, 15 Hz simulation, 5 Hz policy, 40 s, continuous actions) from the same seeds with
the same actions, through their public interfaces: the compiled one as ``gymnasium.make_vec("racer/highway-v0")`` with
autoreset, observation, reward and infos, highway-env as the environment itself with a reset at each episode's end.
A step is one policy step of one environment. The engines take turns, so that a load of the machine that comes and
goes meets both; single-core rates are per second of processor time, which other programs disturb least, rates of
several threads per second of wall time. The rewards of both are compared on the way.

``cold`` and ``warm`` are child processes that import the simulator, reset and take one step, with an empty and a
filled compilation cache. Where EnvPool is installed its highway and the compiled engine run
beside each other on discrete actions.

Prints a table and writes a JSON file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from result_file import RESULTS, write_result

from racer.envs.highway.twins import register

SCRIPT_STEPS = 400
START = """
import time
start = time.perf_counter()
import numpy as np
from racer.envs.highway.defaults import highway_defaults
from racer.envs.highway.simulator import HighwaySimulator
imported = time.perf_counter()
simulator = HighwaySimulator({**highway_defaults(False), "action": {"type": "ContinuousAction"}}, 1)
simulator.reset([0])
simulator.step(np.zeros((1, 2), np.float32))
print(imported - start, time.perf_counter() - start)
"""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vehicles", type=int, nargs="+", default=[10, 20, 50, 100, 200], help="other vehicles")
    parser.add_argument("--envs", type=int, default=256, help="environments in the batch (default: 256)")
    parser.add_argument("--turns", type=int, default=3, help="turns that the engines take (default: 3)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a compiled turn (default: 1 s)")
    parser.add_argument("--reference-seconds", type=float, default=4.0, help="of a highway-env turn (default: 4 s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of the compiled engine")
    parser.add_argument("--skip-start", action="store_true", help="do not time the cold and warm start")
    parser.add_argument("--output", type=Path, default=RESULTS / "simulator.json")
    return parser.parse_args()


def make_config(vehicles: int) -> dict[str, Any]:
    """Return the configuration that both engines run."""
    return {"action": {"type": "ContinuousAction"}, "policy_frequency": 5, "vehicles_count": vehicles}


def make_script(envs: int) -> np.ndarray:
    """Return actions ``[S, E, 2]``: any acceleration, little steering, so that episodes last."""
    rng = np.random.default_rng(0)
    script = rng.uniform(-1, 1, (SCRIPT_STEPS, envs, 2)) * [1.0, 0.02]
    return script.astype(np.float32)


class Run:
    """An environment that is stepped through its script, a turn at a time.

    Args:
        env: a single environment with a reset at each end, or a vector environment that resets by itself.
        script: actions ``[S, ...]``, used over and over.
        resets: whether this class resets the environment at an episode's end.
    """

    def __init__(self, env: Any, script: np.ndarray, *, resets: bool) -> None:
        self.env = env
        self.script = script
        self.resets = resets
        self.size = 1 if resets else env.num_envs
        self.rewards: list[float] = []
        self.steps = 0
        self.wall = self.processor = 0.0
        env.reset(seed=0)
        env.step(script[0])  # compiles, or loads what was compiled
        env.reset(seed=0)

    def turn(self, seconds: float) -> None:
        """Go on for so many seconds of wall time."""
        wall, processor = time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < seconds:
            _, reward, terminated, truncated, _ = self.env.step(self.script[self.steps % len(self.script)])
            if self.steps < len(self.script):
                self.rewards.append(float(reward if self.resets else reward[0]))
            if self.resets and (terminated or truncated):
                self.env.reset()
            self.steps += 1
        self.wall += time.perf_counter() - wall
        self.processor += time.process_time() - processor

    def rate(self, *, wall: bool = False) -> float:
        """Steps/s of processor time, or of wall time."""
        return self.steps * self.size / (self.wall if wall else self.processor)


def time_discrete(vehicles: int, envs: int, seconds: float) -> tuple[float, float] | None:
    """Steps/s of EnvPool's highway and of the compiled engine, both on discrete actions and one thread.

    Returns None where EnvPool is not installed (or only in part: some builds come without their data files).
    """
    try:
        import envpool
    except (ImportError, OSError):
        return None
    options = {"vehicles_count": vehicles, "policy_frequency": 5}
    pool = envpool.make(
        "Highway-v0", env_type="gymnasium", num_envs=envs, num_threads=1, max_episode_steps=200, **options
    )
    compiled = gymnasium.make_vec("racer/highway-v0", num_envs=envs, config=options, autoreset_mode="SameStep")
    script = np.random.default_rng(0).integers(0, 5, (SCRIPT_STEPS, envs)).astype(np.int32)
    runs = [Run(env, script, resets=False) for env in (Pool(pool, envs), compiled)]
    for run in runs:
        run.turn(seconds)
        run.env.close()
    return runs[0].rate(), runs[1].rate()


class Pool:
    """EnvPool's environments, which are seeded when they are made, under gymnasium's signature."""

    def __init__(self, pool: Any, num_envs: int) -> None:
        self.num_envs = num_envs
        self.step, self.close = pool.step, pool.close
        self._reset = pool.reset

    def reset(self, *, seed: int | None = None) -> Any:
        """Reset all; the seed is EnvPool's own."""
        return self._reset()


def time_start() -> dict[str, float]:
    """Seconds to import, and to the first step, with an empty and a filled compilation cache."""
    result = {}
    with tempfile.TemporaryDirectory() as cache:
        for kind in ("cold", "warm"):
            child = subprocess.run(
                [sys.executable, "-c", START],
                env={**os.environ, "NUMBA_CACHE_DIR": cache},
                capture_output=True,
                text=True,
                timeout=300,
                check=True,
            )
            result[f"{kind}_import_s"], result[f"{kind}_first_step_s"] = map(float, child.stdout.split())
    return result


def measure(vehicles: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one line of the table."""
    config, script = make_config(vehicles), make_script(arguments.envs)
    reference = Run(gymnasium.make("highway-v0", config=config).unwrapped, script[:, 0], resets=True)
    single = Run(gymnasium.make("racer/highway-v0", config=config).unwrapped, script[:, 0], resets=True)
    batches = {
        threads: Run(
            gymnasium.make_vec(
                "racer/highway-v0",
                num_envs=arguments.envs,
                config=config,
                num_threads=threads,
                autoreset_mode="SameStep",
            ),
            script,
            resets=False,
        )
        for threads in sorted({1, *arguments.threads})
    }
    for _ in range(arguments.turns):
        reference.turn(arguments.reference_seconds)
        for run in (*batches.values(), single):
            run.turn(arguments.seconds)
    common = min(len(reference.rewards), len(batches[1].rewards))
    gaps = np.abs(np.subtract(reference.rewards[:common], batches[1].rewards[:common]))
    row: dict[str, Any] = {
        "vehicles": vehicles,
        "highway_env": reference.rate(),
        "compiled": batches[1].rate(),
        "ratio": batches[1].rate() / reference.rate(),
        "compiled_wall": {threads: run.rate(wall=True) for threads, run in batches.items()},
        "compiled_single": single.rate(),
        "compared_steps": common,
        "greatest_reward_difference": float(gaps.max()),
    }
    for run in (reference, single, *batches.values()):
        run.env.close()
    discrete = time_discrete(vehicles, arguments.envs, arguments.seconds)
    row["envpool"], row["compiled_discrete"] = discrete or (None, None)
    return row


def show(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Print the table."""
    more = [threads for threads in arguments.threads if threads > 1]
    heads = ["vehicles", "highway-env /s", "compiled /s", "ratio", "us a step", "one env a call /s"]
    heads += [f"{threads} threads: x" for threads in more] + ["EnvPool, discrete /s", "compiled, discrete /s"]
    print("| " + " | ".join(heads) + " |")
    print("|" + "|".join("-" * (len(head) + 1) + ":" for head in heads) + "|")
    for row in rows:
        cells = [f"{row['vehicles']}", f"{row['highway_env']:.2f}", f"{row['compiled']:,.0f}"]
        cells += [f"{row['ratio']:,.0f}", f"{1e6 / row['compiled']:.1f}", f"{row['compiled_single']:,.0f}"]
        wall = row["compiled_wall"]
        cells += [f"{wall[threads] / wall[1]:.2f}" for threads in more]
        cells += ["-" if row[key] is None else f"{row[key]:,.0f}" for key in ("envpool", "compiled_discrete")]
        print("| " + " | ".join(cell.rjust(len(head)) for cell, head in zip(cells, heads, strict=True)) + " |")


def main() -> None:
    """Measure, print and write."""
    arguments = parse_arguments()
    warnings.simplefilter("ignore")
    import highway_env

    register()
    outcome: dict[str, Any] = {
        "highway_env": highway_env.__version__,
        "envs": arguments.envs,
        "rows": [],
    }
    if not arguments.skip_start:
        outcome["start"] = time_start()
    for vehicles in arguments.vehicles:
        outcome["rows"].append(measure(vehicles, arguments))
    show(outcome["rows"], arguments)
    worst = max(row["greatest_reward_difference"] for row in outcome["rows"])
    steps = sum(row["compared_steps"] for row in outcome["rows"])
    print(f"rewards of both engines over {steps} common steps: greatest difference {worst:.2g}")
    if "start" in outcome:
        start = outcome["start"]
        print(
            f"start: import {start['warm_import_s']:.2f} s, first step after {start['cold_first_step_s']:.1f} s with "
            f"an empty cache and {start['warm_first_step_s']:.2f} s with a filled one"
        )
    write_result(arguments.output, "simulator", outcome)


if __name__ == "__main__":
    main()
