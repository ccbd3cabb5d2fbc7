"""Drawing with Pillow and its built-in font, so that a picture looks the same on every machine.

A canvas draws at twice its size and is scaled down in the end, which smooths lines and bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "AMBER", "BACKGROUND", "BLUE", "CARD", "GREEN", "HEADER", "MUTED", "RED", "TEXT", "TRACK", "Box", "Canvas", "Color",
    "font",
]  # fmt: skip

SUPERSAMPLING = 2

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in final pixels."""

BACKGROUND: Color = (16, 20, 27)
CARD: Color = (25, 31, 41)
HEADER: Color = (9, 12, 17)
TEXT: Color = (235, 240, 246)
MUTED: Color = (139, 151, 167)
TRACK: Color = (46, 55, 69)
GREEN: Color = (76, 195, 122)
BLUE: Color = (84, 160, 255)
AMBER: Color = (245, 179, 66)
RED: Color = (239, 83, 80)


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font, ``size`` pixels high."""
    return ImageFont.load_default(size)


class Canvas:
    """Drawing in final pixels on a surface ``SUPERSAMPLING`` times as large."""

    def __init__(self, width: int, height: int, color: Color) -> None:
        self.width, self.height = width, height
        self._image = Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING), color)
        self._draw = ImageDraw.Draw(self._image)

    def box(self, box: Box, color: Color, radius: float = 0.0) -> None:
        """Fill a rectangle; one thinner than half a pixel is left out."""
        left, top, right, bottom = box
        if right - left >= 0.5 and bottom - top >= 0.5:
            scaled = [value * SUPERSAMPLING for value in box]
            self._draw.rounded_rectangle(scaled, radius * SUPERSAMPLING, fill=color)

    def line(self, points: Sequence[tuple[float, float]], color: Color, width: float) -> None:
        """Draw a line through points (x, y)."""
        scaled = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]
        self._draw.line(scaled, fill=color, width=max(1, round(width * SUPERSAMPLING)), joint="curve")

    def text(self, x: float, y: float, text: str, size: int, color: Color = TEXT, anchor: str = "ls") -> None:
        """Write ``text`` at a point, by Pillow's anchors: "ls" is left and baseline, "rs" right, "ms" middle."""
        scale = SUPERSAMPLING
        self._draw.text((x * scale, y * scale), text, font=font(size * scale), fill=color, anchor=anchor)

    def cards(self, shares: Sequence[float], gap: float = 12.0) -> list[Box]:
        """Draw cards side by side over the whole canvas, ``shares`` of its width each; returns their boxes."""
        room, left, boxes = self.width - gap * (len(shares) + 1), gap, []
        for share in shares:
            boxes.append((left, gap, left + room * share, self.height - gap))
            self.box(boxes[-1], CARD, 10)
            left += room * share + gap
        return boxes

    def label(self, box: Box, text: str) -> None:
        """Write a card's heading."""
        self.text(box[0] + 16, box[1] + 26, text, 15, MUTED)

    def bar(self, box: Box, value: float, low: float, high: float, color: Color) -> None:
        """Draw a bar from zero (or the nearest end of the range) to ``value``, on a track from ``low`` to ``high``."""
        left, top, right, bottom = box
        self.box(box, TRACK, 3)
        scale = (right - left) / (high - low)
        zero = left + (min(max(0.0, low), high) - low) * scale
        end = left + (min(max(value, low), high) - low) * scale
        self.box((min(zero, end), top, max(zero, end), bottom), color, 3)
        if low < 0.0 < high:
            self.box((zero - 0.75, top - 3, zero + 0.75, bottom + 3), MUTED)

    def curve(self, box: Box, values: Sequence[float], steps: int, color: Color, name: str) -> None:
        """Draw ``values`` over time, with room for ``steps`` of them (as many as there are, if that is more)."""
        left, top, right, bottom = box
        self.box(box, BACKGROUND, 4)
        low, high = min([0.0, *values]), max([1.0, *values])
        span, room = max(high - low, 1e-6), max(steps, len(values), 1)
        points = [
            (left + 4 + (right - left - 8) * (i + 1) / room, bottom - 5 - (bottom - top - 10) * (value - low) / span)
            for i, value in enumerate(values)
        ]
        if len(points) > 1:
            self.line(points, color, 2.0)
        if points:
            x, y = points[-1]
            self.box((x - 3, y - 3, x + 3, y + 3), color, 3)
        self.text(right - 8, bottom - 7, name, 12, MUTED, "rs")
        self.text(right - 8, top + 14, f"max {round(max(values), 1) + 0.0:.1f}" if values else "", 12, MUTED, "rs")

    def finish(self) -> Image.Image:
        """Return the picture at its final size."""
        return self._image.resize((self.width, self.height), Image.Resampling.BOX)
