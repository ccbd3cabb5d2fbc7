"""The whole evaluation of a checkpoint: check everything first, evaluate, report, film."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium

from racer.core.errors import UsageError
from racer.core.run_dir import check_writable
from racer.evaluation.checkpoints import TrainedPolicy
from racer.evaluation.episodes import (
    FIRST_EVALUATION_SEED,
    EpisodeResult,
    EvaluationResult,
    check_spaces,
    evaluate_policy,
    evaluation_seeds,
)
from racer.evaluation.film import film_episodes
from racer.evaluation.report import format_table, verdict, write_evaluation
from racer.evaluation.summary import check_cvar_level
from racer.evaluation.video import check_encoder
from racer.networks.uniform import uniform_policy

__all__ = ["EvaluationOptions", "EvaluationOutcome", "evaluate_checkpoint", "merge_config"]

log = logging.getLogger(__name__)

Progress = Callable[[str, int], Callable[[EpisodeResult], None]]


@dataclass(frozen=True)
class EvaluationOptions:
    """How to evaluate.

    Attributes:
        output_dir: folder for ``evaluation_metrics.json`` and the videos.
        num_episodes: one per held-out seed.
        first_seed: the seeds are ``first_seed, first_seed + 1, ...``.
        num_envs: environments side by side; changes the speed only.
        deterministic: the policy's mode, or samples.
        cvar_level: level of the lower tail, as ``cvar_risk``.
        num_videos: film the first episodes; 0 films none.
        compare_random: evaluate uniformly random actions on the same seeds too.
        env_overrides: environment keys that differ from the checkpoint's.
    """

    output_dir: Path
    num_episodes: int = 20
    first_seed: int = FIRST_EVALUATION_SEED
    num_envs: int = 8
    deterministic: bool = True
    cvar_level: float = 0.8
    num_videos: int = 0
    compare_random: bool = False
    env_overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationOutcome:
    """What an evaluation found and wrote."""

    result: EvaluationResult
    random: EvaluationResult | None
    table: str
    metrics_path: Path
    videos: tuple[Path, ...]


def evaluate_checkpoint(
    trained: TrainedPolicy,
    options: EvaluationOptions,
    *,
    on_table: Callable[[str], None] = lambda table: None,
    progress: Progress = lambda name, total: lambda episode: None,
) -> EvaluationOutcome:
    """Evaluate a trained policy and leave ``evaluation_metrics.json`` and the videos in the output folder.

    Everything that can be wrong beforehand (folder, encoder, shapes, environment keys) is checked before the first
    episode; the numbers are on disk before the first video.

    Args:
        trained: see :func:`racer.evaluation.checkpoints.load_policy`.
        options: what to do.
        on_table: called with the finished table, before filming.
        progress: makes a callback for each finished episode from a name and a number of episodes.

    Raises:
        UsageError: an option, the folder, the encoder, the environment's keys or its shape is wrong.
    """
    seeds = evaluation_seeds(options.num_episodes, options.first_seed)
    check_cvar_level(options.cvar_level)
    if options.num_videos < 0 or options.num_envs < 1:
        raise UsageError(
            f"num_videos must not be negative and num_envs at least 1, got {options.num_videos} and {options.num_envs}"
        )
    folder = check_writable(options.output_dir, "output folder")
    world = trained.world
    if options.num_videos:
        world.get_film()
        check_encoder()
    env_config = world.resolve(merge_config(world.held_out(trained.env_config), options.env_overrides))
    action_space = _action_space(trained, env_config)
    described = {
        "policy_file": os.fspath(trained.path),
        "checkpoint_step": trained.step,
        "training_seed": trained.seed,
        "agent_name": trained.agent_name,
        "agent_config": dict(trained.agent_config),
        "env_overrides": dict(options.env_overrides),
    }
    common: dict[str, Any] = {"num_envs": options.num_envs, "cvar_level": options.cvar_level}
    result = evaluate_policy(
        trained.policy,
        trained.params,
        world,
        env_config,
        seeds,
        deterministic=options.deterministic,
        configuration=described,
        on_episode=progress("policy", len(seeds)),
        **common,
    )
    random = None
    if options.compare_random:
        # The mode of uniform actions is the middle of their range, which is no random policy.
        random = evaluate_policy(
            uniform_policy(action_space),
            {},
            world,
            env_config,
            seeds,
            deterministic=False,
            on_episode=progress("random", len(seeds)),
            **common,
        )
    comparisons = {} if random is None else {"random": random}
    table = format_table({trained.name: result, **comparisons})
    if random is not None:
        table += "\n" + verdict(result, random)
    metrics_path = write_evaluation(folder, result, comparisons)
    on_table(table)
    films = film_episodes(
        trained,
        env_config,
        seeds[: options.num_videos],
        folder,
        deterministic=options.deterministic,
        on_episode=progress("video", min(options.num_videos, len(seeds))),
    )
    for (path, filmed), evaluated in zip(films, result.episodes, strict=False):
        if filmed != evaluated:
            log.warning("%s shows another course of seed %d than the one evaluated", path, filmed.seed)
    return EvaluationOutcome(result, random, table, metrics_path, tuple(path for path, _ in films))


def merge_config(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Put overrides over a configuration; nested mappings are merged key by key."""
    merged = dict(base)
    for key, value in overrides.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge_config(merged[key], value) if nested else value
    return merged


def _action_space(trained: TrainedPolicy, env_config: Mapping[str, Any]) -> gymnasium.Space:
    """Build one environment to find wrong shapes; returns its action space."""
    env = trained.world.make(env_config, 1)
    try:
        check_spaces(trained.policy, env.single_observation_space, env.single_action_space)
        return env.single_action_space
    finally:
        env.close()
