"""Figures of agents that get better from trial to trial of an episode: scores, what they gain, what is remembered."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from racer.core.errors import UsageError, unknown_name
from racer.evaluation.attention import AttentionEpisode
from racer.evaluation.summary import mean_interval, proportion_interval
from racer.plotting.runs import RunGroup
from racer.plotting.style import COLORS, GREY, INK, pyplot

__all__ = ["adaptation", "attention_map", "trial_scores"]

_SCORE = re.compile(r"trial_(\d+)_score")


def trial_scores(groups: Sequence[RunGroup]) -> Any:
    """Draw the score of every trial with its 95 % interval, a colour an evaluation; comparisons with it are dashed.

    Raises:
        UsageError: no run has an evaluation of several trials.
    """
    colors = itertools.cycle(COLORS)
    lines = [line for group in groups for line in _lines(group, colors)]
    if not lines:
        raise UsageError("no run has an evaluation_metrics.json with the scores of several trials")
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(7.5, 4.5))
    longest = 0
    for number, (label, episodes, color, style) in enumerate(lines):
        scores = _scores(episodes)
        count, trials = scores.shape
        longest = max(longest, trials)
        means = scores.mean(axis=0)
        bounds = np.array([proportion_interval(int(total), count) for total in scores.sum(axis=0)])
        # Lines whose intervals would hide each other stand a little apart.
        places = np.arange(1, trials + 1) + 0.04 * (number - (len(lines) - 1) / 2)
        errors = np.abs(bounds - means[:, None]).T
        axis.errorbar(places, means, errors, label=label, color=color, linestyle=style, marker="o", capsize=3)
    axis.set(xlabel="trial", ylabel="score", ylim=(0.0, 1.0), xticks=range(1, longest + 1))
    axis.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
    axis.set_title("Score of each trial")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def adaptation(groups: Sequence[RunGroup], across: str | None) -> Any:
    """Draw what the last trial scores above the first, over a key of the world's configuration.

    A point is an evaluation, with a 95 % interval over its episodes, which are paired; evaluations of runs that differ
    by the training seed only are joined by a line through their means.

    Args:
        groups: runs that differ by the seed only, one colour each.
        across: key of the world whose value is the horizontal axis: numbers at their place, all else side by side in
            alphabetical order.

    Raises:
        UsageError: no key was named, no evaluation has trials, or the key is unknown.
    """
    if across is None:
        raise UsageError("adaptation is drawn over a key of the world: name it with --across")
    points = [
        (number, _value(evaluation.document, across), scores[:, -1] - scores[:, 0])
        for number, group in enumerate(groups)
        for run in group.runs
        for evaluation in run.evaluations
        if (scores := _scores(evaluation.document.get("episodes", ()))).shape[1] > 1
    ]
    if not points:
        raise UsageError("no run has an evaluation_metrics.json with the scores of several trials")
    values = {value for _, value, _ in points}
    numeric = all(isinstance(value, float) for value in values)
    places = {value: float(value) if numeric else float(i) for i, value in enumerate(sorted(values, key=str))}
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(7.0, 4.5))
    for number, group in enumerate(groups):
        own = [(places[value], gains) for of, value, gains in points if of == number]
        color = COLORS[number % len(COLORS)]
        for place, gains in own:
            low, high = mean_interval(gains)
            axis.errorbar(place, gains.mean(), [[gains.mean() - low], [high - gains.mean()]], fmt="o", color=color,
                          capsize=3)  # fmt: skip
        at = sorted({place for place, _ in own})
        means = [np.mean([gains.mean() for place, gains in own if place == wanted]) for wanted in at]
        if own:
            axis.plot(at, means, color=color, label=group.label)
    if not numeric:
        axis.set_xticks(list(places.values()), [str(value) for value in places], rotation=20, ha="right")
    axis.axhline(0.0, color=GREY, linewidth=0.8)
    axis.set(xlabel=across, ylabel="last trial minus first")
    axis.set_title("What is gained within an episode")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def attention_map(episode: AttentionEpisode) -> Any:
    """Draw what every step read of the steps before it, a panel a layer and head.

    Borders between trials are lines; steps in limbo are shaded, as readers and as what is read.
    """
    plt = pyplot()
    steps, layers, heads, _ = episode.weights.shape
    figure, axes = plt.subplots(
        layers, heads, figsize=(2.7 * heads + 0.8, 2.7 * layers + 0.6), squeeze=False, sharex=True, sharey=True
    )
    image = None
    for layer in range(layers):
        for head in range(heads):
            axis = axes[layer, head]
            # A square root shows small weights, of which a long memory has many.
            image = axis.imshow(
                np.sqrt(episode.weights[:, layer, head]), cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest",
                aspect="auto", extent=(0, steps, steps, 0),
            )  # fmt: skip
            axis.grid(False)
            for border in episode.borders:
                axis.axhline(border, color=COLORS[1], linewidth=0.8)
                axis.axvline(border, color=COLORS[1], linewidth=0.8)
            for step in np.flatnonzero(episode.removed):
                axis.axhspan(step, step + 1, color=INK, alpha=0.12, linewidth=0)
                axis.axvspan(step, step + 1, color=INK, alpha=0.12, linewidth=0)
            axis.set_title(f"layer {layer + 1}, head {head + 1}")
            if layer == layers - 1:
                axis.set_xlabel("step that is read")
            if head == 0:
                axis.set_ylabel("step that reads")
    figure.suptitle(f"{episode.name}, seed {episode.seed}: lines where a trial begins, shaded in limbo")
    figure.colorbar(image, ax=axes, label="square root of weight", pad=0.01)
    return figure


def _lines(
    group: RunGroup, colors: Iterator[str]
) -> Iterator[tuple[str, Sequence[Mapping[str, Any]], str, str]]:
    """Yield label, episodes, colour and style of every evaluation with several trials, and of its comparisons.

    Several evaluations of one run are told apart by their folders.
    """
    styles = ("--", ":", "-.")
    for run in group.runs:
        found = [e for e in run.evaluations if _scores(e.document.get("episodes", ())).shape[1] > 1]
        for evaluation in found:
            document, color = evaluation.document, next(colors)
            label = run.name if len(found) == 1 else f"{run.name}: {evaluation.path.parent.name}"
            yield label, document["episodes"], color, "-"
            for number, (name, other) in enumerate((document.get("comparisons") or {}).items()):
                yield f"{label}, {name}", other["episodes"], color, styles[number % len(styles)]


def _scores(episodes: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return ``[N, K]``, which trials of which episodes were won; ``[N, 0]`` where episodes have none."""
    names = sorted((name for name in (episodes[0] if episodes else ()) if _SCORE.fullmatch(name)),
                   key=lambda name: int(name.split("_")[1]))  # fmt: skip
    scores = np.zeros((len(episodes), len(names)))
    for row, episode in zip(scores, episodes, strict=True):
        row[:] = [float(episode[name]) for name in names]
    return scores


def _value(document: Mapping[str, Any], key: str) -> float | str:
    """Return a key of the world that an evaluation was in: a number, or text for anything else."""
    config = (document.get("configuration") or {}).get("env_config") or {}
    if key not in config:
        raise unknown_name("environment config key", key, config)
    value = config[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
