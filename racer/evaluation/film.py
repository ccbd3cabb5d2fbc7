"""Films of evaluation episodes: H.264 in mp4, in real time, from all frames that the world draws.

A picture is a header, the world's frame, and below it a panel with the numbers of this moment, drawn once per step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from PIL import Image, ImageDraw

from racer.core.drawing import BACKGROUND, BLUE, GREEN, HEADER, MUTED, TEXT, TRACK, Canvas, Color, font
from racer.envs.world import Film, Step
from racer.evaluation.checkpoints import TrainedPolicy
from racer.evaluation.episodes import EpisodeResult, EvaluationStep, run_episode
from racer.evaluation.video import remove_partial_videos, video_writer

__all__ = ["PANEL_HEIGHT", "Caption", "Pictures", "film_episodes", "record"]

WIDTH = 1280
PANEL_HEIGHT = 288
HEADER_HEIGHT = 44
TALLEST_FRAME = 720
"""Higher frames are made smaller, so that the panel stays on the screen."""

USUAL_FPS = 30.0
"""Frames per second of a world that does not say."""

HOLD_SECONDS = 1.0
"""How long the end of an episode stays on screen."""


@dataclass(frozen=True)
class Caption:
    """What the header says of an episode."""

    policy: str
    episode: int
    seed: int


class Pictures:
    """Composes the pictures of one episode.

    Args:
        film: of the world.
        config: the world's whole configuration.
        caption: for the header.
    """

    def __init__(self, film: Film, config: Mapping[str, Any], caption: Caption) -> None:
        self._film, self._config, self._caption = film, config, caption
        self._step_seconds, self._full_episode = film.clock(config)
        self.steps: list[EvaluationStep] = []
        self._panel = self._draw_panel()

    def push(self, step: EvaluationStep) -> None:
        """Show the numbers of a new step from now on."""
        self.steps.append(step)
        self._panel = self._draw_panel()

    def compose(
        self, frame: np.ndarray, time: float, end_reason: str | None = None, share: float = 1.0
    ) -> np.ndarray:
        """Return the picture ``[H, W, 3]`` uint8 (even sizes) for a frame ``[h, w, 3]`` at ``time`` s.

        Of the newest step the share ``share`` has passed in the frame.
        """
        view = Image.fromarray(np.ascontiguousarray(frame))
        if self.steps:
            self._film.mark(view, self.steps[-1], share, self._config)
        scale = min(WIDTH / view.width, TALLEST_FRAME / view.height)
        if scale != 1.0:
            view = view.resize((round(view.width * scale), round(view.height * scale)), Image.Resampling.LANCZOS)
        height = HEADER_HEIGHT + view.height + PANEL_HEIGHT
        picture = Image.new("RGB", (WIDTH, height + height % 2), BACKGROUND)
        picture.paste(self._draw_header(time), (0, 0))
        picture.paste(view, ((WIDTH - view.width) // 2, HEADER_HEIGHT))
        picture.paste(self._panel, (0, HEADER_HEIGHT + view.height))
        if end_reason is not None:
            self._draw_end(picture, view.height, time, end_reason)
        return np.asarray(picture)

    def _draw_header(self, time: float) -> Image.Image:
        canvas, caption = Canvas(WIDTH, HEADER_HEIGHT, HEADER), self._caption
        canvas.text(20, 29, caption.policy, 19)
        canvas.text(WIDTH / 2, 29, f"episode {caption.episode}    seed {caption.seed}", 17, MUTED, "ms")
        canvas.text(WIDTH - 20, 29, f"{time:5.1f} s", 19, TEXT, "rs")
        limit = self._full_episode * self._step_seconds
        canvas.box((0, HEADER_HEIGHT - 3, WIDTH, HEADER_HEIGHT), TRACK)
        canvas.box((0, HEADER_HEIGHT - 3, WIDTH * min(1.0, time / limit) if limit else 0.0, HEADER_HEIGHT), BLUE)
        return canvas.finish()

    def _draw_end(self, picture: Image.Image, frame_height: int, time: float, reason: str) -> None:
        words, color = end_text(self._film, reason)
        text, letters = f"{words}  at {time:.1f} s", font(34)
        draw = ImageDraw.Draw(picture)
        half = draw.textlength(text, font=letters) / 2 + 34
        x, y = WIDTH / 2, HEADER_HEIGHT + 44
        draw.rounded_rectangle((x - half, y - 32, x + half, y + 32), 12, fill=HEADER, outline=color, width=3)
        draw.text((x, y + 12), text, font=letters, fill=color, anchor="ms")
        draw.rectangle((0, HEADER_HEIGHT, WIDTH - 1, HEADER_HEIGHT + frame_height - 1), outline=color, width=4)

    def _draw_panel(self) -> Image.Image:
        canvas = Canvas(WIDTH, PANEL_HEIGHT, BACKGROUND)
        (self._film.panel or draw_return)(canvas, self.steps, self._full_episode, self._config)
        return canvas.finish()


def draw_return(canvas: Canvas, steps: Sequence[Step], full_episode: int, config: Mapping[str, Any]) -> None:
    """Draw what every world has: the last step's action and reward, and the return so far."""
    numbers, curve = canvas.cards((0.25, 0.75))
    canvas.label(numbers, "This step")
    canvas.label(curve, "Return so far")
    left, top, right, bottom = numbers
    if steps:
        action = ", ".join(f"{value:.2f}".removesuffix(".00") for value in np.ravel(steps[-1].action)[:6])
        for y, name, text in ((66, "step", str(steps[-1].index)), (116, "reward", f"{steps[-1].reward:.3f}")):
            canvas.text(left + 16, top + y, name, 15, MUTED)
            canvas.text(right - 16, top + y, text, 24, TEXT, "rs")
        canvas.text(left + 16, top + 166, "action", 15, MUTED)
        canvas.text(left + 16, top + 198, action, 20, BLUE)
    left, top, right, bottom = curve
    canvas.text(left + 16, top + 66, f"{steps[-1].episode_return:.2f}" if steps else "-", 34)
    returns = [step.episode_return for step in steps]
    canvas.curve((left + 16, top + 84, right - 16, bottom - 14), returns, full_episode, BLUE, "return")


def end_text(film: Film, reason: str) -> tuple[str, Color]:
    """Words and colour of an episode's end."""
    usual = {"time_limit": ("TIME LIMIT REACHED", GREEN), **film.ends}
    return usual.get(reason, (reason.replace("_", " ").upper(), MUTED))


def record(path: Path, env: gymnasium.Env, steps: Iterable[EvaluationStep], pictures: Pictures) -> EpisodeResult:
    """Film an episode while it runs.

    Args:
        path: of the mp4 file.
        env: that the steps are of, from :attr:`racer.envs.world.Film.make`.
        steps: :func:`racer.evaluation.episodes.run_episode` on it.
        pictures: what the frames become.

    Returns:
        The episode, with the numbers that :func:`racer.evaluation.episodes.evaluate_policy` finds for the same seed.
    """
    fps = float(env.metadata.get("render_fps", USUAL_FPS))
    shots = _shots(env, steps, pictures, fps)
    first = next(shots)
    with video_writer(path, fps, (first.shape[1], first.shape[0])) as writer:
        for picture in itertools.chain([first], shots):
            writer.send(picture)
    result = pictures.steps[-1].result
    assert result is not None
    return result


def _shots(
    env: gymnasium.Env, steps: Iterable[EvaluationStep], pictures: Pictures, fps: float
) -> Iterator[np.ndarray]:
    """Run the episode and compose each of its frames; the last one stands still for a while."""
    count = 0
    for step in steps:
        pictures.push(step)
        frames: Any = env.render()  # all since the last call: of the first step, the reset's too
        unpassed = 0 if count else 1
        for number, frame in enumerate(frames, 1 - unpassed):
            yield pictures.compose(frame, count / fps, share=number / max(len(frames) - unpassed, 1))
            count += 1
        if step.result is not None:
            end = pictures.compose(frames[-1], (count - 1) / fps, step.result.end_reason)
            yield from itertools.repeat(end, math.ceil(fps * HOLD_SECONDS))


def film_episodes(
    trained: TrainedPolicy,
    env_config: Mapping[str, Any],
    seeds: Sequence[int],
    folder: Path,
    *,
    deterministic: bool = True,
    what: str = "episode",
    on_episode: Callable[[EpisodeResult], None] = lambda episode: None,
) -> list[tuple[Path, EpisodeResult]]:
    """Film the episode of each seed as ``{world}_eval_{checkpoint}_{what}_{i}.mp4`` in ``folder``.

    Returns:
        Each file with the episode that it shows.

    Raises:
        UsageError: the world cannot be filmed.
        RacerError: the encoder failed.
    """
    remove_partial_videos(folder)
    films: list[tuple[Path, EpisodeResult]] = []
    if not seeds:
        return films
    world, film = trained.world, trained.world.get_film()
    config = world.resolve({**env_config, **film.video})
    world = world.fitted(config)
    env = film.make(config)
    name = " / ".join(part for part in trained.path.parts[-2:] if part)
    try:
        for i, seed in enumerate(seeds):
            path = folder / f"{world.file_name}_eval_{trained.name}_{what}_{i}.mp4"
            steps = run_episode(trained.policy, trained.params, world, env, seed, deterministic=deterministic)
            episode = record(path, env, steps, Pictures(film, config, Caption(name, i, seed)))
            on_episode(episode)
            films.append((path, episode))
    finally:
        env.close()
    return films
