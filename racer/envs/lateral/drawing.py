"""The picture of an episode: target and actual lateral acceleration above, steer below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from racer.core.drawing import AMBER, BACKGROUND, BLUE, CARD, MUTED, TEXT, TRACK, Box, Canvas, Color
from racer.envs.lateral.rules import MAX_STEER

__all__ = ["draw"]

_WIDTH, _HEIGHT = 960, 400
_UPPER: Box = (12.0, 12.0, 948.0, 262.0)
_LOWER: Box = (12.0, 274.0, 948.0, 388.0)
_LEAST_RANGE = 1.0


def draw(trace: Sequence[tuple[float, float, float]], steps: int) -> NDArray[np.uint8]:
    """Return ``[400, 960, 3]`` uint8.

    Args:
        trace: target, lateral acceleration (m/s^2) and steer of each step so far.
        steps: of the whole episode.
    """
    canvas = Canvas(_WIDTH, _HEIGHT, BACKGROUND)
    values = np.array(trace, float).reshape(-1, 3)
    reach = max(_LEAST_RANGE, float(np.abs(values[:, :2]).max(initial=0.0)) * 1.1)
    for box in (_UPPER, _LOWER):
        canvas.box(box, CARD, 8)
        middle = (box[1] + box[3]) / 2
        canvas.line([(box[0] + 8, middle), (box[2] - 8, middle)], TRACK, 1.0)
    _curve(canvas, _UPPER, values[:, 0], reach, steps, AMBER)
    _curve(canvas, _UPPER, values[:, 1], reach, steps, BLUE)
    _curve(canvas, _LOWER, values[:, 2], MAX_STEER, steps, TEXT)
    canvas.text(_UPPER[0] + 12, _UPPER[1] + 22, "target", 14, AMBER)
    canvas.text(_UPPER[0] + 66, _UPPER[1] + 22, "actual", 14, BLUE)
    canvas.text(_UPPER[2] - 12, _UPPER[1] + 22, f"lateral acceleration, +-{reach:.1f} m/s^2", 13, MUTED, "rs")
    canvas.text(_LOWER[0] + 12, _LOWER[1] + 22, "steer", 14, TEXT)
    canvas.text(_LOWER[2] - 12, _LOWER[1] + 22, f"+-{MAX_STEER:g}", 13, MUTED, "rs")
    return np.asarray(canvas.finish(), np.uint8)


def _curve(canvas: Canvas, box: Box, values: NDArray[np.float64], reach: float, steps: int, color: Color) -> None:
    left, top, right, bottom = box
    middle, half = (top + bottom) / 2, (bottom - top) / 2 - 8
    points = [
        (left + 8 + (right - left - 16) * (i + 1) / max(steps, 1), middle - half * float(np.clip(v / reach, -1, 1)))
        for i, v in enumerate(values)
    ]
    if len(points) > 1:
        canvas.line(points, color, 1.5)
