"""``python -m racer inspect RUN``: what an agent saw, remembered, expected and did, one JSON object a step.

    python -m racer inspect policies/trials_run_42 --output trace.jsonl
    jq -c 'select(.truncation) | [.trial, .tick, .reward]' trace.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from racer.core.checkpoint import read_manifest
from racer.core.errors import UsageError
from racer.evaluation.checkpoints import TrainedPolicy, load_policy
from racer.evaluation.command import add_world, world_keys
from racer.evaluation.critic import restore_agent
from racer.evaluation.drivers import PREFIX
from racer.evaluation.episodes import FIRST_EVALUATION_SEED, check_spaces, kept, row_seeds
from racer.evaluation.program import evaluation_config
from racer.evaluation.rows import RowGenerators

__all__ = ["add_arguments", "inspect", "trace", "world_keys"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command line of ``inspect``."""
    parser.add_argument("run", metavar="RUN", help="checkpoint folder, or run folder for its newest valid checkpoint")
    add_world(parser)
    parser.add_argument(
        "--seed", type=int, default=FIRST_EVALUATION_SEED, help="of the episode (default: %(default)s)"
    )
    parser.add_argument("--sample", action="store_true", help="draw actions instead of taking the likeliest")
    parser.add_argument("--output", default="trace.jsonl", metavar="FILE", help="(default: %(default)s)")


def inspect(arguments: argparse.Namespace) -> list[Path]:
    """Write the trace of one episode; returns the file.

    Raises:
        UsageError: there is no valid checkpoint, it does not fit its world, or the file cannot be written.
    """
    if arguments.run.startswith(PREFIX):
        raise UsageError(f"{arguments.run} has neither memory nor value: name a run or a checkpoint")
    trained = load_policy(arguments.run, arguments.world)
    config = evaluation_config(trained, arguments.overrides)
    if arguments.seed < 0:
        raise UsageError(f"--seed must not be negative, got {arguments.seed}")
    path = Path(arguments.output)
    rows = list(trace(trained, config, arguments.seed, deterministic=not arguments.sample))
    try:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {arguments.output!r} cannot be written: {error.strerror or error}") from error
    return [path]


def trace(
    trained: TrainedPolicy, config: Mapping[str, Any], seed: int, *, deterministic: bool = True
) -> Iterator[dict[str, Any]]:
    """Drive one episode, and yield of every step, an object for each ego, JSON-able:

    ``ego`` numbers the egos of an environment from 0; ``tick`` counts steps from 0; ``trial``, where the world has
    trials; ``removed``, whether the ego was off the road during the step; ``truncation``, whether a trial ended for it
    or a time limit in it, ``terminal``, whether the episode did;
    ``cache_position``, the tokens of the episode in a transformer's memory before the step, and ``masked_slots``, the
    slots of its cache that nothing may read then (None without a cache); ``memory_norm``, the Euclidean norm of all
    that is remembered; ``action``; ``value``, the return that was expected from the step on (None where the agent has
    no value of states, or the checkpoint is an exported policy without its agent); ``reward``.

    Args:
        trained: a checkpoint, or an exported policy.
        config: whole configuration of its world.
        seed: of the episode.
        deterministic: take the policy's mode.

    Raises:
        UsageError: the policy does not fit the world.
    """
    policy: Any = trained.policy
    egos = trained.world.egos_for(config)
    rng = RowGenerators(row_seeds([seed], egos))
    env = trained.world.make_one(config)
    try:
        check_spaces(policy, env.single_observation_space, env.single_action_space)
        agent: Any = None
        # An exported policy acts, and that is all that is left of its agent.
        if "agent.safetensors" in read_manifest(trained.path)["files"]:
            agent = restore_agent(trained, env.single_observation_space, env.single_action_space)
        observations, _ = env.reset(seed=seed)
        memory, tick, ended = policy.initial_memory(egos), 0, False
        while not ended:
            # Acting writes into a cache, and what was there before is to be told.
            before = {name: np.array(value) for name, value in memory.items()}
            actions, after, _ = policy.act(trained.params, observations, memory, rng, deterministic)
            values = agent.values(observations, before) if hasattr(agent, "values") else None
            observations, rewards, terminated, truncated, infos = env.step(actions)
            ended, limbo = bool(terminated[0] or truncated[0]), np.asarray(infos.get("limbo", np.zeros(egos)), bool)
            memory = kept(before, after, limbo)
            for ego in range(egos):
                removed = bool(limbo[ego])
                yield {
                    "tick": tick,
                    "ego": ego,
                    "trial": int(infos["trial"][ego]) if "trial" in infos else None,
                    "removed": removed,
                    "truncation": (_flag(infos, "trial_end", ego) and not removed) or bool(truncated[ego]),
                    "terminal": bool(terminated[ego]),
                    **_cache(before, ego),
                    "memory_norm": float(np.sqrt(sum(np.square(value[ego]).sum() for value in before.values()))),
                    "action": np.asarray(actions[ego]).tolist(),
                    "value": None if values is None else float(values[ego]),
                    "reward": float(rewards[ego]),
                }
            tick += 1
    finally:
        env.close()


def _flag(infos: Mapping[str, Any], name: str, row: int) -> bool:
    return bool(infos[name][row]) if name in infos else False


def _cache(memory: Mapping[str, np.ndarray], row: int) -> dict[str, int | None]:
    """Return how full a row's cache is, where there is a transformer's."""
    if "position" not in memory:
        return {"cache_position": None, "masked_slots": None}
    position, length = int(memory["position"][row]), memory["values"].shape[-2]
    return {"cache_position": position, "masked_slots": max(length - position, 0)}
