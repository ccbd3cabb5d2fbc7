"""Where does a decision's time go in trial mode with a transformer: collecting, learning, and how much is read?

    taskset -c 0 python benchmarks/trials_parts.py                        # 4 trials of 201 steps, 16 environments
    taskset -c 0 python benchmarks/trials_parts.py --length 28 --frequency 1 --envs 256 --minibatches 8   # the study's

The networks of ``benchmarks/trials.py`` in one process. Every iteration collects a rollout of K * L steps and learns
from it; printed are microseconds a decision (wall clock), and how many tokens of its episode a step reads on average,
which is what attention costs follow. The first iteration compiles. The last line learns from the last rollout as if
every row were one whole episode, which is what the floor of ``benchmarks/trials.py`` counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import jax
import numpy as np
from trials import agent_config

from racer.agents.ppo import PPOLearner
from racer.envs.trials.vector import HighwayTrialsVectorEnv
from racer.replay.collector import Collector
from racer.replay.sequence import join_rollouts


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, default=16, help="environments (default: 16)")
    parser.add_argument("--minibatches", type=int, default=4, help="of an epoch, whole rows each (default: 4)")
    parser.add_argument("--trials", type=int, default=4, help="K (default: 4)")
    parser.add_argument("--length", type=int, default=201, help="L (default: 201)")
    parser.add_argument("--frequency", type=int, default=None, help="decisions a second (default: the world's)")
    parser.add_argument("--iterations", type=int, default=4, help="(default: 4)")
    return parser.parse_args()


def tokens_read(start: np.ndarray, forget: np.ndarray, valid: np.ndarray) -> float:
    """Return how many tokens a row reads on average, itself included; ``[N]``, ``[T, N]``, ``[T, N]``."""
    position, total = start.astype(float), 0.0
    for ends, counts in zip(forget, valid, strict=True):
        total += float(((position + 1.0) * counts).sum())
        position = np.where(ends > 0, 0.0, position + counts)
    return total / float(valid.sum())


def timed_update(agent: Any, rollout: dict[str, np.ndarray]) -> tuple[Any, float]:
    """Return the agent after an update, and how long that took (s)."""
    begin = time.perf_counter()
    agent, _ = agent.update(rollout)
    jax.block_until_ready(agent.state)
    return agent, time.perf_counter() - begin


def line(name: str, rollout: dict[str, np.ndarray], learning: float, collecting: float | None = None) -> str:
    """Return the table's line of an iteration."""
    decisions = rollout["valid"].sum() / 1e6
    read = tokens_read(rollout["memory/position"], rollout["forget"], rollout["valid"])
    collected = "" if collecting is None else f"{collecting / decisions:.0f}"
    ends = rollout["forget"].sum() / rollout["forget"].shape[1]
    return f"| {name} | {collected} | {learning / decisions:.0f} | {read:.0f} | {ends:.1f} |"


def main() -> int:
    """Print the parts of every iteration."""
    args = parse_arguments()
    window = args.trials * args.length
    env_config = {"k_scenarios": args.trials, "scenario_length": args.length, "fill_window": False}
    env_config |= {"policy_frequency": args.frequency} if args.frequency else {}
    env = HighwayTrialsVectorEnv(args.envs, env_config)
    config = agent_config(window, args.minibatches)
    agent = PPOLearner.create(0, env.single_observation_space, env.single_action_space, **config)
    policy, key = agent.policy, np.random.default_rng(0)
    collector = Collector(env, 3, memory=policy.initial_memory(args.envs))
    print("| iteration | collect (us) | update (us) | tokens read | episodes a row |\n|---|---:|---:|---:|---:|")
    for iteration in range(args.iterations):
        params = {name: np.asarray(value) for name, value in agent.policy_params.items()}
        begin = time.perf_counter()
        rows = collector.collect(window, lambda seen, past, params=params: policy.act(params, seen, past, key))
        collecting = time.perf_counter() - begin
        rollout = join_rollouts([rows])
        agent, learning = timed_update(agent, rollout)
        print(line(str(iteration + 1), rollout, learning, collecting), flush=True)
    whole = {**rollout, "forget": np.zeros_like(rollout["forget"])}
    whole["memory/position"] = np.zeros_like(rollout["memory/position"])
    print(line("whole", whole, timed_update(agent, whole)[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
