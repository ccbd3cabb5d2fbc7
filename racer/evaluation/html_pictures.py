"""Pictures of an evaluation as SVG text, to stand inside a page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

from racer.envs.metric import Metric
from racer.envs.world import World
from racer.evaluation.episodes import EvaluationResult
from racer.evaluation.summary import lower_tail_cvar

__all__ = ["return_picture", "trade_off_picture"]

_WIDTH, _ROW, _LEFT, _RIGHT, _BOTTOM = 640, 130, 56, 16, 34
_BINS = 40
_DOTS = 5_000
"""At most: more are told apart by nobody, and fill the page."""

_COLORS = ("#2f6fd0", "#d9822b", "#3d9970", "#8e5bb5", "#d0403c")
_END_COLORS = ("#d0403c", "#3d9970", "#8e5bb5", "#8894a3", "#b08900")
_TAIL, _INK, _MUTED, _GRID = "#d0403c", "#1c2530", "#5d6b7b", "#e3e8ee"


class _Axis:
    """A horizontal or vertical scale."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        margin = 0.04 * (high - low) or 0.5
        self.low, self.high, self._start, self._end = low - margin, high + margin, start, end

    def __call__(self, value: float) -> float:
        return self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Return round values, about five."""
        rough = (self.high - self.low) / 5
        size = 10.0 ** np.floor(np.log10(rough))
        step = float(min((1, 2, 5, 10), key=lambda factor: abs(factor * size - rough)) * size)
        first = np.ceil(self.low / step)
        return [float(i * step) + 0.0 for i in range(int(first), int(np.floor(self.high / step)) + 1)]


def return_picture(results: Mapping[str, EvaluationResult]) -> str:
    """Draw the distribution of returns, a row a policy, with the tail that the CVaR averages in red."""
    returns = {name: _finite(result.returns) for name, result in results.items()}
    together = np.concatenate([*returns.values(), np.zeros(0)])
    if not together.size:
        return "<p>No return is finite.</p>"
    height = _ROW * len(results) + _BOTTOM
    x = _Axis(float(together.min()), float(together.max()), _LEFT, _WIDTH - _RIGHT)
    edges = np.linspace(x.low, x.high, _BINS + 1)
    tallest = max(np.histogram(values, edges)[0].max() / max(len(values), 1) for values in returns.values())
    parts = []
    for row, (name, result) in enumerate(results.items()):
        values, top = returns[name], _ROW * row + 26
        level, bottom = float(result.aggregate["cvar_level"]), _ROW * (row + 1) - 4
        parts.append(_text(_LEFT, top - 10, name, _INK))
        if not values.size:
            continue
        tail = np.sort(values)[: max(1, round((1.0 - level) * len(values)))]
        for group, color in ((values, "#9dbdf0"), (tail, _TAIL)):
            for count, left, right in zip(np.histogram(group, edges)[0], edges[:-1], edges[1:], strict=True):
                if count:
                    tall = count / len(values) / tallest * (bottom - top)
                    parts.append(_rectangle(x(left) + 0.5, bottom - tall, x(right) - x(left) - 1, tall, color))
        for value, label, color in (
            (lower_tail_cvar(values, level), f"CVaR {level:g}", _TAIL), (float(values.mean()), "mean", _INK),
        ):  # fmt: skip
            parts.append(_line(x(value), top - 4, x(value), bottom, color, 'stroke-width="1.5"'))
            near_end = x(value) > _WIDTH - 110
            anchor = "end" if near_end else "start"
            high = top + (8 if label == "mean" else 22)
            parts.append(_text(x(value) + (-4 if near_end else 4), high, f"{label} {value:.2f}", color, anchor))
    parts += _horizontal(x, height - _BOTTOM + 2, "return of an episode")
    return _svg(height, parts)


def trade_off_picture(world: World, results: Mapping[str, EvaluationResult]) -> tuple[str, str]:
    """Draw a rate against what it is traded for, a point a policy with its interval, where the world names such a pair.

    Below it every episode of the first policy. Returns title and picture, both empty without a pair.
    """
    if not world.trade_offs:
        return "", ""
    rate, other = (_metric(world, name) for name in world.trade_offs[0])
    height, middle = 416, 190
    episodes = [_finite(np.array([episode.metrics[other.key] for episode in r.episodes])) for r in results.values()]
    together = np.concatenate(episodes)
    if not together.size:
        return "", ""
    x = _Axis(float(together.min()), float(together.max()), _LEFT, _WIDTH - _RIGHT)
    y = _Axis(0.0, 100.0 * max(r.aggregate.get(f"{rate.aggregate}_high", 1.0) for r in results.values()), middle, 24)
    parts = [*_vertical(y, "%")]
    for i, (name, result) in enumerate(results.items()):
        across, up = x(result.aggregate[other.aggregate]), y(100.0 * result.aggregate[rate.aggregate])
        low, high = (100.0 * result.aggregate[f"{rate.aggregate}_{end}"] for end in ("low", "high"))
        color = _COLORS[i % len(_COLORS)]
        parts.append(_line(across, y(low), across, y(high), color, 'stroke-width="2"'))
        parts.append(f'<circle cx="{across:.1f}" cy="{up:.1f}" r="5" fill="{color}"/>')
        anchor = "end" if across > _WIDTH / 2 else "start"
        parts.append(_text(across + (-9 if anchor == "end" else 9), up + 4, name, color, anchor))
    parts.append(_text(_LEFT, 14, f"{rate.title}, with its interval", _MUTED))
    parts += _episode_dots(*next(iter(results.items())), other, x, (middle + 62, height - _BOTTOM))
    parts += _horizontal(x, height - _BOTTOM + 2, f"{other.title.lower()} [{other.axis}]")
    return f"{rate.title} and {other.title.lower()}", _svg(height, parts)


def _episode_dots(
    name: str, result: EvaluationResult, metric: Metric, x: _Axis, box: tuple[float, float]
) -> list[str]:
    """Draw a dot an episode of a policy, return over ``metric``, coloured by how it ended."""
    top, bottom = box
    finite = [e for e in result.episodes if np.isfinite([e.metrics["return"], e.metrics[metric.key]]).all()]
    if not finite:
        return []
    every = -(-len(finite) // _DOTS)
    which = "each episode" if every == 1 else f"one episode in {every}"
    finite = finite[::every]
    returns = [episode.metrics["return"] for episode in finite]
    y = _Axis(min(returns), max(returns), bottom, top)
    reasons = list(dict.fromkeys(sorted(episode.end_reason for episode in finite)))
    parts, left = [*_vertical(y, "")], float(_LEFT)
    parts.append(_text(_LEFT, top - 30, f"return of {which} of {name}:", _MUTED))
    for i, reason in enumerate(reasons):
        color = _END_COLORS[i % len(_END_COLORS)]
        parts.append(f'<circle cx="{left:.1f}" cy="{top - 16:.1f}" r="4" fill="{color}"/>')
        parts.append(_text(left + 8, top - 12, reason.replace("_", " "), _MUTED))
        left += 30 + 7.2 * len(reason)
        parts += [
            f'<circle cx="{x(e.metrics[metric.key]):.1f}" cy="{y(e.metrics["return"]):.1f}" r="3" fill="{color}" '
            'fill-opacity="0.55"/>' for e in finite if e.end_reason == reason
        ]  # fmt: skip
    return parts


def _metric(world: World, aggregate: str) -> Metric:
    return next(metric for metric in world.metrics if metric.aggregate == aggregate)


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _svg(height: float, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" font-family="system-ui, sans-serif" font-size="12">'
    return head + "".join(parts) + "</svg>"


def _horizontal(x: _Axis, y: float, label: str) -> list[str]:
    ticks = [_text(x(value), y + 14, f"{value:g}", _MUTED, "middle") for value in x.ticks()]
    return [_line(_LEFT, y, _WIDTH - _RIGHT, y, _MUTED), *ticks, _text(_WIDTH - _RIGHT, y + 29, label, _MUTED, "end")]


def _vertical(y: _Axis, unit: str) -> list[str]:
    parts = []
    for value in y.ticks():
        parts.append(_line(_LEFT, y(value), _WIDTH - _RIGHT, y(value), _GRID))
        parts.append(_text(_LEFT - 6, y(value) + 4, f"{value:g}{unit}", _MUTED, "end"))
    return parts


def _text(x: float, y: float, text: str, color: str, anchor: str = "start") -> str:
    # A white rim keeps words legible over bars.
    rim = 'stroke="#fff" stroke-width="3" stroke-linejoin="round" paint-order="stroke"'
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" {rim} text-anchor="{anchor}">{html.escape(text)}</text>'


def _line(x0: float, y0: float, x1: float, y1: float, color: str, more: str = "") -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{color}" {more}/>'


def _rectangle(x: float, y: float, width: float, height: float, color: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>'
