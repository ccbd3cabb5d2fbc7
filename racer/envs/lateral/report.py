"""Pictures of scores: traces of single routes, a histogram against a reference, one page that needs no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.lateral.rules import FIRST_STEP, STEP
from racer.envs.lateral.scoring import Scores

__all__ = ["histogram_picture", "page", "trace_picture"]

_TARGET, _ACTUAL, _REFERENCE, _STEER = "#e08a00", "#2456a6", "#9aa4b2", "#333a45"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b212b; max-width: 1000px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #dde1e7 }
td:not(:first-child), th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums }
th { text-align: left; font-weight: 600 } img { max-width: 100% } p.note { color: #5a6472 }
"""


def trace_picture(scores: Scores, reference: Scores, place: int) -> bytes:
    """Return a PNG of one route: target and actual lateral acceleration above, steers below.

    Args:
        scores: of what is shown.
        reference: of what stands in grey beside it, on the same routes.
        place: of the route.
    """
    figure, (upper, lower) = _subplots(2, (10.0, 4.8), height_ratios=(2.2, 1.0), sharex=True)
    time = (FIRST_STEP + np.arange(scores.targets.shape[1])) * STEP
    upper.plot(time, reference.lataccels[place], color=_REFERENCE, lw=1.0, label="PID")
    upper.plot(time, scores.targets[place], color=_TARGET, lw=1.6, label="target")
    upper.plot(time, scores.lataccels[place], color=_ACTUAL, lw=1.2, label="actual")
    upper.set_ylabel("lateral acceleration, m/s²")
    upper.legend(frameon=False, ncols=3, loc="upper right", bbox_to_anchor=(1.0, 1.14))
    lower.plot(time, reference.steers[place], color=_REFERENCE, lw=1.0, label="PID")
    lower.plot(time, scores.steers[place], color=_STEER, lw=1.2, label="policy")
    lower.legend(frameon=False, ncols=2, loc="upper right", bbox_to_anchor=(1.0, 1.22))
    lower.set(ylabel="steer", xlabel="time, s", xlim=(time[0], time[-1]))
    return _png(figure)


def histogram_picture(costs: Mapping[str, NDArray[np.float64]]) -> bytes:
    """Return a PNG of how total costs ``[R]`` are spread, by name; the last one in grey."""
    figure, (axis,) = _subplots(1, (10.0, 3.6))
    every = np.concatenate(list(costs.values()))
    low, high = max(float(every.min()), 1e-3), max(float(every.max()), 1e-2)
    edges = np.geomspace(low * 0.95, high * 1.05, 40)
    for (name, values), color in zip(costs.items(), (_ACTUAL, _REFERENCE), strict=False):
        axis.hist(values, edges, color=color, alpha=0.65, label=f"{name}, mean {values.mean():.1f}")
        axis.axvline(values.mean(), color=color, lw=1.5)
    axis.set(xscale="log", xlabel="total cost of a route", ylabel="routes")
    axis.legend(frameon=False)
    return _png(figure)


def page(
    title: str, notes: Sequence[str], table: Sequence[Sequence[Any]], pictures: Sequence[tuple[str, bytes]]
) -> str:
    """Return a page with everything in it.

    Args:
        title: heading.
        notes: paragraphs below it.
        table: rows, the first one being their headings.
        pictures: heading and PNG of each.
    """
    head, *rows = table
    lines = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8">', f"<title>{html.escape(title)}</title>"]
    lines += [f"<style>{_STYLE}</style></head><body>", f"<h1>{html.escape(title)}</h1>"]
    lines += [f'<p class="note">{html.escape(note)}</p>' for note in notes]
    lines.append("<table><tr>" + "".join(f"<th>{html.escape(str(cell))}</th>" for cell in head) + "</tr>")
    lines += ["<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows]
    lines.append("</table>")
    for heading, data in pictures:
        source, name = base64.b64encode(data).decode(), html.escape(heading)
        lines.append(f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{source}">')
    return "\n".join([*lines, "</body></html>"]) + "\n"


def _subplots(count: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    """Return a figure that no screen is needed for, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    sharex = options.pop("sharex", False)
    axes = np.atleast_1d(figure.subplots(count, 1, sharex=sharex, gridspec_kw=options))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
