"""The whole evaluation of a checkpoint: check everything first, evaluate, report, film."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium

from racer.core.errors import UsageError, shown
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
from racer.evaluation.html_report import Group, write_report
from racer.evaluation.memory_controls import MemoryControl, Recorder, Swapped, Wiped
from racer.evaluation.paired import (
    Differences,
    difference_document,
    difference_title,
    format_differences,
    paired_differences,
    verdict,
)
from racer.evaluation.recording import Mining, Recording, get_replay, mined, record_episodes, worst_first
from racer.evaluation.report import format_table, write_evaluation
from racer.evaluation.summary import check_cvar_level
from racer.evaluation.video import check_encoder
from racer.networks.uniform import uniform_policy

__all__ = [
    "EvaluationOptions", "EvaluationOutcome", "described_policy", "evaluate_checkpoint", "evaluation_config",
    "merge_config",
]  # fmt: skip

log = logging.getLogger(__name__)

WORST = 10
"""Episodes that a report plays again."""

EpisodeBars = Callable[[str, int], Callable[[EpisodeResult], None]]


@dataclass(frozen=True)
class EvaluationOptions:
    """How to evaluate.

    Attributes:
        output_dir: folder for ``evaluation_metrics.json``, the videos and the report.
        num_episodes: one per held-out seed.
        first_seed: the seeds are ``first_seed, first_seed + 1, ...``.
        num_envs: environments side by side; changes the speed only.
        deterministic: the policy's mode, or samples.
        cvar_level: level of the lower tail, as ``cvar_risk``.
        num_videos: film the first episodes; 0 films none.
        compare_random: evaluate uniformly random actions on the same seeds too.
        env_overrides: environment keys that differ from the checkpoint's.
        against: a second policy, evaluated in the first one's world on the same seeds.
        report: write ``evaluation_report.html``.
        memory_controls: evaluate the policy with its memory wiped, and swapped, between trials too.
        mine: episodes on the seeds after the evaluated ones that are searched for the worst; 0 for none.
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
    against: TrainedPolicy | None = None
    report: bool = False
    mine: int = 0
    memory_controls: bool = False


@dataclass(frozen=True)
class EvaluationOutcome:
    """What an evaluation found and wrote."""

    result: EvaluationResult
    random: EvaluationResult | None
    table: str
    metrics_path: Path
    videos: tuple[Path, ...]
    mining: Mining | None = None
    report: Path | None = None


def evaluate_checkpoint(
    trained: TrainedPolicy,
    options: EvaluationOptions,
    *,
    on_table: Callable[[str], None] = lambda table: None,
    progress: EpisodeBars = lambda name, total: lambda episode: None,
) -> EvaluationOutcome:
    """Evaluate a trained policy and leave ``evaluation_metrics.json``, videos and a report in the output folder.

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
    folder = _checked(trained, options)
    world, env_config = trained.world, evaluation_config(trained, options.env_overrides)
    action_space = _action_space(trained, env_config)
    if options.against is not None:
        _action_space(options.against, env_config)

    def run(
        policy: Any, params: Mapping[str, Any], name: str, seeds: Sequence[int], deterministic: bool,
        configuration: Mapping[str, Any] | None = None, control: MemoryControl | None = None,
    ) -> EvaluationResult:  # fmt: skip
        # Nothing but the memory may tell of earlier trials where it is wiped.
        config = world.forgetful(env_config) if isinstance(control, Wiped) else env_config
        return evaluate_policy(
            policy, params, world, config, seeds, num_envs=options.num_envs, deterministic=deterministic,
            cvar_level=options.cvar_level, configuration=configuration, on_episode=progress(name, len(seeds)),
            control=control,
        )  # fmt: skip

    sure, described = options.deterministic, _described(trained, options)
    recorder = Recorder() if options.memory_controls else None
    result = run(trained.policy, trained.params, "policy", seeds, sure, described, recorder)
    comparisons, random = {}, None
    if recorder is not None:
        for name, control in (("memory wiped", Wiped()), ("memory swapped", Swapped(recorder))):
            comparisons[name] = run(trained.policy, trained.params, name, seeds, sure, None, control)
    if options.against is not None:
        other = options.against
        comparisons[_second_name(trained, other)] = run(other.policy, other.params, "against", seeds, sure)
    if options.compare_random:
        # The mode of uniform actions is the middle of their range, which is no random policy.
        random = comparisons["random"] = run(uniform_policy(action_space), {}, "random", seeds, False)
    columns = {trained.label: result, **comparisons}
    mining = None
    if options.mine:
        further = evaluation_seeds(options.mine, options.first_seed + options.num_episodes)
        searched = run(trained.policy, trained.params, "mining", further, sure)
        mining = mined(trained, world, env_config, searched.episodes, deterministic=sure, critic=options.report)
    differences = {name: paired_differences(result, other) for name, other in comparisons.items()}
    parts = [format_table(columns)]
    for name, found in differences.items():
        parts.append(format_differences(difference_title(trained.label, name), result, found))
    if random is not None:
        parts.append(verdict(result, random, differences["random"]))
    more: dict[str, Any] = {}
    if differences:
        more["paired_differences"] = {name: difference_document(found) for name, found in differences.items()}
    if mining is not None:
        parts.append(mining.text())
        more["mining"] = mining.document()
    table = "\n".join(parts)
    metrics_path = write_evaluation(folder, result, comparisons, more)
    on_table(table)
    report = _write_report(trained, options, env_config, columns, differences, mining) if options.report else None
    films = _films(trained, options, env_config, result, mining, progress)
    return EvaluationOutcome(result, random, table, metrics_path, films, mining, report)


def _checked(trained: TrainedPolicy, options: EvaluationOptions) -> Path:
    """Return the output folder, with everything looked at that is wrong before any environment is built."""
    check_cvar_level(options.cvar_level)
    if options.num_videos < 0 or options.num_envs < 1:
        raise UsageError(
            f"num_videos must not be negative and num_envs at least 1, got {options.num_videos} and {options.num_envs}"
        )
    if options.memory_controls and not getattr(trained.policy, "has_memory", False):
        raise UsageError(f"{trained.label!r} has no memory, so none can be wiped: leave out memory_controls")
    if options.mine < 0 or options.mine == 1:
        raise UsageError(f"mine must be at least 2, to compare the worst episodes with others, got {options.mine}")
    world, other = trained.world, options.against
    if other is not None and other.world.name != world.name:
        raise UsageError(f"{trained.label!r} is of world {world.name!r}, {other.label!r} of {other.world.name!r}")
    folder = check_writable(options.output_dir, "output folder")
    if options.num_videos:
        world.get_film()
        check_encoder()
    if options.mine:
        get_replay(world)
    return folder


def _described(trained: TrainedPolicy, options: EvaluationOptions) -> dict[str, Any]:
    other = {} if options.against is None else {"against": os.fspath(options.against.path)}
    return {**described_policy(trained, options.env_overrides), **other}


def _second_name(trained: TrainedPolicy, other: TrainedPolicy) -> str:
    return other.label if other.label not in (trained.label, "random") else f"{other.label} (second)"


def _write_report(
    trained: TrainedPolicy,
    options: EvaluationOptions,
    env_config: Mapping[str, Any],
    results: Mapping[str, EvaluationResult],
    differences: Mapping[str, Differences],
    mining: Mining | None,
) -> Path:
    """Record the worst episodes of either policy, with the other one on the same seeds, and write the page."""
    world, groups = trained.world, []
    drivers = {trained.label: trained}
    if options.against is not None:
        drivers[_second_name(trained, options.against)] = options.against
    if world.replay is not None:

        def on_seeds(seeds: Sequence[int]) -> list[tuple[Recording, ...]]:
            recorded = [
                record_episodes(driver, world, env_config, seeds, deterministic=options.deterministic, critic=True)
                for driver in drivers.values()
            ]
            return list(zip(*recorded, strict=True))

        for whose, name in enumerate(drivers):
            worst = [episode.seed for episode in worst_first(results[name].episodes)[:WORST]]
            title = f"{name}: worst of the {options.num_episodes} evaluated episodes"
            groups.append(Group(title, on_seeds(worst), whose))
        if mining is not None:
            seeds = [recording.episode.seed for recording in mining.worst]
            groups.append(Group(f"{trained.label}: worst of {mining.count} mined episodes", on_seeds(seeds)))
    return write_report(
        options.output_dir, world, results, groups, mining,
        players=list(drivers),
        differences=differences,
        seconds=world.film.clock(env_config)[0] if world.film is not None else 1.0,
        cvar_risk=float(trained.agent_config.get("cvar_risk", options.cvar_level)),
    )  # fmt: skip


def _films(
    trained: TrainedPolicy,
    options: EvaluationOptions,
    env_config: Mapping[str, Any],
    result: EvaluationResult,
    mining: Mining | None,
    progress: EpisodeBars,
) -> tuple[Path, ...]:
    """Film the first evaluated episodes, and the worst mined ones."""
    asked = [("episode", "video", result.episodes[: options.num_videos])]
    if mining is not None:
        asked.append(("worst", "worst", tuple(r.episode for r in mining.worst[: options.num_videos])))
    paths = []
    for what, name, episodes in asked:
        films = film_episodes(
            trained, env_config, [episode.seed for episode in episodes], options.output_dir, what=what,
            deterministic=options.deterministic, on_episode=progress(name, len(episodes)),
        )  # fmt: skip
        for (path, filmed), evaluated in zip(films, episodes, strict=True):
            if filmed != evaluated:
                log.warning("%s shows another course of seed %d than the one evaluated", path, filmed.seed)
            paths.append(path)
    return tuple(paths)


def evaluation_config(trained: TrainedPolicy, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole configuration in which a policy is evaluated: its own, held out, with overrides over it.

    Raises:
        UsageError: overrides that the world refuses.
    """
    world = trained.world
    if not isinstance(overrides, Mapping):
        raise UsageError(f"env must hold keys of world {world.name!r}, not {shown(overrides)}")
    return world.resolve(merge_config(world.held_out(trained.env_config), overrides))


def described_policy(trained: TrainedPolicy, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result's configuration says of the policy and of the overrides of its world."""
    return {
        "policy_file": os.fspath(trained.path),
        "checkpoint_step": trained.step,
        "training_seed": trained.seed,
        "agent_name": trained.agent_name,
        "agent_config": dict(trained.agent_config),
        "env_overrides": dict(overrides),
    }


def merge_config(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Put overrides over a configuration; nested mappings are merged key by key."""
    merged = dict(base)
    for key, value in overrides.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge_config(merged[key], value) if nested else value
    return merged


def _action_space(trained: TrainedPolicy, env_config: Mapping[str, Any]) -> gymnasium.Space:
    """Build one environment to find wrong shapes; returns its action space."""
    env = trained.world.make_one(env_config)
    try:
        check_spaces(trained.policy, env.single_observation_space, env.single_action_space)
        return env.single_action_space
    finally:
        env.close()
