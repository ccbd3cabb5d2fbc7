"""Pictures of trials: the road with "Trial k / K" and the type of traffic on it, and a panel of how each trial went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from racer.core.drawing import AMBER, BLUE, GREEN, HEADER, MUTED, RED, TEXT, Canvas, Color, font
from racer.envs.highway.film import choice_name
from racer.envs.world import Step

__all__ = ["DRAWING", "arm_name", "overlaid", "panel"]

DRAWING: Mapping[str, Any] = {
    "screen_width": 1280,
    "screen_height": 240,
    "scaling": 8.0,
    "centering_position": [0.35, 0.5],
    "offscreen_rendering": True,
}

OVERLAY = 30
"""Pixels of the strip above the road."""

ENDS: tuple[tuple[str, str, Color], ...] = (
    ("goal_reached", "reached", GREEN),
    ("crashed", "crashed", RED),
    ("missed", "missed the lane", AMBER),
    ("timed_out", "timed out", AMBER),
)


def arm_name(scene: str, arm: int) -> str:
    """Say what is special about a type of traffic, as people count: from 1."""
    return f"lane {arm + 1} counts" if scene == "hidden_lane" else f"gap {arm + 1} opens"


def overlaid(frame: NDArray[np.uint8], trial: int, trials: int, scene: str, arm: int) -> NDArray[np.uint8]:
    """Return a frame ``[H, W, 3]`` under a strip that names the trial (counted from 0) and the type of traffic."""
    height, width = frame.shape[:2]
    picture = Image.new("RGB", (width, height + OVERLAY), HEADER)
    picture.paste(Image.fromarray(np.ascontiguousarray(frame)), (0, OVERLAY))
    draw = ImageDraw.Draw(picture)
    draw.text((12, OVERLAY // 2), f"Trial {trial + 1} / {trials}", font=font(19), fill=TEXT, anchor="lm")
    words = f"{scene.replace('_', ' ')}: {arm_name(scene, arm)}"
    draw.text((width - 12, OVERLAY // 2), words, font=font(17), fill=MUTED, anchor="rm")
    return np.asarray(picture, np.uint8)


def panel(canvas: Canvas, steps: Sequence[Step], full_episode: int, config: Mapping[str, Any]) -> None:
    """Draw this step's numbers, how each trial went, and the return; see :class:`racer.envs.world.Film`."""
    numbers, trials, curve = canvas.cards((0.2, 0.3, 0.5))
    canvas.label(numbers, "This step")
    canvas.label(trials, "Trials")
    canvas.label(curve, "Return so far")
    left, top, right, bottom = numbers
    if steps:
        last = steps[-1]
        discrete = config["actions"] == "choices"
        action = (
            choice_name(last.action, {"type": "DiscreteMetaAction"})
            if discrete
            else ", ".join(f"{value:+.2f}" for value in np.ravel(last.action))
        )
        rows = (("speed", f"{last.info['speed']:.1f} m/s"), ("reward", f"{last.reward:+.3f}"), ("action", action))
        for number, (name, text) in enumerate(rows):
            canvas.text(left + 16, top + 70 + 50 * number, name, 15, MUTED)
            canvas.text(right - 16, top + 70 + 50 * number, text, 20, TEXT, "rs")
    _trial_rows(canvas, trials, steps, int(config["k_scenarios"]))
    left, top, right, bottom = curve
    canvas.text(left + 16, top + 66, f"{steps[-1].episode_return:.2f}" if steps else "-", 34)
    returns = [step.episode_return for step in steps]
    canvas.curve((left + 16, top + 84, right - 16, bottom - 14), returns, full_episode, BLUE, "return")


def _trial_rows(canvas: Canvas, box: tuple[float, float, float, float], steps: Sequence[Step], trials: int) -> None:
    """Write how the last trials went; as many as there is room for."""
    left, top, right, bottom = box
    # An ego's own ends: the trial of one that is done early ends later, in limbo.
    ended = [step for step in steps if any(step.info[name] for name, _, _ in ENDS)]
    room = int((bottom - top - 60) // 32)
    first = max(0, min(len(ended) + 1, trials) - room)
    for row, k in enumerate(range(first, min(trials, first + room))):
        y = top + 62 + 32 * row
        canvas.text(left + 16, y, f"trial {k + 1}", 17, MUTED)
        if k < len(ended):
            words, color = next((w, c) for name, w, c in ENDS if ended[k].info[name])
        else:
            words, color = ("running", TEXT) if k == len(ended) else ("-", MUTED)
        canvas.text(right - 16, y, words, 19, color, "rs")
