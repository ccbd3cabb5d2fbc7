"""Faults injected while an evaluation films: signals, an encoder that dies, a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from racer.core.errors import RacerError
from racer.evaluation.video import remove_partial_videos, video_writer

ROOT = Path(__file__).parents[2]
POLICY = "policies/highway-ppo/checkpoint_4001792"
COMMAND = [sys.executable, "-m", "racer", "evaluate", POLICY, "--num_episodes", "1", "--num_videos", "1"]
FRAME = np.zeros((64, 64, 3), np.uint8)


def begin(folder: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "--video_output_dir", str(folder), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for_film(folder: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not list(folder.glob(".*.partial.mp4")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGHUP, signal.SIGINT))],
)
def test_a_signal_while_filming_leaves_no_half_film(tmp_path: Path, number: signal.Signals) -> None:
    process = begin(tmp_path)
    wait_for_film(tmp_path, process)
    time.sleep(0.3)  # SDL is at work by now
    process.send_signal(number)
    # Within 5 s where two cores are free; the whole film takes longer than this.
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation_metrics.json"]


@pytest.mark.slow
def test_the_next_call_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    process = begin(tmp_path)
    wait_for_film(tmp_path, process)
    process.kill()
    process.communicate(timeout=30)
    assert list(tmp_path.glob(".*.partial.mp4"))
    again = begin(tmp_path, "--env.max_episode_steps=5")
    _, errors = again.communicate(timeout=280)
    assert again.returncode == 0, errors
    assert not list(tmp_path.glob(".*"))


def test_only_half_films_of_dead_processes_are_removed(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead, own = int(ended.stdout), os.getpid()
    for name in (f".a.{dead}.partial.mp4", f".a.{own}.partial.mp4", ".a.1.partial.mp4", "a.mp4", f".b.{9**10}.x.mp4"):
        (tmp_path / name).touch()
    assert [path.name for path in remove_partial_videos(tmp_path)] == [f".a.{dead}.partial.mp4"]


def test_a_killed_encoder_is_one_line(tmp_path: Path) -> None:
    def film() -> None:
        with video_writer(tmp_path / "a.mp4", 10, (64, 64)) as writer:
            writer.send(FRAME)
            os.kill(writer.process_id, signal.SIGKILL)
            for _ in range(1_000):
                writer.send(FRAME)

    with pytest.raises(RacerError, match="was not written: ffmpeg was killed by signal 9"):
        film()
    assert not list(tmp_path.iterdir())


def test_an_encoder_killed_at_the_end_leaves_no_film(tmp_path: Path) -> None:
    def film() -> None:
        with video_writer(tmp_path / "a.mp4", 10, (64, 64)) as writer:
            writer.send(FRAME)
            os.kill(writer.process_id, signal.SIGKILL)

    with pytest.raises(RacerError, match="killed by signal 9"):
        film()
    assert not list(tmp_path.iterdir())


def test_an_encoder_out_of_space_costs_the_film_and_nothing_else(tmp_path: Path) -> None:
    small = tmp_path / "ffmpeg"
    small.write_text(f'#!/bin/sh\ntrap "" XFSZ\nulimit -f 8\nexec {imageio_ffmpeg.get_ffmpeg_exe()} "$@"\n')
    small.chmod(0o755)
    folder = tmp_path / "out"
    process = begin(folder, "--env.max_episode_steps=10", IMAGEIO_FFMPEG_EXE=str(small))
    out, errors = process.communicate(timeout=280)
    assert process.returncode == 1
    lines = errors.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: video ")
    assert "Mean return" in out
    assert json.loads((folder / "evaluation_metrics.json").read_text())["aggregate"]
    assert [path.name for path in folder.iterdir()] == ["evaluation_metrics.json"]
