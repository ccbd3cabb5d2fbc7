"""Exactly one episode per seed: the numbers of a policy that anybody can repeat.

Episodes run in a gymnasium vector environment, but nothing about them depends on how many run side by side: each starts
from ``reset(seed=...)`` of its own seed with an empty memory, a policy gives a row the same bits at any batch size, and
what it draws for a row comes from a random generator of that row's seed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from racer.core.errors import UsageError, shown
from racer.envs.registry import Step, World
from racer.evaluation.drivers import DriverPolicy, bound
from racer.evaluation.memory_controls import MemoryControl
from racer.evaluation.rows import RowGenerators
from racer.evaluation.summary import aggregate_episodes, check_cvar_level
from racer.networks.memory import cleared
from racer.networks.policy import ActingPolicy

__all__ = [
    "FIRST_EVALUATION_SEED",
    "FIRST_UNWATCHED_SEED",
    "MAX_EPISODES",
    "EpisodeResult",
    "EvaluationResult",
    "EvaluationStep",
    "check_spaces",
    "evaluate_policy",
    "evaluation_seeds",
    "run_episode",
]

FIRST_EVALUATION_SEED = 10_000
"""Held-out seeds are 10000, 10001, ...; training seeds its environments below this number."""

FIRST_UNWATCHED_SEED = 20_000
"""Evaluations during training look at the first held-out seeds; published figures come from these, seen by nobody."""

MAX_EPISODES = 1_000_000
"""Of one evaluation: months of driving, and intervals that no more would narrow."""

_MOST_SEED = 2**63 - 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpisodeResult:
    """One finished episode: its seed, why it ended, and the environment's ``episode_metrics``."""

    seed: int
    end_reason: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class EvaluationResult:
    """Everything that an evaluation found.

    Attributes:
        world: that the episodes are of.
        episodes: one per seed, in the order of the seeds.
        aggregate: see :func:`racer.evaluation.summary.aggregate_episodes`.
        configuration: what was evaluated and how, JSON-able.
    """

    world: World
    episodes: tuple[EpisodeResult, ...]
    aggregate: Mapping[str, float]
    configuration: Mapping[str, Any] = field(default_factory=dict)

    @property
    def returns(self) -> np.ndarray:
        """Training-reward return of each episode, ``[N]``."""
        return np.array([episode.metrics["return"] for episode in self.episodes])

    @property
    def worst_exploits(self) -> dict[str, float]:
        """The largest share that each exploit has of any one episode's steps."""
        exploits = [metric for metric in self.world.metrics if metric.exploit]
        return {m.name: max(float(episode.metrics[m.key]) for episode in self.episodes) for m in exploits}

    def scalars(self, prefix: str = "evaluation/") -> dict[str, float]:
        """The aggregate under the names of a metrics log ("evaluation/return", "evaluation/cvar_return")."""
        renamed = {"mean_return": "return", "std_return": "return_std", "mean_length": "length"}
        constants = {"confidence", "cvar_level", "num_episodes"}
        return {
            prefix + renamed.get(name, name): value
            for name, value in self.aggregate.items()
            if name not in constants
        }


@dataclass(frozen=True)
class EvaluationStep(Step):
    """One policy step of a single environment.

    Attributes:
        chosen: what the policy's head chose, before its controller made the action of it.
        result: set on the last step only.
    """

    chosen: np.ndarray
    result: EpisodeResult | None


def evaluation_seeds(num_episodes: int, first: int = FIRST_EVALUATION_SEED) -> list[int]:
    """The fixed list of held-out seeds: ``first, first + 1, ...``.

    Raises:
        UsageError: fewer than one episode or more than :data:`MAX_EPISODES`, or a seed that is negative or of more than
            63 bits.
    """
    if not 1 <= num_episodes <= MAX_EPISODES:
        raise UsageError(f"num_episodes must be at least 1 and at most {MAX_EPISODES}, got {shown(num_episodes)}")
    if not 0 <= first <= _MOST_SEED - num_episodes:
        raise UsageError(f"seed must be at least 0 and at most {_MOST_SEED - num_episodes}, got {shown(first)}")
    return [first + i for i in range(num_episodes)]


def check_spaces(policy: Any, observation_space: gymnasium.Space, action_space: gymnasium.Space) -> None:
    """Compare a policy with the spaces of a single environment.

    A policy says ``observation_shape`` (None where any will do), ``discrete`` and ``size``; what it does not say, and
    the size of actions that a controller makes, is not compared. An observation may come flattened.

    Raises:
        UsageError: the shapes or the kinds of action differ; the message names both.
    """
    shape, found = getattr(policy, "observation_shape", None), tuple(observation_space.shape or ())
    if shape is not None and found != tuple(shape) and found != (math.prod(shape),):
        raise UsageError(
            f"observation shape mismatch: the checkpoint's policy was trained with {tuple(shape)}, "
            f"the environment has {found}"
        )
    size, choices = getattr(policy, "size", None), getattr(action_space, "n", None)
    if size is None or getattr(policy, "controller", None) is not None:
        return
    if policy.discrete and choices != size:
        raise UsageError(
            f"action mismatch: the checkpoint's policy picks one of {size} choices, the environment has {action_space}"
        )
    if not policy.discrete and action_space.shape != (size,):
        raise UsageError(
            f"action shape mismatch: the checkpoint's policy was trained with {(size,)}, "
            f"the environment has {action_space.shape}"
        )


def evaluate_policy(
    policy: ActingPolicy | DriverPolicy,
    params: Mapping[str, np.ndarray],
    world: World,
    env_config: Mapping[str, Any],
    seeds: Sequence[int],
    *,
    num_envs: int = 8,
    deterministic: bool = True,
    cvar_level: float = 0.8,
    configuration: Mapping[str, Any] | None = None,
    on_episode: Callable[[EpisodeResult], None] = lambda episode: None,
    control: MemoryControl | None = None,
) -> EvaluationResult:
    """Run one episode per seed and summarize them. The result does not depend on ``num_envs``.

    Args:
        policy: acts on NumPy arrays; no JAX needed. A driver is made for the environments that run here.
        params: the policy's arrays by name.
        world: that it acts in.
        env_config: the world's configuration, complete or the keys that differ from its defaults.
        seeds: one episode is run for each, in this order.
        num_envs: environments side by side; a matter of speed only.
        deterministic: take the policy's mode; otherwise sample with a generator seeded by the episode's seed.
        cvar_level: level of the lower tail, as ``cvar_risk``: 0.8 is the mean of the worst 20 %.
        configuration: further entries for the result's ``configuration``.
        on_episode: called once per finished episode, in no particular order (progress bars).
        control: changes the memory between the trials of an episode.

    Raises:
        UsageError: no seeds, a wrong level, an unknown environment key, a policy of other shapes, or a control that
            has nothing to act on.
    """
    check_cvar_level(cvar_level)
    seeds = [int(seed) for seed in seeds]
    if not seeds or num_envs < 1:
        raise UsageError(f"an evaluation needs seeds and environments, got {len(seeds)} and {num_envs}")
    env_config = world.resolve(env_config)
    world = world.fitted(env_config)
    env = world.make(env_config, min(num_envs, len(seeds)))
    try:
        check_spaces(policy, env.single_observation_space, env.single_action_space)
        episodes = _run_seeds(bound(policy, env), params, world, env, seeds, deterministic, on_episode, control)
    finally:
        env.close()
    metrics = [episode.metrics for episode in episodes]
    described = {
        "world": world.name,
        "env_config": env_config,
        "seeds": seeds,
        "num_episodes": len(seeds),
        "deterministic": deterministic,
        "cvar_level": cvar_level,
        **(configuration or {}),
    }
    return EvaluationResult(
        world, tuple(episodes), aggregate_episodes(metrics, world.metrics, cvar_level=cvar_level), described
    )


def _run_seeds(
    policy: ActingPolicy,
    params: Mapping[str, np.ndarray],
    world: World,
    env: gymnasium.vector.VectorEnv,
    seeds: Sequence[int],
    deterministic: bool,
    on_episode: Callable[[EpisodeResult], None],
    control: MemoryControl | None,
) -> list[EpisodeResult]:
    """Run one episode per seed; an environment that ends goes on with the next seed, and idles when none is left.

    There are at least as many seeds as environments. An idle environment is stepped with the others and ignored.
    """
    results: dict[int, EpisodeResult] = {}
    waiting = iter(seeds[env.num_envs :])
    running: list[int | None] = list(seeds[: env.num_envs])  # the seed that each environment runs
    key, memory = RowGenerators(running), policy.initial_memory(env.num_envs)
    observations, _ = env.reset(seed=list(running))  # type: ignore[arg-type]  # a list is documented
    while any(seed is not None for seed in running):
        rows = np.asarray(observations, np.float32)
        actions, memory, _ = policy.act(params, rows, memory, key, deterministic)
        observations, _, terminated, truncated, infos = env.step(actions)
        if control is not None:
            ends = np.asarray(infos.get("trial_end", np.zeros(env.num_envs)), bool) & ~(terminated | truncated)
            if ends.any():
                memory = control.between(running, memory, ends, infos)
        starting = np.zeros(env.num_envs, bool)
        for i in np.flatnonzero(terminated | truncated):
            seed = running[i]
            if seed is None:
                continue
            metrics = infos["final_info"]["episode_metrics"]
            values = {metric.key: float(metrics[metric.key][i]) for metric in world.metrics}
            results[seed] = _episode_result(world, seed, values, bool(terminated[i]))
            on_episode(results[seed])
            running[i] = next(waiting, None)
            key.restart(int(i), running[i])
            starting[i] = running[i] is not None
        if starting.any():
            began = [seed if start else None for seed, start in zip(running, starting, strict=True)]
            observations, _ = env.reset(seed=began, options={"reset_mask": starting})  # type: ignore[arg-type]
            memory = cleared(memory, starting)
    if control is not None:
        control.finish()
    return [results[seed] for seed in seeds]


def run_episode(
    policy: ActingPolicy | DriverPolicy,
    params: Mapping[str, np.ndarray],
    world: World,
    env: gymnasium.Env,
    seed: int,
    *,
    deterministic: bool = True,
) -> Iterator[EvaluationStep]:
    """Step one episode of a single environment: the same numbers as :func:`evaluate_policy` for that seed.

    The environment is reset before the first step is taken; the caller closes it.
    """
    acting = bound(policy, env)
    rng, memory = np.random.default_rng(seed), acting.initial_memory(1)
    observation, _ = env.reset(seed=seed)
    total, index, result = 0.0, 0, None
    while result is None:
        seen = np.asarray(observation, np.float32)
        actions, memory, extras = acting.act(params, seen[None], memory, rng, deterministic)
        chosen = extras.get("policy_actions", actions)[0]
        observation, reward, terminated, truncated, info = env.step(actions[0])
        total, index = total + float(reward), index + 1
        if terminated or truncated:
            values = {metric.key: float(info["episode_metrics"][metric.key]) for metric in world.metrics}
            result = _episode_result(world, seed, values, bool(terminated))
        yield EvaluationStep(index, seen, actions[0], float(reward), total, info, chosen, result)


def _episode_result(world: World, seed: int, metrics: Mapping[str, float], terminated: bool) -> EpisodeResult:
    if not math.isfinite(metrics["return"]):
        logger.warning("episode of seed %d has a return that is not finite: %r", seed, metrics["return"])
    return EpisodeResult(seed, world.end_reason(metrics, terminated), metrics)
