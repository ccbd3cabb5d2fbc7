"""How much faster is the compiled simulator than highway-env, on the same seeds and actions?

    python benchmarks/simulator.py                       # the whole table, a few minutes
    python benchmarks/simulator.py --vehicles 20 50 --seconds 2

Both engines run highway-v0 (4 lanes, 15 Hz simulation, 5 Hz policy, 40 s, continuous actions) from the same seeds with
the same actions, through their public interfaces: the compiled one as ``gymnasium.make_vec("racer/highway-v0")`` with
autoreset, observation, reward and infos, highway-env as the environment itself with a reset at each episode's end.
A step is one policy step of one environment. The rewards of both are compared on the way.

``cold`` and ``warm`` are child processes that import the simulator, reset and take one step, with an empty and a
filled compilation cache. Where EnvPool is installed its highway and the compiled engine run
beside each other on discrete actions.

Prints a table and writes a JSON file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from racer.envs.highway.twins import register

SCRIPT_STEPS = 400
START = """
import time
start = time.perf_counter()
import numpy as np
from racer.envs.highway.simulator import HighwaySimulator, defaults
imported = time.perf_counter()
simulator = HighwaySimulator({**defaults(False), "action": {"type": "ContinuousAction"}}, 1)
simulator.reset([0])
simulator.step(np.zeros((1, 2), np.float32))
print(imported - start, time.perf_counter() - start)
"""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--vehicles", type=int, nargs="+", default=[10, 20, 50, 100, 200], help="other vehicles"
    )
    parser.add_argument("--envs", type=int, default=64, help="environments in the batch (default: 64)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of each compiled measurement (default: 3 s)"
    )
    parser.add_argument(
        "--reference-seconds", type=float, default=8.0, help="of each highway-env one (default: 8 s)"
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="threads of the compiled engine"
    )
    parser.add_argument("--skip-start", action="store_true", help="do not time the cold and warm start")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/simulator.json"))
    return parser.parse_args()


def make_config(vehicles: int) -> dict[str, Any]:
    """Return the configuration that both engines run."""
    return {"action": {"type": "ContinuousAction"}, "policy_frequency": 5, "vehicles_count": vehicles}


def make_script(envs: int) -> np.ndarray:
    """Return actions ``[S, E, 2]``: any acceleration, little steering, so that episodes last."""
    rng = np.random.default_rng(0)
    script = rng.uniform(-1, 1, (SCRIPT_STEPS, envs, 2)) * [1.0, 0.02]
    return script.astype(np.float32)


def time_compiled(vehicles: int, envs: int, threads: int, seconds: float) -> dict[str, Any]:
    """Step the batch for ``seconds``; returns steps/s and what is needed to compare."""
    script = make_script(envs)
    env = gymnasium.make_vec(
        "racer/highway-v0", num_envs=envs, config=make_config(vehicles), num_threads=threads
    )
    env.reset(seed=0)
    env.step(script[0])  # compiles, or loads what was compiled
    env.reset(seed=0)
    rewards, ends, steps = [], 0, 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        _, reward, terminated, truncated, _ = env.step(script[steps % SCRIPT_STEPS])
        if steps < SCRIPT_STEPS:
            rewards.append(float(reward[0]))
        ends += int((terminated | truncated).sum())
        steps += 1
    env.close()
    return {
        "steps_per_s": steps * envs / elapsed,
        "episodes": ends,
        "steps": steps * envs,
        "rewards": rewards,
    }


def time_reference(vehicles: int, envs: int, seconds: float) -> dict[str, Any]:
    """Step highway-env from the batch's first seed, with its actions, for ``seconds``."""
    script = make_script(envs)
    env = gymnasium.make("highway-v0", config=make_config(vehicles)).unwrapped
    env.reset(seed=0)
    rewards, steps = [], 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        _, reward, terminated, truncated, _ = env.step(script[steps % SCRIPT_STEPS, 0])
        rewards.append(float(reward))
        if terminated or truncated:
            env.reset()
        steps += 1
    env.close()
    return {"steps_per_s": steps / elapsed, "steps": steps, "rewards": rewards[:SCRIPT_STEPS]}


def time_single(vehicles: int, seconds: float) -> float:
    """Steps/s of ``gymnasium.make("racer/highway-v0")``, one environment a call."""
    script = make_script(1)
    env = gymnasium.make("racer/highway-v0", config=make_config(vehicles)).unwrapped
    env.reset(seed=0)
    steps = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        _, _, terminated, truncated, _ = env.step(script[steps % SCRIPT_STEPS, 0])
        if terminated or truncated:
            env.reset()
        steps += 1
    env.close()
    return steps / elapsed


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
    compiled = gymnasium.make_vec("racer/highway-v0", num_envs=envs, config=options)
    script = np.random.default_rng(0).integers(0, 5, (SCRIPT_STEPS, envs)).astype(np.int32)
    rates = []
    for env in (pool, compiled):
        env.reset()
        env.step(script[0])
        steps = 0
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            env.step(script[steps % SCRIPT_STEPS])
            steps += 1
        rates.append(steps * envs / elapsed)
        env.close()
    return rates[0], rates[1]


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
    reference = time_reference(vehicles, arguments.envs, arguments.reference_seconds)
    row: dict[str, Any] = {"vehicles": vehicles, "highway_env": reference["steps_per_s"]}
    for threads in arguments.threads:
        compiled = time_compiled(vehicles, arguments.envs, threads, arguments.seconds)
        row[f"compiled_{threads}"] = compiled["steps_per_s"]
    common = min(len(reference["rewards"]), len(compiled["rewards"]))
    row["compared_steps"] = common
    row["greatest_reward_difference"] = float(
        np.abs(np.subtract(reference["rewards"][:common], compiled["rewards"][:common])).max()
    )
    row["compiled_single"] = time_single(vehicles, min(arguments.seconds, 2.0))
    discrete = time_discrete(vehicles, arguments.envs, min(arguments.seconds, 2.0))
    row["envpool"], row["compiled_discrete"] = discrete or (None, None)
    row["ratio"] = row[f"compiled_{arguments.threads[0]}"] / row["highway_env"]
    return row


def show(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Print the table."""
    first, *more = arguments.threads
    heads = ["vehicles", "highway-env /s", f"compiled /s ({first} core)", "ratio", "us a step"]
    heads += [f"compiled /s ({threads} cores)" for threads in more] + [
        f"x {threads} cores" for threads in more
    ]
    heads += ["one env a call /s", "EnvPool, discrete /s", "compiled, discrete /s"]
    print(" | ".join(heads))
    print(" | ".join("-" * len(head) for head in heads))
    for row in rows:
        rate = row[f"compiled_{first}"]
        cells = [f"{row['vehicles']}", f"{row['highway_env']:.2f}", f"{rate:,.0f}", f"{row['ratio']:,.0f}"]
        cells += [f"{1e6 / rate:.1f}"] + [f"{row[f'compiled_{threads}']:,.0f}" for threads in more]
        cells += [f"{row[f'compiled_{threads}'] / rate:.2f}" for threads in more]
        cells += [f"{row['compiled_single']:,.0f}"]
        cells += ["-" if row[key] is None else f"{row[key]:,.0f}" for key in ("envpool", "compiled_discrete")]
        print(" | ".join(cell.rjust(len(head)) for cell, head in zip(cells, heads, strict=True)))


def main() -> None:
    """Measure, print and write."""
    arguments = parse_arguments()
    warnings.simplefilter("ignore")
    import highway_env

    register()
    outcome: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
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
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(outcome, indent=2) + "\n")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
