"""Episodes recorded step by step as numbers: what a page replays, and what the worst ones have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from racer.core.errors import RacerError, UsageError
from racer.envs.replay import Replay, Shapes
from racer.envs.world import World
from racer.evaluation.checkpoints import TrainedPolicy
from racer.evaluation.critic import restore_critic
from racer.evaluation.episodes import EpisodeResult, EvaluationStep, run_episode
from racer.networks.policy import ActingPolicy, AnyPolicy

__all__ = ["CriticTrace", "Curves", "Mining", "Recording", "get_replay", "mined", "record_episodes", "worst_first"]


@dataclass(frozen=True)
class CriticTrace:
    """The critic's distribution of returns in every step.

    Attributes:
        atoms: ``[n]`` returns.
        probs: ``[T, n]``.
    """

    atoms: np.ndarray
    probs: np.ndarray


class Curves(NamedTuple):
    """What a :class:`racer.envs.replay.Trace` found: ``values`` are ``[T]`` or ``[T, K]``."""

    label: str
    top: float | None
    values: np.ndarray
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """An episode in numbers.

    Attributes:
        episode: its result.
        moments: ``T + 1``; none where the world has no picture from above.
        traces: what is drawn over time.
        facts: what the world says of its end.
        critic: what the critic expected, or None.
    """

    episode: EpisodeResult
    moments: Sequence[Shapes]
    traces: Sequence[Curves]
    facts: Mapping[str, float] = field(default_factory=dict)
    critic: CriticTrace | None = None

    @property
    def steps(self) -> int:
        """T."""
        return len(self.traces[0].values)


def get_replay(world: World) -> Replay:
    """Return how a world's episodes are recorded.

    Raises:
        UsageError: they cannot be.
    """
    if world.replay is None:
        raise UsageError(f"world {world.name!r} has no replay: its worst episodes cannot be looked into")
    return world.replay


def worst_first(episodes: Sequence[EpisodeResult]) -> list[EpisodeResult]:
    """Sort episodes by return, the lowest first; equal ones keep their order."""
    return sorted(episodes, key=lambda episode: episode.metrics["return"])


def record_episodes(
    trained: TrainedPolicy | ActingPolicy | AnyPolicy,
    world: World,
    config: Mapping[str, Any],
    seeds: Sequence[int],
    *,
    deterministic: bool = True,
    critic: bool = False,
    on_episode: Callable[[EpisodeResult], None] = lambda episode: None,
) -> list[Recording]:
    """Run the episode of each seed again and keep its numbers; the same course as in the evaluation.

    Args:
        trained: a checkpoint's policy, or one without parameters.
        world: that the episodes are of.
        config: its whole configuration.
        seeds: of the episodes.
        deterministic: as the episodes were evaluated.
        critic: also ask the checkpoint's critic, where it has one that knows a distribution of returns.
        on_episode: called after each.

    Raises:
        UsageError: the world has no replay.
    """
    replay = get_replay(world)
    look: Callable[[Any], Any] = replay.scene.shapes if replay.scene is not None else lambda env: None
    world, env = world.fitted(config), replay.make(config)
    try:
        asked = _critic_of(trained, env) if critic and isinstance(trained, TrainedPolicy) else None
        policy: Any = trained.policy if isinstance(trained, TrainedPolicy) else trained
        params = trained.params if isinstance(trained, TrainedPolicy) else {}
        found = []
        for seed in seeds:
            env.reset(seed=seed)  # the moment before the first step; the episode begins with the same reset
            steps, moments = [], [look(env)]
            for step in run_episode(policy, params, world, env, seed, deterministic=deterministic):
                steps.append(step)
                moments.append(look(env))
            found.append(_recording(replay, config, steps, [] if replay.scene is None else moments, asked))
            on_episode(found[-1].episode)
        return found
    finally:
        env.close()


def _critic_of(trained: TrainedPolicy, env: Any) -> Any:
    try:
        return restore_critic(trained, env)
    except RacerError:
        # Exported policies hold none, and most agents have no distribution: nothing is missing then.
        return None


def _recording(
    replay: Replay, config: Mapping[str, Any], steps: list[EvaluationStep], moments: list[Shapes], critic: Any
) -> Recording:
    result = steps[-1].result
    assert result is not None
    traces = [
        Curves(trace.label, trace.top, np.array([trace.value(step) for step in steps], np.float64), trace.names)
        for trace in replay.traces
    ]
    traces.append(Curves("return so far", None, np.array([step.episode_return for step in steps])))
    facts = {} if replay.facts is None else replay.facts(steps, moments, config)
    expected = None
    if critic is not None:
        observations = np.stack([step.observation for step in steps]).astype(np.float32)
        chosen = np.stack([step.chosen for step in steps]).astype(np.float32)
        expected = CriticTrace(*critic.return_distribution(observations, chosen))
    return Recording(result, moments, traces, facts, expected)


@dataclass(frozen=True)
class Mining:
    """The worst of many episodes, beside typical ones.

    Attributes:
        count: episodes searched.
        worst: their worst, the lowest return first.
        typical: as many from the middle.
    """

    count: int
    worst: Sequence[Recording]
    typical: Sequence[Recording]

    def common(self) -> list[tuple[str, float, float, float, float]]:
        """Return a row a fact: name, the worst ones' median, least and greatest value, and the typical ones' median."""
        rows = []
        for name in self.worst[0].facts:
            bad, usual = (_values(recordings, name) for recordings in (self.worst, self.typical))
            ends = (float(bad.min()), float(bad.max())) if bad.size else (math.nan, math.nan)
            rows.append((name, _median(bad), *ends, _median(usual)))
        return rows

    def ends(self) -> dict[str, int]:
        """Return how many of the worst episodes ended how."""
        reasons = [recording.episode.end_reason for recording in self.worst]
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}

    def document(self) -> dict[str, Any]:
        """Return the findings, JSON-able."""
        names = ("worst_median", "worst_least", "worst_greatest", "typical_median")
        worst = [
            {"seed": r.episode.seed, "end_reason": r.episode.end_reason, "return": r.episode.metrics["return"],
             **r.facts} for r in self.worst
        ]  # fmt: skip
        common = {name: dict(zip(names, values, strict=True)) for name, *values in self.common()}
        return {"episodes": self.count, "ends": self.ends(), "worst": worst, "common": common}

    def text(self) -> str:
        """Return the findings as lines to read."""
        ends = ", ".join(f"{count} by {reason.replace('_', ' ')}" for reason, count in self.ends().items())
        seeds = ", ".join(str(recording.episode.seed) for recording in self.worst)
        lines = [f"worst {len(self.worst)} of {self.count} mined episodes: {ends}", f"  seeds {seeds}"]
        rows = self.common()
        width = max((len(name) for name, *_ in rows), default=0)
        lines += [
            f"  {name:<{width}}  {bad:8.2f} ({low:.2f} to {high:.2f}), typical {usual:.2f}"
            for name, bad, low, high, usual in rows
        ]
        return "\n".join(lines)


def mined(
    trained: TrainedPolicy,
    world: World,
    config: Mapping[str, Any],
    episodes: Sequence[EpisodeResult],
    *,
    count: int = 10,
    **options: Any,
) -> Mining:
    """Look into the worst of many evaluated episodes, and into typical ones for comparison.

    Args:
        trained: whose episodes they are.
        world: that they are of.
        config: its whole configuration.
        episodes: in any order.
        count: how many of either.
        options: as of :func:`record_episodes`.
    """
    ordered = worst_first(episodes)
    count = max(1, min(count, len(ordered) // 2))
    typical = ordered[max(count, (len(ordered) - count) // 2) :][:count]
    chosen = [
        record_episodes(trained, world, config, [episode.seed for episode in group], **options)
        for group in (ordered[:count], typical)
    ]
    return Mining(len(ordered), *chosen)


def _values(recordings: Sequence[Recording], name: str) -> np.ndarray:
    values = np.array([recording.facts[name] for recording in recordings])
    return values[np.isfinite(values)]


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else math.nan
