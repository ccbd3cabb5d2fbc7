"""What one changed string is worth to code that was written for highway-env.

    OMP_NUM_THREADS=1 python benchmarks/ecosystem.py                    # needs the extra [sb3]
    OMP_NUM_THREADS=1 python benchmarks/ecosystem.py --rows planner     # or ppo, dqn, sac
    python benchmarks/ecosystem.py --highjax PATH                       # beside a checkout of the JAX port HighJax

prints steps a second of CPU time, learning included, of Stable-Baselines3's PPO, DQN and SAC on ``highway-v0`` as
highway-env has it, with the string ``racer/highway-v0`` in its place, and with ``racer.sb3.make_vec_env``, all in the
same run; of a tree search that copies the environment for each of its nodes (``copy.deepcopy``); and policy steps/s of
HighJax, which needs flax, beside the batched twin (HighJax follows highway-env's rules, not its numbers).
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import highway_env  # noqa: F401  (registers highway-env)
import numpy as np
from result_file import write_result

import racer.envs  # noqa: F401  (registers the ids)

THEIRS, OURS = "highway-v0", "racer/highway-v0"
CONTINUOUS = {"action": {"type": "ContinuousAction"}}
NET = {"policy_kwargs": {"net_arch": [256, 256]}, "gamma": 0.8, "learning_rate": 5e-4}
ONE_BY_ONE = {"train_freq": 1, "gradient_steps": 1}
# The batched environments get as many gradient steps a transition.
TOGETHER = {"train_freq": 1, "gradient_steps": -1}
# Learners are set as in HighwayEnv's public example scripts where it has one (PPO, DQN), else as by default.
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": {
        "name": "PPO", "options": {**NET, "batch_size": 64, "n_epochs": 10},
        "one_by_one": (6, {"n_steps": 128}), "together": (64, {"n_steps": 12}),
    },
    "dqn": {
        "name": "DQN", "options": {**NET, "buffer_size": 15_000, "batch_size": 32, "learning_starts": 200},
        "one_by_one": (1, ONE_BY_ONE), "together": (16, TOGETHER),
    },
    "sac": {"name": "SAC", "options": {}, "one_by_one": (1, ONE_BY_ONE), "together": (16, TOGETHER)},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of CPU time for every figure")
    parser.add_argument("--rows", nargs="*", default=[*ALGORITHMS, "planner"], choices=[*ALGORITHMS, "planner"])
    parser.add_argument("--highjax", type=Path, default=None, help="a checkout of HighJax: a row for it")
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
        found["highjax"] = rates = highjax(arguments.highjax, arguments.seconds)
        theirs, ours = rates["highjax"], rates["batched"]
        print(f"HighJax {theirs:,.0f}, {OURS} batched {ours:,.0f} steps/s: {ours / theirs:,.0f}x")
    if arguments.json is not None:
        write_result(arguments.json, "ecosystem", {"rows": found})


def sb3_rates(row: str, seconds: float) -> dict[str, float]:
    """Return steps/s of an algorithm on each way to the environment."""
    from stable_baselines3.common.env_util import make_vec_env

    from racer.sb3 import make_vec_env as batched

    entry, config = ALGORITHMS[row], CONTINUOUS if row == "sac" else {}
    (count, one_by_one), (batch, together) = entry["one_by_one"], entry["together"]
    ways: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
        "highway-env": (lambda: make_vec_env(THEIRS, count, env_kwargs={"config": config}), one_by_one),
        "changed": (lambda: make_vec_env(OURS, count, env_kwargs={"config": config}), one_by_one),
        "batched": (lambda: batched(OURS, batch, config=config), together),
    }
    options = entry["options"]
    return {
        way: learning_rate(entry["name"], make(), {**options, **more}, seconds) for way, (make, more) in ways.items()
    }


def learning_rate(algorithm: str, envs: Any, options: dict[str, Any], seconds: float) -> float:
    """Return steps/s of ``learn``, of the 200th step on."""
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback

    class Clock(BaseCallback):
        began, first = 0.0, 0

        def _on_step(self) -> bool:
            if not self.began and self.num_timesteps >= 200:
                self.began, self.first = time.process_time(), self.num_timesteps
            return not self.began or time.process_time() - self.began < seconds

    clock = Clock()
    model = getattr(stable_baselines3, algorithm)("MlpPolicy", envs, seed=0, device="cpu", **options)
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


def highjax(checkout: Path, seconds: float) -> dict[str, float]:
    """Return policy steps/s of 64 environments of 50 cars, 15 frames a step, random actions: HighJax's, and ours."""
    if not (checkout / "highjax" / "env.py").is_file():
        raise SystemExit(f"error: {checkout} is no checkout of HighJax: highjax/env.py is missing")
    sys.path.append(str(checkout))
    return {"highjax": highjax_rate(seconds), "batched": batched_rate(seconds)}


def highjax_rate(seconds: float, num_envs: int = 64, steps: int = 10) -> float:
    """Return steps/s of HighJax as its documents run it: vmapped over environments, scanned over steps, jitted."""
    import highjax as peer  # type: ignore[import-not-found]
    import jax

    env, params = peer.make("highjax-v0")

    def step(carry: Any, key: Any) -> Any:
        key, act = jax.random.split(key)
        actions = jax.random.randint(act, (num_envs,), 0, 5)
        keys = jax.random.split(key, num_envs)
        _, states, rewards, _, _ = jax.vmap(env.step, (0, 0, 0, None))(keys, carry, actions, params)
        return states, rewards

    rollout = jax.jit(lambda states, key: jax.lax.scan(step, states, jax.random.split(key, steps)))
    _, states = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), num_envs), params)
    states, _ = jax.block_until_ready(rollout(states, jax.random.key(1)))
    calls, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        states, _ = jax.block_until_ready(rollout(states, jax.random.key(2 + calls)))
        calls += 1
    return calls * steps * num_envs / (time.process_time() - began)


def batched_rate(seconds: float, num_envs: int = 64) -> float:
    """Return steps/s of the batched twin, with resets."""
    envs = gymnasium.make_vec(OURS, num_envs=num_envs, config={"simulation_frequency": 15, "policy_frequency": 1})
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    envs.step(rng.integers(5, size=num_envs))
    calls, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        envs.step(rng.integers(5, size=num_envs))
        calls += 1
    envs.close()
    return calls * num_envs / (time.process_time() - began)


if __name__ == "__main__":
    main()
