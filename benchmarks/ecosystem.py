"""What one changed string is worth to code that was written for highway-env.

    OMP_NUM_THREADS=1 python benchmarks/ecosystem.py                    # needs the extra [sb3]
    OMP_NUM_THREADS=1 python benchmarks/ecosystem.py --rows planner     # or ppo, dqn, sac
    python benchmarks/ecosystem.py --highjax PATH                       # beside a checkout of the JAX port HighJax

prints steps a second of CPU time, learning included, of Stable-Baselines3's PPO, DQN and SAC on ``highway-v0`` as
highway-env has it, with the string ``racer/highway-v0`` in its place, and with ``racer.sb3.make_vec_env``, all in the
same run; and of a tree search that copies the environment for each of its nodes (``copy.deepcopy``).
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import highway_env  # noqa: F401  (registers highway-env)
import numpy as np

import racer.envs  # noqa: F401  (registers the ids)

THEIRS, OURS = "highway-v0", "racer/highway-v0"
CONTINUOUS = {"action": {"type": "ContinuousAction"}}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": {"name": "PPO", "options": {"n_steps": 64, "batch_size": 256}, "envs": 16},
    "dqn": {"name": "DQN", "options": {"learning_starts": 64, "train_freq": 16, "gradient_steps": 1}, "envs": 16},
    "sac": {"name": "SAC", "options": {"learning_starts": 64, "train_freq": 16, "gradient_steps": 1}, "envs": 16},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of CPU time for every figure")
    parser.add_argument("--rows", nargs="+", default=[*ALGORITHMS, "planner"], choices=[*ALGORITHMS, "planner"])
    parser.add_argument("--highjax", type=Path, default=None, help="a checkout of HighJax, run by its own benchmark")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures there")
    arguments = parser.parse_args()
    print(f"{'':>10}  {THEIRS:>12}  {OURS:>18}  {'ratio':>7}  {'batched':>10}  {'ratio':>7}   (steps/s of CPU time)")
    found = {}
    for row in arguments.rows:
        rates = planner_rates(arguments.seconds) if row == "planner" else sb3_rates(row, arguments.seconds)
        found[row] = rates
        base, changed, batched = (rates.get(name) for name in ("highway-env", "changed", "batched"))
        last = f"{batched:10,.0f}  {batched / base:6.0f}x" if batched else f"{'-':>10}  {'-':>7}"
        print(f"{row:>10}  {base:12,.1f}  {changed:18,.0f}  {changed / base:6.0f}x  {last}", flush=True)
    if arguments.highjax is not None:
        found["highjax"] = highjax(arguments.highjax)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def sb3_rates(row: str, seconds: float) -> dict[str, float]:
    """Return steps/s of an algorithm on each way to the environment."""
    from stable_baselines3.common.env_util import make_vec_env

    from racer.sb3 import make_vec_env as batched

    count, config = ALGORITHMS[row]["envs"], CONTINUOUS if row == "sac" else {}
    ways: dict[str, Callable[[], Any]] = {
        "highway-env": lambda: make_vec_env(THEIRS, count, env_kwargs={"config": config}),
        "changed": lambda: make_vec_env(OURS, count, env_kwargs={"config": config}),
        "batched": lambda: batched(OURS, count, config=config),
    }
    return {name: learning_rate(row, make, seconds) for name, make in ways.items()}


def learning_rate(row: str, make: Callable[[], Any], seconds: float) -> float:
    """Return steps/s of ``learn``, from its second hundred of steps on."""
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback

    class Clock(BaseCallback):
        began, first = 0.0, 0

        def _on_step(self) -> bool:
            if not self.began and self.num_timesteps >= 100:
                self.began, self.first = time.process_time(), self.num_timesteps
            return not self.began or time.process_time() - self.began < seconds

    entry, clock, envs = ALGORITHMS[row], Clock(), make()
    model = getattr(stable_baselines3, entry["name"])("MlpPolicy", envs, seed=0, device="cpu", **entry["options"])
    model.learn(10**9, callback=clock)
    rate = (model.num_timesteps - clock.first) / (time.process_time() - clock.began)
    envs.close()
    return rate


def planner_rates(seconds: float) -> dict[str, float]:
    """Return nodes/s of a random tree search of depth 4, each node a copy that takes one step."""
    return {"highway-env": nodes_per_second(THEIRS, seconds), "changed": nodes_per_second(OURS, seconds)}


def nodes_per_second(env_id: str, seconds: float) -> float:
    env = gymnasium.make(env_id).unwrapped
    env.reset(seed=0)
    copy.deepcopy(env).step(1)
    rng, nodes, began = np.random.default_rng(0), 0, time.process_time()
    while time.process_time() - began < seconds:
        node = copy.deepcopy(env)
        for _ in range(4):
            node = copy.deepcopy(node)
            _, _, terminated, truncated, _ = node.step(int(rng.choice(node.get_available_actions())))
            nodes += 1
            if terminated or truncated:
                break
    return nodes / (time.process_time() - began)


def highjax(checkout: Path) -> dict[str, str]:
    """Run HighJax's own benchmark, whose output is printed as it is."""
    scripts = sorted(checkout.glob("**/*bench*.py"))
    if not scripts:
        raise SystemExit(f"error: {checkout} holds no benchmark script (*bench*.py)")
    done = subprocess.run([sys.executable, str(scripts[0])], cwd=checkout, text=True, capture_output=True, check=False)
    print(f"{scripts[0].relative_to(checkout)}:\n{done.stdout or done.stderr}")
    return {"script": str(scripts[0].relative_to(checkout)), "output": done.stdout}


if __name__ == "__main__":
    main()
