"""Films of a world that says nothing of how it is drawn but its frames."""

import imageio_ffmpeg
import numpy as np
import pytest
from evaluation_standins import (
    COUNTING,
    FEEDBACK_PARAMS,
    FRAMES_PER_STEP,
    POLICY_HZ,
    CountingEnv,
    FeedbackPolicy,
)

from racer.core.errors import UsageError
from racer.envs.world import World
from racer.evaluation.episodes import run_episode
from racer.evaluation.film import PANEL_HEIGHT, Caption, Pictures, record
from racer.evaluation.video import check_encoder, video_writer

FPS = POLICY_HZ * FRAMES_PER_STEP
SEED = 10_003  # an odd seed: ends in a fall, after 4 + 3 steps

def read_video(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    frames = [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader]
    return meta, frames


def steps_of(env):
    return run_episode(FeedbackPolicy(), FEEDBACK_PARAMS, COUNTING, env, SEED)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "film.mp4"
    env = CountingEnv("rgb_array_list")
    result = record(path, env, steps_of(env), Pictures(COUNTING.film, {}, Caption("checkpoint_7", 0, SEED)))
    return path, result, *read_video(path)


def test_video_is_h264_with_even_sizes_at_real_time(recorded):
    _, result, meta, frames = recorded
    assert meta["codec"] == "h264"
    assert meta["pix_fmt"].startswith("yuv420p")
    assert meta["fps"] == FPS
    assert meta["size"][0] % 2 == meta["size"][1] % 2 == 0
    # The frame after the reset, three a step, and the end held for a second.
    assert len(frames) == 1 + FRAMES_PER_STEP * int(result.metrics["length"]) + FPS
    driven = result.metrics["length"] / POLICY_HZ
    assert meta["duration"] == pytest.approx(driven + 1.0, abs=2.0 / FPS)


def test_video_shows_the_episode_of_the_evaluation(recorded):
    assert recorded[1] == list(steps_of(CountingEnv()))[-1].result


def test_video_changes_while_driving_and_stands_still_at_the_end(recorded):
    frames = recorded[3]

    def change(first: int, second: int, rows: slice) -> int:
        return int(np.abs(frames[first].astype(int) - frames[second])[rows].max())

    panel, above = slice(-PANEL_HEIGHT, None), slice(None, -PANEL_HEIGHT)
    # Light text on a dark panel: a number that changes is a difference of most of the range.
    assert change(1, 1 + 4 * FRAMES_PER_STEP, panel) > 128
    assert change(-FPS, -1, panel) < 64
    assert change(-FPS - 1, -1, above) > 128  # the banner
    assert change(-FPS, -1, above) < 64


def test_nothing_is_left_of_a_video_that_failed(tmp_path):
    frame = np.zeros((64, 64, 3), np.uint8)

    def film_and_fail():
        with video_writer(tmp_path / "a.mp4", 10, (64, 64)) as writer:
            writer.send(frame)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        film_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_odd_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="even"), video_writer(tmp_path / "a.mp4", 10, (63, 64)):
        pass


def test_a_world_without_pictures_is_named():
    with pytest.raises(UsageError, match=r"'blind' cannot be filmed.*render=false"):
        World("blind", dict, lambda config, num_envs: None).get_film()


def test_missing_encoder_is_found_beforehand(monkeypatch, tmp_path):
    check_encoder()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-such-ffmpeg"))
    with pytest.raises(UsageError, match=r"encoder.*render=false"):
        check_encoder()


def test_frames_of_any_shape_fit_the_picture():
    pictures = Pictures(COUNTING.film, {}, Caption("p", 0, SEED))
    for shape in ((400, 600, 3), (500, 500, 3), (35, 1001, 3)):
        picture = pictures.compose(np.full(shape, 100, np.uint8), 0.0)
        assert picture.dtype == np.uint8
        assert picture.shape[1] == 1280
        assert picture.shape[0] % 2 == 0
        assert picture.shape[0] <= 44 + 720 + PANEL_HEIGHT
