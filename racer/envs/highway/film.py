"""How the highway is filmed: the road, and below it a panel with the numbers of this very moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from PIL import Image, ImageDraw

from racer.core.drawing import AMBER, BLUE, GREEN, MUTED, RED, TEXT, TRACK, Box, Canvas, Color
from racer.envs.highway.config import action_names
from racer.envs.highway.geometry import VEHICLE_LENGTH, VEHICLE_WIDTH
from racer.envs.world import Film, Step

__all__ = ["FILM", "choice_name", "mark", "panel", "reward_rows"]

TTC_DANGER, TTC_CAUTION = 2.0, 4.0
"""Seconds: below the first the safety reward starts to punish; the second is a common comfort limit."""

META_ACTIONS: Mapping[tuple[bool, bool], tuple[str, ...]] = {
    (True, True): ("lane left", "idle", "lane right", "faster", "slower"),
    (True, False): ("slower", "idle", "faster"),
    (False, True): ("lane left", "idle", "lane right"),
}
"""Names of highway-env's DiscreteMetaAction by (longitudinal, lateral); highway_env/envs/common/action.py."""


def panel(canvas: Canvas, steps: Sequence[Step], full_episode: int, config: Mapping[str, Any]) -> None:
    """Draw speed and actions, the parts of the reward, safety, and curves; see :class:`racer.envs.world.Film`."""
    speed, reward, safety, curves = canvas.cards((0.19, 0.27, 0.17, 0.37))
    canvas.label(speed, "Forward speed")
    canvas.label(reward, "Reward of this step")
    canvas.label(safety, "Time to collision in cone")
    canvas.label(curves, "Return so far")
    if steps:
        _speed_card(canvas, speed, steps[-1], config)
        _reward_card(canvas, reward, steps[-1], config)
        _safety_card(canvas, safety, steps[-1])
    left, top, right, bottom = curves
    canvas.text(left + 16, top + 66, f"{steps[-1].episode_return:.2f}" if steps else "-", 34)
    middle = (top + bottom) / 2 + 34
    returns = [step.episode_return for step in steps]
    speeds = [float(step.info["forward_speed"]) for step in steps]
    canvas.curve((left + 16, top + 84, right - 16, middle - 6), returns, full_episode, BLUE, "return")
    below = (left + 16, middle + 10, right - 16, bottom - 14)
    canvas.curve(below, speeds, full_episode, GREEN, "forward speed, m/s")


def choice_name(action: Any, config: Mapping[str, Any]) -> str:
    """Name a discrete action of an environment with the action configuration ``config``."""
    axes = bool(config.get("longitudinal", True)), bool(config.get("lateral", True))
    names = META_ACTIONS.get(axes, ()) if config.get("type") == "DiscreteMetaAction" else ()
    number = int(action)
    return names[number] if number < len(names) else f"choice {number}"


def reward_rows(step: Step, config: Mapping[str, Any]) -> list[tuple[str, float, bool]]:
    """Return name, value and whether to mute it, for the parts of a step's reward as they enter the sum, and for it."""
    parts = {key: float(value) for key, value in step.info["reward_components"].items()}
    rows = [("base reward", parts["base_reward"], False)]
    if config["reward"] == "training":
        weight = float(config["speed_weight"])
        if not parts.get("offroad_penalty"):
            # Five rows are all that fit, and a car off the road is not paid for its speed.
            rows.append(("speed term, taken out", -weight * parts["original_speed"], True))
            rows.append(("forward speed, put in", weight * parts["forward_speed"], False))
        rows.append(("safety", float(config["safety_coeff"]) * parts["safety_reward"], False))
    if parts.get("offroad_penalty"):
        rows.append(("off the road", parts["offroad_penalty"], False))
    return [*rows, ("training reward", step.reward, False)]


def _signed(value: float, digits: int) -> str:
    """Format with a sign, and zero without one."""
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}" if rounded else f"{0.0:.{digits}f}"


def _speed_card(canvas: Canvas, box: Box, step: Step, config: Mapping[str, Any]) -> None:
    left, top, right, _ = box
    forward = float(step.info["forward_speed"])
    canvas.text(left + 16, top + 72, f"{forward:.1f}", 40, TEXT)
    canvas.text(right - 16, top + 72, "m/s", 18, MUTED, "rs")
    canvas.bar((left + 16, top + 84, right - 16, top + 94), forward, 0.0, 45.0, RED if forward < 0 else GREEN)
    canvas.text(left + 16, top + 124, "speed", 15, MUTED)
    canvas.text(right - 16, top + 124, f"{step.info['speed']:.1f} m/s", 16, TEXT, "rs")
    y = top + 156
    if np.ndim(step.action) == 0:
        canvas.text(left + 16, y, "action", 15, MUTED)
        canvas.text(left + 16, y + 32, choice_name(step.action, config["action"]), 24, BLUE)
        return
    for name, value in zip(action_names(config["action"]), step.action, strict=True):
        canvas.text(left + 16, y, name, 15, MUTED)
        canvas.text(right - 16, y, _signed(float(value), 2), 16, TEXT, "rs")
        canvas.bar((left + 16, y + 9, right - 16, y + 17), float(value), -1.0, 1.0, BLUE)
        y += 50


def _reward_card(canvas: Canvas, box: Box, step: Step, config: Mapping[str, Any]) -> None:
    left, top, right, _ = box
    y = top + 62
    for name, value, muted in reward_rows(step, config):
        strong = name == "training reward"
        color = MUTED if muted else RED if value < 0 else BLUE if strong else GREEN
        if strong:
            canvas.line([(left + 16, y - 21), (right - 16, y - 21)], MUTED, 1.0)
        canvas.text(left + 16, y, name, 16 if strong else 15, TEXT if strong else MUTED)
        canvas.text(right - 16, y, _signed(value, 3), 16, TEXT, "rs")
        canvas.bar((left + 16, y + 8, right - 16, y + 15), value, -1.0, 1.0, color)
        y += 43


def _safety_card(canvas: Canvas, box: Box, step: Step) -> None:
    left, top, right, bottom = box
    ttc, nearest = float(step.info["time_to_collision"]), float(step.info["min_distance"])
    closing = math.isfinite(ttc)
    color = _danger(ttc)
    if closing:
        canvas.text(left + 16, top + 72, f"{min(ttc, 999.0):.1f}", 40, color)
        canvas.text(right - 16, top + 72, "s", 18, MUTED, "rs")
    else:
        canvas.text(left + 16, top + 66, "none closing", 22, color)
    closeness = 1.0 - min(ttc, 10.0) / 10.0 if closing else 0.0
    canvas.bar((left + 16, top + 84, right - 16, top + 94), closeness, 0.0, 1.0, color)
    car = step.info.get("closing_car")
    if car is not None:
        canvas.text(left + 16, top + 116, f"of the {car.words()}", 14, TEXT)
    canvas.text(left + 16, top + 150, "nearest vehicle", 15, MUTED)
    canvas.text(left + 16, top + 180, f"{nearest:.1f} m" if math.isfinite(nearest) else "none seen", 24)
    safety = float(step.info["reward_components"].get("safety_reward", 0.0))
    danger = closing and ttc < TTC_DANGER
    words, shade = ("SAFETY VIOLATION", RED) if safety < 0 else ("closing fast", AMBER) if danger else ("safe", GREEN)
    canvas.box((left + 16, bottom - 52, right - 16, bottom - 18), TRACK if safety >= 0 else shade, 6)
    canvas.text((left + right) / 2, bottom - 30, words, 15, shade if safety >= 0 else TEXT, "ms")


def _danger(ttc: float) -> Color:
    """Return the colour of a time to collision (s)."""
    return GREEN if ttc >= TTC_CAUTION else AMBER if ttc >= TTC_DANGER else RED


def mark(frame: Image.Image, step: Step, share: float, config: Mapping[str, Any]) -> None:
    """Draw a ring around the car that the time to collision is that of; see :class:`racer.envs.world.Film`."""
    car = step.info.get("closing_car")
    if car is None:
        return
    across, down = config["centering_position"]
    meters = [start + (end - start) * share for start, end in zip(car.before, car.place, strict=True)]
    x, y = (
        part * size + meter * config["scaling"]
        for part, size, meter in zip((across, down), frame.size, meters, strict=True)
    )
    wide, high = (config["scaling"] * (size / 2 + 0.8) for size in (VEHICLE_LENGTH, VEHICLE_WIDTH))
    color = _danger(float(step.info["time_to_collision"]))
    ImageDraw.Draw(frame).rounded_rectangle((x - wide, y - high, x + wide, y + high), high, outline=color, width=3)


def _make(config: Mapping[str, Any]) -> gymnasium.Env:
    from racer.envs.highway.closing import FilmedHighwayEnv

    return FilmedHighwayEnv(config, render_mode="rgb_array_list")


def _clock(config: Mapping[str, Any]) -> tuple[float, int]:
    frequency = float(config["policy_frequency"])
    return 1.0 / frequency, min(math.ceil(config["duration"] * frequency), int(config["max_episode_steps"]))


FILM = Film(
    make=_make,
    clock=_clock,
    # For a road view as wide as the video.
    video={
        "screen_width": 1280,
        "screen_height": 280,
        "scaling": 10.0,
        "centering_position": [0.3, 0.5],
        "offscreen_rendering": True,
    },
    still={
        "screen_width": 480,
        "screen_height": 230,
        "scaling": 8.0,
        "centering_position": [0.3, 0.5],
        "offscreen_rendering": True,
    },
    panel=panel,
    mark=mark,
    ends={"collision": ("COLLISION", RED), "off_road": ("OFF THE ROAD", AMBER)},
)
