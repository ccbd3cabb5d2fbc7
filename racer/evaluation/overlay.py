"""The picture of a video: the road above, a panel with the numbers of this very moment below.

Drawn with Pillow and its built-in font, so that it looks the same on every machine. The panel is drawn once per
policy step at twice its size and scaled down, which smooths lines and bars; the clock changes with every frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["EpisodeTitle", "Overlay", "StepView", "end_text", "reward_rows"]

WIDTH = 1280
PANEL_HEIGHT = 288
HEADER_HEIGHT = 44
SUPERSAMPLING = 2

BACKGROUND = (16, 20, 27)
CARD = (25, 31, 41)
HEADER = (9, 12, 17)
TEXT = (235, 240, 246)
MUTED = (139, 151, 167)
TRACK = (46, 55, 69)
GREEN = (76, 195, 122)
BLUE = (84, 160, 255)
AMBER = (245, 179, 66)
RED = (239, 83, 80)

TTC_DANGER, TTC_CAUTION = 2.0, 4.0
"""Seconds: below the first the safety reward starts to punish; the second is a common comfort limit."""

BASE_ROWS = (("base reward", "base_reward"),)
SHAPING_ROWS = (
    ("speed term, taken out", "original_speed"),
    ("forward speed, put in", "forward_speed"),
    ("safety", "safety_reward"),
)
"""Label and component, shown before their weights: the training reward is the weighted sum."""

END_STYLES = {
    "collision": ("COLLISION", RED),
    "off_road": ("OFF THE ROAD", AMBER),
    "time_limit": ("TIME LIMIT REACHED", GREEN),
}

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class EpisodeTitle:
    """What stands in the header: the policy's name, the episode's number and its seed."""

    policy: str
    episode: int
    seed: int
    time_limit: float


@dataclass(frozen=True)
class StepView:
    """The numbers shown during one policy step.

    Attributes:
        speed: m/s.
        forward_speed: m/s along the road, negative when driving backwards.
        reward: what the agent is given for the step.
        shaped: whether the environment's reward is the shaped one; else it is highway-env's own.
        reward_components: the environment's components by name.
        time_to_collision: s, inf when nothing closes.
        min_distance: m to the nearest observed vehicle, inf when there is none.
        episode_return: sum of training rewards so far.
        actions: by the environment's names, each in [-1, 1]; empty where the action is a choice.
        choice: the name of the choice, or empty.
    """

    speed: float
    forward_speed: float
    reward: float
    shaped: bool
    reward_components: Mapping[str, float]
    time_to_collision: float
    min_distance: float
    episode_return: float
    actions: Mapping[str, float]
    choice: str = ""


def end_text(reason: str) -> tuple[str, Color]:
    """Words and colour of an episode's end."""
    return END_STYLES.get(reason, (reason.replace("_", " ").upper(), MUTED))


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


class _Canvas:
    """Drawing in final pixels on a surface ``SUPERSAMPLING`` times as large."""

    def __init__(self, width: int, height: int, color: Color) -> None:
        self.size = (width, height)
        self.image = Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING), color)
        self.draw = ImageDraw.Draw(self.image)

    def scaled(self, values: Sequence[float]) -> list[float]:
        return [value * SUPERSAMPLING for value in values]

    def box(self, box: Box, color: Color, radius: float = 0.0) -> None:
        left, top, right, bottom = box
        if right - left >= 0.5 and bottom - top >= 0.5:
            self.draw.rounded_rectangle(self.scaled(box), radius * SUPERSAMPLING, fill=color)

    def line(self, points: Sequence[tuple[float, float]], color: Color, width: float) -> None:
        flat = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]
        self.draw.line(flat, fill=color, width=max(1, round(width * SUPERSAMPLING)), joint="curve")

    def text(self, x: float, y: float, text: str, size: int, color: Color = TEXT, anchor: str = "ls") -> None:
        font = _font(size * SUPERSAMPLING)
        self.draw.text((x * SUPERSAMPLING, y * SUPERSAMPLING), text, font=font, fill=color, anchor=anchor)

    def finish(self) -> Image.Image:
        return self.image.resize(self.size, Image.Resampling.BOX)


class Overlay:
    """Composes the frames of one episode's video.

    Args:
        title: what the header says.
        policy_period: seconds per policy step, the spacing of the curves' points.
        width: of the video in pixels, even.
    """

    def __init__(self, title: EpisodeTitle, policy_period: float, width: int = WIDTH) -> None:
        self.title = title
        self.policy_period = policy_period
        self.width = width + width % 2
        self._views: list[StepView] = []
        self._panel = self._draw_panel()

    def push(self, view: StepView) -> None:
        """Show the numbers of a new policy step from now on."""
        self._views.append(view)
        self._panel = self._draw_panel()

    def compose(self, frame: np.ndarray, time: float, end_reason: str | None = None) -> np.ndarray:
        """Return the video frame ``[H, W, 3]`` uint8 (even sizes) for a road view ``[h, w, 3]`` at ``time`` s."""
        road = Image.fromarray(np.ascontiguousarray(frame))
        if road.width != self.width:
            height = round(road.height * self.width / road.width)
            road = road.resize((self.width, height), Image.Resampling.LANCZOS)
        height = HEADER_HEIGHT + road.height + PANEL_HEIGHT
        picture = Image.new("RGB", (self.width, height + height % 2), BACKGROUND)
        picture.paste(self._draw_header(time), (0, 0))
        picture.paste(road, (0, HEADER_HEIGHT))
        picture.paste(self._panel, (0, HEADER_HEIGHT + road.height))
        if end_reason is not None:
            self._draw_end(picture, road.height, time, end_reason)
        return np.asarray(picture)

    def _draw_header(self, time: float) -> Image.Image:
        canvas = _Canvas(self.width, HEADER_HEIGHT, HEADER)
        canvas.text(20, 29, self.title.policy, 19)
        middle = f"episode {self.title.episode}    seed {self.title.seed}"
        canvas.text(self.width / 2, 29, middle, 17, MUTED, "ms")
        canvas.text(self.width - 20, 29, f"{time:5.1f} s", 19, TEXT, "rs")
        done = min(1.0, time / self.title.time_limit) if self.title.time_limit > 0 else 0.0
        canvas.box((0, HEADER_HEIGHT - 3, self.width, HEADER_HEIGHT), TRACK)
        canvas.box((0, HEADER_HEIGHT - 3, self.width * done, HEADER_HEIGHT), BLUE)
        return canvas.finish()

    def _draw_end(self, picture: Image.Image, road_height: int, time: float, reason: str) -> None:
        words, color = end_text(reason)
        text = f"{words}  at {time:.1f} s"
        font = _font(34)
        draw = ImageDraw.Draw(picture)
        half = draw.textlength(text, font=font) / 2 + 34
        x, y = self.width / 2, HEADER_HEIGHT + 44
        draw.rounded_rectangle((x - half, y - 32, x + half, y + 32), 12, fill=HEADER, outline=color, width=3)
        draw.text((x, y + 12), text, font=font, fill=color, anchor="ms")
        draw.rectangle((0, HEADER_HEIGHT, self.width - 1, HEADER_HEIGHT + road_height - 1), outline=color, width=4)

    def _draw_panel(self) -> Image.Image:
        canvas = _Canvas(self.width, PANEL_HEIGHT, BACKGROUND)
        gap, top, bottom = 12.0, 12.0, PANEL_HEIGHT - 12.0
        shares = (0.19, 0.27, 0.17, 0.37)
        room = self.width - gap * (len(shares) + 1)
        left = gap
        view = self._views[-1] if self._views else None
        for share, draw in zip(shares, (_speed_card, _reward_card, _safety_card, self._return_card), strict=True):
            box = (left, top, left + room * share, bottom)
            canvas.box(box, CARD, 10)
            draw(canvas, box, view)
            left += room * share + gap
        return canvas.finish()

    def _return_card(self, canvas: _Canvas, box: Box, view: StepView | None) -> None:
        left, top, right, bottom = box
        _label(canvas, box, "Return so far")
        canvas.text(left + 16, top + 66, "-" if view is None else f"{view.episode_return:.2f}", 34)
        speeds = [v.forward_speed for v in self._views]
        returns = [v.episode_return for v in self._views]
        middle = (top + bottom) / 2 + 34
        self._curve(canvas, (left + 16, top + 84, right - 16, middle - 6), returns, BLUE, "return")
        self._curve(canvas, (left + 16, middle + 10, right - 16, bottom - 14), speeds, GREEN, "forward speed, m/s")

    def _curve(self, canvas: _Canvas, box: Box, values: Sequence[float], color: Color, name: str) -> None:
        left, top, right, bottom = box
        canvas.box(box, BACKGROUND, 4)
        low, high = min([0.0, *values]), max([1.0, *values])
        span = max(high - low, 1e-6)
        limit = max(self.title.time_limit, len(values) * self.policy_period, self.policy_period)
        points = [
            (
                left + 4 + (right - left - 8) * (i + 1) * self.policy_period / limit,
                bottom - 5 - (bottom - top - 10) * (value - low) / span,
            )
            for i, value in enumerate(values)
        ]
        if len(points) > 1:
            canvas.line(points, color, 2.0)
        if points:
            x, y = points[-1]
            canvas.box((x - 3, y - 3, x + 3, y + 3), color, 3)
        canvas.text(right - 8, bottom - 7, name, 12, MUTED, "rs")
        canvas.text(right - 8, top + 14, f"max {max(values):.1f}" if values else "", 12, MUTED, "rs")


def _signed(value: float, digits: int) -> str:
    """Format with a sign, and zero without one."""
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}" if rounded else f"{0.0:.{digits}f}"


def _label(canvas: _Canvas, box: Box, text: str) -> None:
    canvas.text(box[0] + 16, box[1] + 26, text, 15, MUTED)


def _bar(canvas: _Canvas, box: Box, value: float, low: float, high: float, color: Color) -> None:
    """A bar from zero (or the nearest end of the range) to ``value``, on a track from ``low`` to ``high``."""
    left, top, right, bottom = box
    canvas.box(box, TRACK, 3)
    scale = (right - left) / (high - low)
    zero = left + (min(max(0.0, low), high) - low) * scale
    end = left + (min(max(value, low), high) - low) * scale
    canvas.box((min(zero, end), top, max(zero, end), bottom), color, 3)
    if low < 0.0 < high:
        canvas.box((zero - 0.75, top - 3, zero + 0.75, bottom + 3), MUTED)


def _speed_card(canvas: _Canvas, box: Box, view: StepView | None) -> None:
    left, top, right, _ = box
    _label(canvas, box, "Forward speed")
    if view is None:
        return
    color = RED if view.forward_speed < 0 else GREEN
    canvas.text(left + 16, top + 72, f"{view.forward_speed:.1f}", 40, TEXT)
    canvas.text(right - 16, top + 72, "m/s", 18, MUTED, "rs")
    _bar(canvas, (left + 16, top + 84, right - 16, top + 94), view.forward_speed, 0.0, 45.0, color)
    canvas.text(left + 16, top + 124, "speed", 15, MUTED)
    canvas.text(right - 16, top + 124, f"{view.speed:.1f} m/s", 16, TEXT, "rs")
    y = top + 156
    for name, value in view.actions.items():
        canvas.text(left + 16, y, name, 15, MUTED)
        canvas.text(right - 16, y, _signed(value, 2), 16, TEXT, "rs")
        _bar(canvas, (left + 16, y + 9, right - 16, y + 17), value, -1.0, 1.0, BLUE)
        y += 50
    if view.choice:
        canvas.text(left + 16, y, "action", 15, MUTED)
        canvas.text(left + 16, y + 32, view.choice, 24, BLUE)


def _reward_card(canvas: _Canvas, box: Box, view: StepView | None) -> None:
    left, top, right, _ = box
    _label(canvas, box, "Reward of this step")
    if view is None:
        return
    y = top + 62
    for name, value, muted in reward_rows(view):
        strong = name == "training reward"
        color = RED if value < 0 else (BLUE if strong else MUTED if muted else GREEN)
        canvas.text(left + 16, y, name, 16 if strong else 15, TEXT if strong else MUTED)
        canvas.text(right - 16, y, _signed(value, 3), 16, TEXT, "rs")
        _bar(canvas, (left + 16, y + 8, right - 16, y + 15), value, -1.0, 1.0, color)
        y += 43


def reward_rows(view: StepView) -> list[tuple[str, float, bool]]:
    """Return name, value and whether to mute it, for the parts that count in this environment and their outcome."""
    parts = view.reward_components
    shown = BASE_ROWS + SHAPING_ROWS if view.shaped else BASE_ROWS
    rows = [(name, float(parts[key]), key == "original_speed") for name, key in shown if key in parts]
    if parts.get("offroad_penalty"):
        # Five rows are all that fit, and a car off the road is not paid for its speed.
        rows = [*rows[:3], ("off the road", float(parts["offroad_penalty"]), False)]
    return [*rows, ("training reward", view.reward, False)]


def _safety_card(canvas: _Canvas, box: Box, view: StepView | None) -> None:
    left, top, right, bottom = box
    _label(canvas, box, "Time to collision")
    if view is None:
        return
    ttc = view.time_to_collision
    closing = math.isfinite(ttc)
    color = GREEN if not closing or ttc >= TTC_CAUTION else (AMBER if ttc >= TTC_DANGER else RED)
    if closing:
        canvas.text(left + 16, top + 72, f"{min(ttc, 999.0):.1f}", 40, color)
        canvas.text(right - 16, top + 72, "s", 18, MUTED, "rs")
    else:
        canvas.text(left + 16, top + 66, "none closing", 22, color)
    closeness = 1.0 - min(ttc, 10.0) / 10.0 if closing else 0.0
    _bar(canvas, (left + 16, top + 84, right - 16, top + 94), closeness, 0.0, 1.0, color)
    canvas.text(left + 16, top + 136, "nearest vehicle", 15, MUTED)
    distance = f"{view.min_distance:.1f} m" if math.isfinite(view.min_distance) else "none seen"
    canvas.text(left + 16, top + 166, distance, 24)
    safety = float(view.reward_components.get("safety_reward", 0.0))
    words, shade = ("SAFETY VIOLATION", RED) if safety < 0 else ("safe", GREEN)
    canvas.box((left + 16, bottom - 52, right - 16, bottom - 18), TRACK if safety >= 0 else shade, 6)
    canvas.text((left + right) / 2, bottom - 30, words, 15, shade if safety >= 0 else TEXT, "ms")
