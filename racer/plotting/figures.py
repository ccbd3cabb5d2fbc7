"""The figures: learning curves, return histograms, trade-offs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.core.errors import UsageError, nearest, unknown_name
from racer.envs.metric import Metric
from racer.envs.registry import get_world
from racer.evaluation.summary import lower_tail_cvar, proportion_interval
from racer.plotting.runs import Curve, Evaluation, Run, RunGroup, mean_curve, smooth
from racer.plotting.style import COLORS, GREY, INK, pyplot

__all__ = ["DEFAULT_CVAR_LEVEL", "learning_curves", "return_histograms", "trade_offs"]

DEFAULT_CVAR_LEVEL = 0.8


@dataclass(frozen=True)
class Quantity:
    """A panel of the learning curves: the same quantity in training and in evaluation."""

    title: str
    unit: str
    training: str
    evaluation: str
    share: bool = False

    @property
    def names(self) -> set[str]:
        """Its names in a log."""
        return {self.training, self.evaluation}

    @classmethod
    def of(cls, metric: Metric) -> Quantity:
        """Return the panel of a metric."""
        logged = metric.name if metric.key in ("return", "length") else metric.aggregate
        names = f"training/{metric.name}", f"evaluation/{logged}"
        return cls(metric.title, metric.axis, *names, metric.is_percentage)


LOWER_TAIL = Quantity("Lower tail", "CVaR of return", "training/cvar_return", "evaluation/cvar_return")


def _metrics(groups: Sequence[RunGroup]) -> list[Metric]:
    """The metrics of all worlds that the runs are of, each once."""
    worlds = dict.fromkeys(run.world for group in groups for run in group.runs)
    return list(dict.fromkeys(metric for world in worlds for metric in get_world(world).metrics))


def _not_logged(name: str, known: set[str], usual: set[str]) -> UsageError:
    """Build the error for a metric that no run logged, ``known``, though others of its world may, ``usual``."""
    meant = nearest(name, sorted(known | usual))
    if meant is None or meant in known:
        return unknown_name("metric", name, known)
    unknown = "" if meant == name else f"unknown metric {name!r}; did you mean {meant!r}? "
    return UsageError(f"{unknown}none of the runs logged {meant!r}; they have {', '.join(sorted(known))}")


def learning_curves(groups: Sequence[RunGroup], metrics: Sequence[str] = (), *, smoothing: float = 0.05) -> Any:
    """Draw metrics over transitions: mean over the runs of a group, with a band (:func:`mean_curve`).

    Args:
        groups: runs that differ by the seed only, one colour each.
        metrics: names to draw, a panel each; without them the usual quantities, training dashed, evaluation solid.
        smoothing: share of a training curve's points in its running mean.

    Raises:
        UsageError: no run has a metric to draw, or a name that none of them logged.
    """
    known = {name for group in groups for run in group.runs for name in run.metric_names()}
    quantities = {metric: Quantity.of(metric) for metric in _metrics(groups)}
    for name in metrics:
        if name not in known:
            raise _not_logged(name, known, {other for quantity in quantities.values() for other in quantity.names})
    shares = {name for quantity in quantities.values() if quantity.share for name in quantity.names}
    usual = [*(quantity for metric, quantity in quantities.items() if metric.curve), LOWER_TAIL]
    panels = [Quantity(name, "", name, name, name in shares) for name in metrics] or [
        quantity for quantity in usual if quantity.names & known
    ]
    if not panels:
        raise UsageError(_no_curves(known))
    plt = pyplot()
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.3 * rows + 0.5), squeeze=False)
    drawn: set[bool] = set()
    for axis, quantity in zip(axes.flat, panels, strict=False):
        for number, group in enumerate(groups):
            drawn |= _draw_quantity(axis, quantity, group, COLORS[number % len(COLORS)], smoothing)
        _widen_around_a_point(axis)
        axis.set_title(quantity.title)
        axis.set_ylabel(quantity.unit)
        axis.set_xlabel("transitions")
        axis.xaxis.set_major_formatter(plt.FuncFormatter(_short_count))
        if quantity.share:
            axis.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
            axis.set_ylim(0.0, max(axis.get_ylim()[1], 0.1))
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    handles = [
        plt.Line2D([], [], color=COLORS[i % len(COLORS)], linewidth=2.5, label=group.label)
        for i, group in enumerate(groups)
    ]
    if any(q.training != q.evaluation for q in panels) and len(drawn) > 1:
        handles += [
            plt.Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label="training"),
            plt.Line2D([], [], color=GREY, marker="o", markersize=4, label="evaluation"),
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    return figure


def _no_curves(known: set[str]) -> str:
    """Say why there are no learning curves among the metrics that runs logged."""
    if not known:
        return "no run has a metrics.jsonl with numbers"
    return (
        "no episode has ended yet in the runs' metrics.jsonl; of the other metrics there, name some with --metric, "
        f"such as {', '.join(sorted(known)[:3])}"
    )


def _widen_around_a_point(axis: Any) -> None:
    """Let an axis begin at 0 where a single step is drawn: around it alone it would show a range that means nothing."""
    steps = {float(step) for line in axis.get_lines() for step in line.get_xdata()}
    if len(steps) == 1 and (only := steps.pop()) > 0:
        axis.set_xlim(0.0, 1.15 * only)


def _draw_quantity(axis: Any, quantity: Quantity, group: RunGroup, color: str, smoothing: float) -> set[bool]:
    """Draw the curves of a group; returns for which kinds there are any: of training (True), of evaluations (False)."""
    drawn = set()
    for name, is_training in ((quantity.training, True), (quantity.evaluation, False)):
        if not is_training and quantity.training == quantity.evaluation:
            continue
        curves = [curve for run in group.runs if (curve := run.curve(name)) is not None]
        if not curves:
            continue
        if is_training:
            curves = [smooth(curve, smoothing) for curve in curves]
        curve = mean_curve(curves)
        drawn.add(is_training)
        plain = is_training and quantity.training != quantity.evaluation
        style = {"linestyle": "--", "linewidth": 1.2, "alpha": 0.8} if plain else {"linewidth": 2.0}
        marker = {"marker": "o", "markersize": 3.5} if not is_training and len(curve.steps) <= 60 else {}
        axis.plot(curve.steps, curve.values, color=color, **style, **marker)
        band = curve if curve.low is not None else _logged_band(group.runs, name, curve)
        if band is not None and band.low is not None and band.high is not None:
            low, high = band.low, band.high
            if quantity.share:
                low, high = np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
            axis.fill_between(band.steps, low, high, color=color, alpha=0.10 if plain else 0.18, linewidth=0)
    return drawn


def _logged_band(runs: Sequence[Run], name: str, curve: Curve) -> Curve | None:
    """The interval over episodes that a single run's evaluations logged themselves."""
    if len(runs) != 1:
        return None
    stem = {"evaluation/return": "evaluation/mean_return"}.get(name, name)
    low, high = runs[0].curve(f"{stem}_low"), runs[0].curve(f"{stem}_high")
    if low is None or high is None or not np.array_equal(low.steps, high.steps):
        return None
    return Curve(low.steps, curve.values, low.values, high.values)


def return_histograms(groups: Sequence[RunGroup], cvar_level: float | None = None) -> Any:
    """Draw the returns of every evaluation, its mean, and the lower tail that the CVaR averages.

    Args:
        groups: runs; their evaluation files are drawn, and beside them the random policy where it was run too.
        cvar_level: level of the tail; the evaluation's own where None.

    Raises:
        UsageError: there is no evaluation among the runs.
    """
    shown = list(_evaluations(groups))
    if not shown:
        raise UsageError("no run has an evaluation_metrics.json to draw returns from")
    plt = pyplot()
    figure, axes = plt.subplots(len(shown), 1, figsize=(8.0, 2.5 * len(shown) + 0.6), sharex=True, squeeze=False)
    pooled = [e.returns() for _, e, _ in shown] + [
        e.returns(name) for _, e, _ in shown for name in (e.document.get("comparisons") or {})
    ]
    everything = np.concatenate(pooled)
    low, high = float(everything.min()), float(everything.max())
    width = max(high - low, 1e-6)
    bins = np.linspace(low - 0.02 * width, high + 0.02 * width, int(np.clip(len(shown[0][1].returns()) / 2, 12, 40)))
    for axis, (label, evaluation, color) in zip(axes[:, 0], shown, strict=True):
        level = cvar_level if cvar_level is not None else evaluation.aggregate.get("cvar_level", DEFAULT_CVAR_LEVEL)
        _draw_histogram(axis, evaluation, float(level), bins, color)
        axis.set_title(label)
        axis.set_ylabel("episodes")
        axis.yaxis.get_major_locator().set_params(integer=True)
    axes[-1, 0].set_xlabel("return of an episode")
    return figure


def _draw_histogram(axis: Any, evaluation: Evaluation, level: float, bins: np.ndarray, color: str) -> None:
    returns = evaluation.returns()
    worst = lower_tail_cvar(returns, level)
    edge = float(np.quantile(returns, 1.0 - level, method="inverted_cdf")) if level < 1 else float(returns.min())
    axis.hist(returns, bins=bins, color=color, alpha=0.85, label=f"{returns.size} episodes")
    axis.axvspan(bins[0], edge, color=INK, alpha=0.07, linewidth=0, label=f"worst {1 - level:.0%} of episodes")
    axis.axvline(worst, color=INK, linewidth=2.0, label=f"CVaR at level {level:g}: {worst:.1f}")
    axis.axvline(returns.mean(), color=INK, linewidth=2.0, linestyle="--", label=f"mean: {returns.mean():.1f}")
    for name in evaluation.document.get("comparisons") or {}:
        others = evaluation.returns(name)
        # Ticks below the bars: a narrow distribution would flatten the one that the picture is about.
        axis.plot(
            others, np.full(others.size, 0.03), "|", color="#8a94a0", markersize=9, alpha=0.7,
            transform=axis.get_xaxis_transform(), label=f"{name}, each episode: mean {others.mean():.1f}",
        )  # fmt: skip
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)


def trade_offs(groups: Sequence[RunGroup]) -> Any:
    """Draw what is at odds in a world, a panel for each of its :attr:`racer.envs.world.World.trade_offs`.

    A point is a run's newest evaluation: of the evaluation files, with the rate's 95 % interval, or else of the metrics
    log. Better is to the upper left: where a high rate is good, the axis runs backwards.

    Raises:
        UsageError: the runs are of several worlds or of one without trade-offs, or none was evaluated.
    """
    worlds = {run.world for group in groups for run in group.runs}
    if len(worlds) != 1:
        raise UsageError(f"trade-offs are drawn of one world, not of {', '.join(sorted(worlds))}")
    world = get_world(worlds.pop())
    if not world.trade_offs:
        raise UsageError(f"world {world.name!r} names no trade-offs")
    by_name = {metric.aggregate: metric for metric in world.metrics}
    pairs = [(by_name[rate], by_name[other]) for rate, other in world.trade_offs]
    points = {pair: [[_point(run, *pair) for run in group.runs] for group in groups] for pair in pairs}
    if not any(point for drawn in points.values() for group in drawn for point in group):
        raise UsageError("no run has an evaluation to take a trade-off from")
    plt = pyplot()
    figure, axes = plt.subplots(1, len(pairs), figsize=(5.5 * len(pairs), 4.6), squeeze=False)
    for axis, ((rate, other), drawn) in zip(axes[0], points.items(), strict=True):
        for number, (group, found) in enumerate(zip(groups, drawn, strict=True)):
            color = COLORS[number % len(COLORS)]
            _draw_trade_off(axis, [point for point in found if point is not None], color, group.label)
        axis.set_title(f"{other.title} against {rate.title.lower()}")
        axis.set_xlabel(rate.axis)
        axis.set_ylabel(other.axis)
        axis.xaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
        # A point at the end of the range stands clear of the axis, which needs no impossible shares for that.
        low, high = axis.get_xlim()
        low, high = (min(-0.02, low), max(high + 0.01, 0.1)) if rate.better != "high" else (high + 0.02, low - 0.02)
        axis.set_xlim(low, high)
        axis.set_xticks([tick for tick in axis.get_xticks() if 0.0 <= tick <= 1.0 and tick <= max(low, high)])
        axis.margins(y=0.2)
        others = {point[1] for group in drawn for point in group if point is not None}
        if len(others) == 1:
            only = others.pop()
            axis.set_ylim(min(0.0, 1.25 * only), max(1.25 * only, 0.1))
        axis.annotate(
            "better", xy=(0.02, 0.98), xytext=(0.11, 0.88), xycoords="axes fraction", color=GREY,
            arrowprops={"arrowstyle": "->", "color": GREY},
        )  # fmt: skip
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(groups)))
    return figure


TradeOff = tuple[float, float, float | None, float | None]


def _draw_trade_off(axis: Any, points: Sequence[TradeOff], color: str, label: str) -> None:
    for rate, other, low, high in points:
        bars = None if low is None or high is None else np.array([[max(rate - low, 0.0)], [max(high - rate, 0.0)]])
        axis.errorbar(rate, other, xerr=bars, fmt="o", color=color, markersize=6, alpha=0.75, elinewidth=1.0)
    if len(points) > 1:
        mean = np.mean([point[:2] for point in points], axis=0)
        axis.plot(*mean, marker="D", markersize=11, color=color, markeredgecolor="white", markeredgewidth=1.5)
    if points:
        axis.plot([], [], "o", color=color, label=label)


def _point(run: Run, rate: Metric, other: Metric) -> TradeOff | None:
    """A rate, what it is at odds with, and the rate's interval, of a run's newest evaluation."""
    for evaluation in reversed(run.evaluations):
        x, y = (evaluation.aggregate.get(metric.aggregate) for metric in (rate, other))
        if x is not None and y is not None:
            count = len(evaluation.document["episodes"])
            return x, float(y), *proportion_interval(round(x * count), count)
    for row in reversed(run.rows):
        x, y = (row.get(f"evaluation/{metric.aggregate}") for metric in (rate, other))
        if x is not None and y is not None:
            return x, float(y), None, None
    return None


def _evaluations(groups: Sequence[RunGroup]) -> Iterator[tuple[str, Evaluation, str]]:
    for number, group in enumerate(groups):
        for run in group.runs:
            for evaluation in run.evaluations:
                stored = evaluation.document.get("configuration") or {}
                step = stored.get("checkpoint_step")
                label = run.name if step is None else f"{run.name}, checkpoint {step}"
                yield label, evaluation, COLORS[number % len(COLORS)]


def _short_count(value: float, _: Any = None) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
