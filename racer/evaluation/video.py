"""Videos of evaluation episodes: H.264 in mp4, in real time, from all simulation frames."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import imageio_ffmpeg
import numpy as np

from racer.core.errors import UsageError
from racer.evaluation.episodes import ActingPolicy, EpisodeResult, EvaluationStep, run_episode
from racer.evaluation.overlay import EpisodeTitle, Overlay, StepView

__all__ = [
    "VIDEO_ENV_CONFIG",
    "check_encoder",
    "choice_name",
    "record_episode",
    "step_view",
    "video_name",
    "video_writer",
]

VIDEO_ENV_CONFIG: Mapping[str, Any] = {
    "screen_width": 1280,
    "screen_height": 280,
    "scaling": 10.0,
    "centering_position": [0.3, 0.5],
    "offscreen_rendering": True,
}
"""Drawing keys of highway-env for a road view as wide as the video; they change no dynamics."""

HOLD_SECONDS = 1.0
"""How long the end of an episode stays on screen."""


def video_name(checkpoint: str, episode: int) -> str:
    """File name of an episode's video."""
    return f"highway_eval_{checkpoint}_episode_{episode}.mp4"


@contextmanager
def video_writer(path: str | os.PathLike[str], fps: float, size: tuple[int, int]) -> Iterator[Any]:
    """Open an H.264, yuv420p video for frames ``[H, W, 3]`` uint8; ``send`` each frame.

    The file appears under its name only when it is complete; after an error nothing is left.

    Args:
        path: ends in ".mp4".
        fps: frames per second of real time.
        size: (width, height) in pixels, both even (yuv420p halves them for colour).
    """
    if size[0] % 2 or size[1] % 2:
        raise ValueError(f"H.264 in yuv420p needs even sizes, got {size[0]}x{size[1]}")
    target = Path(path)
    partial = target.with_name(f".{target.stem}.{os.getpid()}.partial.mp4")
    writer = imageio_ffmpeg.write_frames(
        str(partial),
        size,
        fps=fps,
        codec="libx264",
        pix_fmt_in="rgb24",
        pix_fmt_out="yuv420p",
        quality=None,
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=["-crf", "21", "-preset", "veryfast", "-movflags", "+faststart"],
    )
    try:
        writer.send(None)
        yield writer
        writer.close()
        os.replace(partial, target)
    finally:
        writer.close()
        partial.unlink(missing_ok=True)


def check_encoder() -> None:
    """Encode two tiny frames, so that a missing or broken ffmpeg is found before any episode is run.

    Raises:
        UsageError: there is no ffmpeg that encodes H.264.
    """
    black = np.zeros((64, 64, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory(prefix="racer-encoder-") as folder:
        path = Path(folder) / "probe.mp4"
        try:
            with video_writer(path, 10, (64, 64)) as writer:
                writer.send(black)
                writer.send(black)
            encoded = path.stat().st_size > 0
        except (OSError, RuntimeError, StopIteration) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UsageError(
                f"no working H.264 video encoder: {reason}; install imageio-ffmpeg, point IMAGEIO_FFMPEG_EXE "
                "at an ffmpeg, or pass --render=false"
            ) from error
    if not encoded:
        raise UsageError("no working H.264 video encoder: ffmpeg wrote an empty file; or pass --render=false")


META_ACTIONS: Mapping[tuple[bool, bool], tuple[str, ...]] = {
    (True, True): ("lane left", "idle", "lane right", "faster", "slower"),
    (True, False): ("slower", "idle", "faster"),
    (False, True): ("lane left", "idle", "lane right"),
}
"""Names of highway-env's DiscreteMetaAction by (longitudinal, lateral); highway_env/envs/common/action.py."""


def choice_name(action: Any, config: Mapping[str, Any]) -> str:
    """Name a discrete action of an environment with the action configuration ``config``."""
    axes = bool(config.get("longitudinal", True)), bool(config.get("lateral", True))
    names = META_ACTIONS.get(axes, ()) if config.get("type") == "DiscreteMetaAction" else ()
    number = int(action)
    return names[number] if number < len(names) else f"choice {number}"


def step_view(step: EvaluationStep, action_names: tuple[str, ...], config: Mapping[str, Any]) -> StepView:
    """Pick what the overlay shows out of a step's info; ``config`` is the environment's."""
    info = step.info
    discrete = np.ndim(step.action) == 0
    return StepView(
        speed=float(info["speed"]),
        forward_speed=float(info["forward_speed"]),
        reward=step.reward,
        shaped=config.get("reward", "training") == "training",
        reward_components={k: float(v) for k, v in info["reward_components"].items()},
        time_to_collision=float(info["time_to_collision"]),
        min_distance=float(info["min_distance"]),
        episode_return=step.episode_return,
        actions={} if discrete else {n: float(v) for n, v in zip(action_names, step.action, strict=True)},
        choice=choice_name(step.action, config.get("action", {})) if discrete else "",
    )


def record_episode(
    path: str | os.PathLike[str],
    policy: ActingPolicy,
    params: Mapping[str, np.ndarray],
    env: gymnasium.Env,
    seed: int,
    *,
    policy_name: str,
    episode: int,
    deterministic: bool = True,
    time_limit: float | None = None,
) -> EpisodeResult:
    """Run the episode of ``seed`` and film it.

    Args:
        path: of the mp4 file.
        policy: as in :func:`racer.evaluation.episodes.evaluate_policy`.
        params: the policy's arrays.
        env: built with ``render_mode="rgb_array_list"``; its ``metadata["render_fps"]`` is the real-time rate.
        seed: of the episode.
        policy_name: shown in the header.
        episode: number shown in the header.
        deterministic: as in the evaluation.
        time_limit: seconds of a full episode, the range of the curves; the environment's ``duration`` where None.

    Returns:
        The episode, with the numbers that :func:`evaluate_policy` finds for the same seed.

    Raises:
        UsageError: the environment was not built for filming.
    """
    if env.render_mode != "rgb_array_list":
        raise UsageError(f"filming needs render_mode 'rgb_array_list', the environment has {env.render_mode!r}")
    fps = float(env.metadata["render_fps"])
    config = getattr(env.unwrapped, "config", {})
    period = 1.0 / float(config.get("policy_frequency", 1))
    limit = float(config.get("duration", 0.0)) if time_limit is None else time_limit
    names = tuple(env.unwrapped.action_names)  # type: ignore[attr-defined]
    overlay = Overlay(EpisodeTitle(policy_name, episode, seed, limit), period)
    steps = run_episode(policy, params, env, seed, deterministic=deterministic)
    first = next(steps)
    frames = _frames(env)
    shown = overlay.compose(frames[0], 0.0)
    with video_writer(path, fps, (shown.shape[1], shown.shape[0])) as writer:
        count = 0
        step: EvaluationStep | None = first
        while step is not None:
            overlay.push(step_view(step, names, config))
            for frame in frames:
                shown = overlay.compose(frame, count / fps)
                writer.send(shown)
                count += 1
            if step.result is not None:
                result, last = step.result, frames[-1]
            step = next(steps, None)
            if step is not None:
                frames = _frames(env)
        shown = overlay.compose(last, (count - 1) / fps, result.end_reason)
        for _ in range(math.ceil(fps * HOLD_SECONDS)):
            writer.send(shown)
    return result


def _frames(env: gymnasium.Env) -> list[np.ndarray]:
    """All frames since the last call."""
    frames: Any = env.render()
    return list(frames)
