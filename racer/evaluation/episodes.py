"""Exactly one episode per seed: the numbers of a policy that anybody can repeat.

Episodes run in a gymnasium vector environment, but nothing about them depends on how many run side by side: each starts
from ``reset(seed=...)`` of its own seed with an empty memory, a policy gives a row the same bits at any batch size, and
what it draws for a row comes from a random generator of that row's seed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from racer.core.errors import UsageError, shown
from racer.envs.world import Step, World
from racer.evaluation.drivers import DriverPolicy, bound
from racer.evaluation.memory_controls import MemoryControl
from racer.evaluation.rows import RowGenerators
from racer.evaluation.summary import aggregate_episodes, check_cvar_level
from racer.networks.memory import Memory, cleared, merged
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
    "kept",
    "row_seeds",
    "run_episode",
]

FIRST_EVALUATION_SEED = 10_000
"""Held-out seeds are 10000, 10001, ...; training draws its own from 2^31 numbers and all but never meets one of them.

Evaluations during training watch the first ones, by which checkpoints are chosen.
"""

FIRST_UNWATCHED_SEED = 20_000
"""Of the episodes on an exported policy's card, which no evaluation during training has watched."""

MAX_EPISODES = 1_000_000
"""Of one evaluation: months of driving, and intervals that no more would narrow."""

_MOST_SEED = 2**63 - 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpisodeResult:
    """One finished episode.

    Attributes:
        seed: of the episode.
        end_reason: why it ended.
        metrics: the environment's ``episode_metrics``; of several egos, their means.
        agents: the metrics of every ego, where there are several; see :attr:`egos`.
    """

    seed: int
    end_reason: str
    metrics: Mapping[str, float]
    agents: tuple[Mapping[str, float], ...] = ()

    @property
    def egos(self) -> tuple[Mapping[str, float], ...]:
        """The metrics of every ego."""
        return self.agents or (self.metrics,)


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

    def __repr__(self) -> str:
        """One line: how many episodes of which world, and what they come to."""
        names = ["mean_return", "cvar_return", *(metric.aggregate for metric in self.world.metrics)]
        known = [name for name in dict.fromkeys(names) if name in self.aggregate][:4]
        numbers = ", ".join(f"{name} {self.aggregate[name]:.4g}" for name in known)
        return f"EvaluationResult({self.world.name}, {len(self.episodes)} episodes: {numbers})"

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
    env = world.make(env_config, world.egos * min(num_envs, len(seeds)))
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

    There are at least as many seeds as environments. An idle environment is stepped with the others and ignored. The
    egos of an environment are rows side by side, whose episodes end together.
    """
    egos, none = world.egos, np.zeros(env.num_envs, bool)
    results: dict[int, EpisodeResult] = {}
    slots = env.num_envs // egos
    waiting = iter(seeds[slots:])
    running: list[int | None] = list(seeds[:slots])  # the seed that each environment runs
    key, memory = RowGenerators(row_seeds(running, egos)), policy.initial_memory(env.num_envs)
    observations, _ = env.reset(seed=_repeated(running, egos))  # type: ignore[arg-type]  # a list is documented
    while any(seed is not None for seed in running):
        rows, before = np.asarray(observations, np.float32), memory
        actions, memory, _ = policy.act(params, rows, memory, key, deterministic)
        observations, _, terminated, truncated, infos = env.step(actions)
        memory = kept(before, memory, np.asarray(infos.get("limbo", none), bool))
        if control is not None:
            ends = np.asarray(infos.get("trial_end", none), bool) & ~(terminated | truncated)
            if ends.any():
                memory = control.between(_row_names(running, egos), memory, ends, infos)
        starting = np.zeros(slots, bool)
        for i in np.flatnonzero((terminated | truncated).reshape(slots, egos).all(axis=1)):
            seed = running[i]
            if seed is None:
                continue
            values = _row_metrics(world, infos["final_info"]["episode_metrics"], range(i * egos, (i + 1) * egos))
            results[seed] = _episode_result(world, seed, values, bool(terminated[i * egos]))
            on_episode(results[seed])
            running[i] = next(waiting, None)
            for ego, row_seed in enumerate(row_seeds([running[i]], egos)):
                key.restart(int(i * egos + ego), row_seed)
            starting[i] = running[i] is not None
        if starting.any():
            began = [seed if start else None for seed, start in zip(running, starting, strict=True)]
            mask = np.repeat(starting, egos)
            seeded = _repeated(began, egos)
            observations, _ = env.reset(seed=seeded, options={"reset_mask": mask})  # type: ignore[arg-type]
            memory = cleared(memory, mask)
    if control is not None:
        control.finish()
    return [results[seed] for seed in seeds]


def _repeated(seeds: Sequence[int | None], egos: int) -> list[int | None]:
    """Return the seed of every row's environment."""
    return [seed for seed in seeds for _ in range(egos)]


def _row_names(seeds: Sequence[int | None], egos: int) -> list[tuple[int, int] | None]:
    """Return seed and ego of every row; None for those of idle environments."""
    return [None if seed is None else (seed, ego) for seed in seeds for ego in range(egos)]


def row_seeds(seeds: Sequence[int | None], egos: int) -> list[int | list[int] | None]:
    """Return what every row's draws are seeded with: the episode's seed, for a later ego with its number."""
    return [name and (name[0] if name[1] == 0 else list(name)) for name in _row_names(seeds, egos)]


def kept(before: Memory, after: Memory, limbo: np.ndarray) -> dict[str, Any]:
    """Return the memory after a step; that before it where the ego was off the road."""
    return merged(~limbo, after, before) if limbo.any() else dict(after)


def _row_metrics(world: World, metrics: Mapping[str, Any], rows: Iterable[int]) -> list[dict[str, float]]:
    """Return the metrics of such rows."""
    return [{metric.key: float(metrics[metric.key][row]) for metric in world.metrics} for row in rows]


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

    The environment is reset before the first step is taken; the caller closes it. Of several egos the steps show what
    the first sees and does, and their mean reward.
    """
    acting, egos = bound(policy, env), world.egos
    rng, memory = RowGenerators(row_seeds([seed], egos)), acting.initial_memory(egos)
    observation, _ = env.reset(seed=seed)
    total, index, result = 0.0, 0, None
    while result is None:
        seen = np.asarray(observation, np.float32)
        rows, before = seen if egos > 1 else seen[None], memory
        actions, memory, extras = acting.act(params, rows, memory, rng, deterministic)
        chosen = extras.get("policy_actions", actions)[0]
        observation, reward, terminated, truncated, info = env.step(actions if egos > 1 else actions[0])
        infos = info["egos"] if egos > 1 else (info,)
        memory = kept(before, memory, np.array([bool(one.get("limbo", False)) for one in infos]))
        total, index = total + float(reward), index + 1
        if terminated or truncated:
            values = [_of_one(world, one["episode_metrics"]) for one in infos]
            result = _episode_result(world, seed, values, bool(terminated))
        yield EvaluationStep(index, rows[0], actions[0], float(reward), total, info, chosen, result)


def _of_one(world: World, metrics: Mapping[str, Any]) -> dict[str, float]:
    return {metric.key: float(metrics[metric.key]) for metric in world.metrics}


def _episode_result(
    world: World, seed: int, agents: Sequence[Mapping[str, float]], terminated: bool
) -> EpisodeResult:
    """Return the episode of one or several egos with such metrics."""
    metrics = agents[0]
    if len(agents) > 1:
        # Of a rate, the share of the egos; of everything else, their mean.
        ones = np.ones(1)
        metrics = {
            metric.key: float(np.mean([metric.average(ones * each[metric.key], ones) for each in agents]))
            for metric in world.metrics
        }
    if not math.isfinite(metrics["return"]):
        logger.warning("episode of seed %d has a return that is not finite: %r", seed, metrics["return"])
    end = world.end_reason(metrics, terminated)
    return EpisodeResult(seed, end, metrics, tuple(agents) if len(agents) > 1 else ())
