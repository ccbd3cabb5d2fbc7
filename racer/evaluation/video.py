"""H.264 films in mp4 files, encoded by ffmpeg in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from racer.core.errors import RacerError, UsageError

__all__ = ["VideoWriter", "check_encoder", "remove_partial_videos", "video_writer"]

_PARTIAL = re.compile(r"\..+\.(\d{1,10})\.partial\.mp4\Z")
_FINISH_SECONDS = 60.0


class VideoWriter:
    """Hands frames ``[H, W, 3]`` uint8 to ffmpeg.

    Args:
        path: of the file that it writes.
        fps: frames per second.
        size: (width, height) in pixels.

    Raises:
        OSError: ffmpeg cannot be started.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
            "-s", f"{size[0]}x{size[1]}", "-r", str(fps), "-i", "-", "-an",
            "-vcodec", "libx264", "-pix_fmt", "yuv420p", "-crf", "21", "-preset", "veryfast",
            "-movflags", "+faststart", str(path),
        ]  # fmt: skip
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the writer
        # A group of its own: Ctrl-C is for the program, which then ends ffmpeg.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said, process_group=0
        )

    @property
    def process_id(self) -> int:
        """Of ffmpeg."""
        return self._process.pid

    def send(self, frame: np.ndarray) -> None:
        """Add a frame.

        Raises:
            RacerError: ffmpeg has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            raise RacerError(self._failure()) from error

    def finish(self) -> None:
        """Let ffmpeg write what it has.

        Raises:
            RacerError: it failed; the file is no film.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            code = self._process.wait(_FINISH_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise RacerError(f"ffmpeg did not finish within {_FINISH_SECONDS:g} s") from error
        if code != 0:
            raise RacerError(self._failure())

    def close(self) -> None:
        """End ffmpeg if it is still there."""
        self._process.kill()
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process.wait()
        self._said.close()

    def _failure(self) -> str:
        """Say why ffmpeg ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._said.seek(0)
        lines = self._said.read(4_096).decode("utf-8", "replace").strip().splitlines()
        code = self._process.returncode
        ending = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        return f"ffmpeg {ending}" + (f": {lines[-1]}" if lines else "")


@contextmanager
def video_writer(path: str | os.PathLike[str], fps: float, size: tuple[int, int]) -> Iterator[VideoWriter]:
    """Open an H.264, yuv420p video for frames ``[H, W, 3]`` uint8; ``send`` each frame.

    The file appears under its name only when it is complete; after an error nothing is left.

    Args:
        path: ends in ".mp4".
        fps: frames per second of real time.
        size: (width, height) in pixels, both even (yuv420p halves them for colour).

    Raises:
        RacerError: the encoder failed, as on a full disk.
    """
    if size[0] % 2 or size[1] % 2:
        raise ValueError(f"H.264 in yuv420p needs even sizes, got {size[0]}x{size[1]}")
    target = Path(path)
    partial = target.with_name(f".{target.stem}.{os.getpid()}.partial.mp4")
    try:
        writer = VideoWriter(partial, fps, size)
    except OSError as error:
        raise RacerError(f"the video encoder cannot be started: {error.strerror or error}") from error
    try:
        yield writer
        writer.finish()
        os.replace(partial, target)
    except RacerError as error:
        raise RacerError(f"video {str(target)!r} was not written: {error}") from error
    finally:
        writer.close()
        partial.unlink(missing_ok=True)


def remove_partial_videos(folder: Path) -> list[Path]:
    """Delete the unfinished videos of processes that were killed; return them. Those of living ones stay."""
    removed = []
    for path in sorted(folder.glob(".*.partial.mp4")):
        found = _PARTIAL.match(path.name)
        if found and int(found[1]) != os.getpid() and not _lives(int(found[1])):
            with contextlib.suppress(OSError):
                path.unlink()
                removed.append(path)
    return removed


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
        except (OSError, RuntimeError, RacerError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UsageError(
                f"no working H.264 video encoder: {reason}; install imageio-ffmpeg, point IMAGEIO_FFMPEG_EXE "
                "at an ffmpeg, or pass --render=false"
            ) from error
    if not encoded:
        raise UsageError("no working H.264 video encoder: ffmpeg wrote an empty file; or pass --render=false")


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
