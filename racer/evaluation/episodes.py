"""Exactly one episode per seed: the numbers of a policy that anybody can repeat.

Episodes run in a gymnasium vector environment, but nothing about them depends on how many run side by side:
each starts from ``reset(seed=...)`` of its own seed, and the policy is asked for one row at a time with a
random generator of that seed. (A matrix product over several rows may round differently from one over a
single row, and traffic amplifies a last bit into another lane change.)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np

from racer.core.errors import UsageError
from racer.evaluation.metrics import EPISODE_METRICS, aggregate_episodes, check_cvar_level

__all__ = [
    "DEFAULT_ENV_ID",
    "EXPLOITS",
    "FIRST_EVALUATION_SEED",
    "FIRST_UNWATCHED_SEED",
    "ActingPolicy",
    "EpisodeResult",
    "EvaluationResult",
    "EvaluationStep",
    "check_spaces",
    "evaluate_policy",
    "evaluation_seeds",
    "make_evaluation_env",
    "run_episode",
]

DEFAULT_ENV_ID = "racer/RiskHighway-v0"

FIRST_EVALUATION_SEED = 10_000
"""Held-out seeds are 10000, 10001, ...; training seeds its environments below this number."""

FIRST_UNWATCHED_SEED = 20_000
"""Evaluations during training look at the first held-out seeds; published figures come from these, seen by nobody."""

EXPLOITS = ("spin_share", "reverse_share", "standstill_share")
"""Shares of an episode's steps in what continuous control of highway-env is known to be exploited by."""

logger = logging.getLogger(__name__)


class ActingPolicy(Protocol):
    """The part of a policy that evaluation needs."""

    def act(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool = False,
    ) -> np.ndarray:
        """Return actions ``[N, A]`` (of choices ``[N]``) for observations ``[N, D]``."""
        ...


@dataclass(frozen=True)
class EpisodeResult:
    """One finished episode: its seed, why it ended, and the environment's ``episode_metrics``."""

    seed: int
    end_reason: str
    metrics: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Flat, JSON-able form; flags (crashed, off_road, success) as booleans, the length as an integer."""
        flags = {name: bool(self.metrics[name]) for name in ("crashed", "off_road", "success")}
        rest = {name: value for name, value in self.metrics.items() if name not in flags}
        rest["length"] = int(self.metrics["length"])
        return {"seed": self.seed, "end_reason": self.end_reason, **flags, **rest}


@dataclass(frozen=True)
class EvaluationResult:
    """Everything that an evaluation found.

    Attributes:
        episodes: one per seed, in the order of the seeds.
        aggregate: see :func:`racer.evaluation.metrics.aggregate_episodes`.
        configuration: what was evaluated and how, JSON-able.
    """

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
        return {name: max(float(episode.metrics[name]) for episode in self.episodes) for name in EXPLOITS}

    def scalars(self, prefix: str = "evaluation/") -> dict[str, float]:
        """The aggregate under the names of a metrics log ("evaluation/return", "evaluation/collision_rate")."""
        renamed = {"mean_return": "return", "std_return": "return_std", "mean_length": "length"}
        constants = {"confidence", "cvar_level", "num_episodes"}
        return {
            prefix + renamed.get(name, name): value
            for name, value in self.aggregate.items()
            if name not in constants
        }


@dataclass(frozen=True)
class EvaluationStep:
    """One policy step of a single environment, as the video overlay wants it.

    Attributes:
        index: 1 for the first step.
        observation: ``[D]``, the one that the action answers.
        action: ``[A]``.
        reward: training reward of the step.
        episode_return: sum of the rewards so far.
        info: the environment's info.
        result: set on the last step only.
    """

    index: int
    observation: np.ndarray
    action: np.ndarray
    reward: float
    episode_return: float
    info: Mapping[str, Any]
    result: EpisodeResult | None


def evaluation_seeds(num_episodes: int, first: int = FIRST_EVALUATION_SEED) -> list[int]:
    """The fixed list of held-out seeds: ``first, first + 1, ...``.

    Raises:
        UsageError: fewer than one episode, or a negative seed.
    """
    if num_episodes < 1:
        raise UsageError(f"num_episodes must be at least 1, got {num_episodes}")
    if first < 0:
        raise UsageError(f"seed must not be negative, got {first}")
    return [first + i for i in range(num_episodes)]


def make_evaluation_env(
    env_config: Mapping[str, Any], *, env_id: str = DEFAULT_ENV_ID, render_mode: str | None = None
) -> gymnasium.Env:
    """One environment of the evaluation, as :func:`run_episode` takes it."""
    import racer.envs  # noqa: F401  (registers the ids)

    return gymnasium.make(env_id, config=dict(env_config), render_mode=render_mode)


def check_spaces(env: gymnasium.Env | gymnasium.vector.VectorEnv, spec: Mapping[str, Any]) -> None:
    """Compare a policy's dimensions with the environment's.

    Args:
        env: a single or a vector environment.
        spec: a policy's ``spec``; ``observation_dim`` (of the policy or its trunk), and ``action_dim`` or
            ``num_choices``, are compared where present.

    Raises:
        UsageError: the shapes or the kinds of action differ; the message names both.
    """
    if isinstance(env, gymnasium.vector.VectorEnv):
        observation_space, action_space = env.single_observation_space, env.single_action_space
    else:
        observation_space, action_space = env.observation_space, env.action_space
    trunk = spec.get("trunk") or {}
    for kind, space, dim in (
        ("observation", observation_space, spec.get("observation_dim", trunk.get("observation_dim"))),
        ("action", action_space, spec.get("action_dim")),
    ):
        found = tuple(space.shape or ())
        if dim is not None and found != (int(dim),):
            raise UsageError(
                f"{kind} shape mismatch: the checkpoint's policy was trained with {(int(dim),)}, "
                f"the environment has {found}"
            )
    choices = spec.get("num_choices")
    if choices is not None and getattr(action_space, "n", None) != choices:
        raise UsageError(
            f"action mismatch: the checkpoint's policy picks one of {choices} choices, "
            f"the environment has {action_space}"
        )


def evaluate_policy(
    policy: ActingPolicy,
    params: Mapping[str, np.ndarray],
    env_config: Mapping[str, Any],
    seeds: Sequence[int],
    *,
    num_envs: int = 8,
    deterministic: bool = True,
    cvar_level: float = 0.8,
    env_id: str = DEFAULT_ENV_ID,
    configuration: Mapping[str, Any] | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    make_vector_env: Callable[[int], gymnasium.vector.VectorEnv] | None = None,
) -> EvaluationResult:
    """Run one episode per seed and summarize them. The result does not depend on ``num_envs``.

    Args:
        policy: acts on NumPy arrays; no JAX needed.
        params: the policy's arrays by name.
        env_config: configuration of the environment, complete or the keys that differ from its defaults.
        seeds: one episode is run for each, in this order.
        num_envs: environments side by side; a matter of speed only.
        deterministic: take the policy's mode; otherwise sample with a generator seeded by the episode's seed.
        cvar_level: level of the lower tail, as ``cvar_risk``: 0.8 is the mean of the worst 20 %.
        env_id: gymnasium id of the environment.
        configuration: further entries for the result's ``configuration``.
        on_episode: called once per finished episode, in no particular order (progress bars).
        make_vector_env: builds the vector environment from a number of environments, in place of ``env_id``. It
            resets within the step (SAME_STEP) and understands ``reset(options={"reset_mask": ...})``.

    Raises:
        UsageError: no seeds, a wrong level, an unknown environment key.
    """
    check_cvar_level(cvar_level)
    seeds = [int(seed) for seed in seeds]
    if not seeds or num_envs < 1:
        raise UsageError(f"an evaluation needs seeds and environments, got {len(seeds)} and {num_envs}")
    num_envs = min(num_envs, len(seeds))
    if make_vector_env is not None:
        env = make_vector_env(num_envs)
    else:
        import racer.envs  # noqa: F401  (registers the ids)

        env = gymnasium.make_vec(env_id, num_envs=num_envs, config=dict(env_config))
    try:
        check_spaces(env, getattr(policy, "spec", {}))
        episodes = _run_seeds(policy, params, env, seeds, deterministic, on_episode)
    finally:
        env.close()
    aggregate = aggregate_episodes([episode.metrics for episode in episodes], cvar_level=cvar_level)
    described = {
        "env_id": env_id,
        "env_config": dict(env_config),
        "seeds": seeds,
        "num_episodes": len(seeds),
        "deterministic": deterministic,
        "cvar_level": cvar_level,
        **(configuration or {}),
    }
    return EvaluationResult(tuple(episodes), aggregate, described)


def _run_seeds(
    policy: ActingPolicy,
    params: Mapping[str, np.ndarray],
    env: gymnasium.vector.VectorEnv,
    seeds: Sequence[int],
    deterministic: bool,
    on_episode: Callable[[EpisodeResult], None] | None,
) -> list[EpisodeResult]:
    """Run one episode per seed; an environment that ends goes on with the next seed, and idles when none is left.

    There are at least as many seeds as environments.
    """
    results: list[EpisodeResult | None] = [None] * len(seeds)
    running: list[int | None] = list(range(env.num_envs))  # which of the seeds each environment runs
    started = env.num_envs
    rngs = [np.random.default_rng(seed) for seed in seeds]
    observations, _ = env.reset(seed=list(seeds[:started]))  # type: ignore[arg-type]  # a list is documented
    idle = _idle_action(env.single_action_space)
    actions = np.repeat(idle[None], env.num_envs, axis=0)
    while any(index is not None for index in running):
        for i, index in enumerate(running):
            actions[i] = idle if index is None else _act(policy, params, observations[i], rngs[index], deterministic)
        observations, _, terminated, truncated, infos = env.step(actions)
        restart: list[int | None] = [None] * env.num_envs
        for i, index in enumerate(running):
            if index is None or not (terminated[i] or truncated[i]):
                continue
            metrics = infos["final_info"]["episode_metrics"]
            values = {name: float(metrics[name][i]) for name in EPISODE_METRICS}
            result = _episode_result(seeds[index], values, bool(terminated[i]))
            results[index], running[i] = result, None
            if on_episode is not None:
                on_episode(result)
            if started < len(seeds):
                running[i], restart[i] = started, seeds[started]
                started += 1
        mask = np.array([seed is not None for seed in restart])
        if mask.any():
            options = {"reset_mask": mask}
            observations, _ = env.reset(seed=restart, options=options)  # type: ignore[arg-type]
    return [result for result in results if result is not None]


def run_episode(
    policy: ActingPolicy,
    params: Mapping[str, np.ndarray],
    env: gymnasium.Env,
    seed: int,
    *,
    deterministic: bool = True,
) -> Iterator[EvaluationStep]:
    """Step one episode of a single environment: the same numbers as :func:`evaluate_policy` for that seed.

    The environment is reset before the first step is taken; the caller closes it.
    """
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    total, index, done = 0.0, 0, False
    while not done:
        action = _act(policy, params, observation, rng, deterministic)
        seen = observation
        observation, reward, terminated, truncated, info = env.step(action)
        total, index, done = total + float(reward), index + 1, bool(terminated or truncated)
        result = None
        if done:
            values = {name: float(info["episode_metrics"][name]) for name in EPISODE_METRICS}
            result = _episode_result(seed, values, bool(terminated))
        yield EvaluationStep(index, seen, action, float(reward), total, info, result)


def _idle_action(space: gymnasium.Space) -> np.ndarray:
    """Something valid for an environment that has no more episode to run: zeros, or the first choice."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return np.asarray(space.start, dtype=np.int64)
    return np.zeros(space.shape or (), dtype=np.float32)


def _act(
    policy: ActingPolicy,
    params: Mapping[str, np.ndarray],
    observation: np.ndarray,
    rng: np.random.Generator,
    deterministic: bool,
) -> np.ndarray:
    row = np.asarray(observation, dtype=np.float32)[None]
    return np.asarray(policy.act(params, row, rng, deterministic=deterministic))[0]


def _episode_result(seed: int, metrics: Mapping[str, float], terminated: bool) -> EpisodeResult:
    if metrics["crashed"] > 0:
        reason = "collision"
    elif terminated:
        reason = "off_road" if metrics["off_road"] > 0 else "terminated"
    else:
        reason = "time_limit"
    if not math.isfinite(metrics["return"]):
        logger.warning("episode of seed %d has a return that is not finite: %r", seed, metrics["return"])
    return EpisodeResult(seed, reason, metrics)
