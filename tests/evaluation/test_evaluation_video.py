import math
from dataclasses import replace

import imageio_ffmpeg
import numpy as np
import pytest
from evaluation_standins import (
    FEEDBACK_PARAMS,
    FRAMES_PER_STEP,
    POLICY_HZ,
    SMALL_ENV,
    CountingEnv,
    FeedbackPolicy,
)
from racer.evaluation.overlay import PANEL_HEIGHT, EpisodeTitle, Overlay, StepView, reward_rows
from racer.evaluation.video import check_encoder, choice_name, record_episode, step_view, video_name, video_writer

from racer.core.errors import UsageError
from racer.evaluation.episodes import make_evaluation_env, run_episode
from racer.evaluation.program import random_policy

FPS = POLICY_HZ * FRAMES_PER_STEP
SEED = 10_003  # an odd seed: ends in a collision, after 4 + 3 steps

VIEW = StepView(
    speed=31.0, forward_speed=30.5, time_to_collision=3.0, min_distance=12.0, episode_return=4.0,
    reward=0.3, shaped=True,
    reward_components={"base_reward": 0.4, "original_speed": 0.5, "forward_speed": 0.1, "safety_reward": 0.0},
    actions={"acceleration": 0.5, "steering": -0.1},
)  # fmt: skip


def read_video(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    frames = [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader]
    return meta, frames


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / video_name("checkpoint_7", 0)
    env = CountingEnv(render_mode="rgb_array_list")
    result = record_episode(path, FeedbackPolicy(), FEEDBACK_PARAMS, env, SEED, policy_name="checkpoint_7", episode=0)
    return path, result, *read_video(path)


def test_video_is_h264_with_even_sizes_at_real_time(recorded):
    path, result, meta, frames = recorded
    assert path.name == "highway_eval_checkpoint_7_episode_0.mp4"
    assert meta["codec"] == "h264"
    assert meta["pix_fmt"].startswith("yuv420p")
    assert meta["fps"] == FPS
    assert meta["size"][0] % 2 == meta["size"][1] % 2 == 0
    # The frame after the reset, three a step, and the end held for a second.
    assert len(frames) == 1 + FRAMES_PER_STEP * int(result.metrics["length"]) + FPS
    driven = result.metrics["length"] / POLICY_HZ
    assert meta["duration"] == pytest.approx(driven + 1.0, abs=2.0 / FPS)


def test_video_shows_the_episode_of_the_evaluation(recorded):
    steps = list(run_episode(FeedbackPolicy(), FEEDBACK_PARAMS, CountingEnv(), SEED))
    assert recorded[1] == steps[-1].result


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


def test_filming_needs_all_frames(tmp_path):
    with pytest.raises(UsageError, match="rgb_array_list"):
        record_episode(tmp_path / "a.mp4", FeedbackPolicy(), FEEDBACK_PARAMS, CountingEnv(), 1,
                       policy_name="p", episode=0)  # fmt: skip


def test_missing_encoder_is_found_beforehand(monkeypatch, tmp_path):
    check_encoder()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-such-ffmpeg"))
    with pytest.raises(UsageError, match=r"encoder.*render=false"):
        check_encoder()


def compose(view: StepView | None, time: float = 0.0, end: str | None = None) -> np.ndarray:
    overlay = Overlay(EpisodeTitle("checkpoint_7", 0, SEED, 40.0), 0.2)
    if view is not None:
        overlay.push(view)
    return overlay.compose(np.full((150, 600, 3), 100, np.uint8), time, end)


@pytest.mark.parametrize(
    "change",
    [
        {"speed": 12.0},
        {"forward_speed": -3.0},
        {"time_to_collision": 1.0},
        {"time_to_collision": math.inf},
        {"min_distance": 3.0},
        {"episode_return": -2.0},
        {"reward": -0.5},
        {"shaped": False},
        {"actions": {"acceleration": 0.5, "steering": 0.9}},
        {"reward_components": {**VIEW.reward_components, "safety_reward": -1.0}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_overlay_shows_each_number(change):
    before, after = compose(VIEW), compose(replace(VIEW, **change))
    assert np.abs(before.astype(int) - after.astype(int)).max() > 60


def test_overlay_shows_the_parts_that_count():
    assert [name for name, _, _ in reward_rows(VIEW)] == [
        "base reward", "speed term, taken out", "forward speed, put in", "safety", "training reward",
    ]  # fmt: skip
    assert reward_rows(VIEW)[-1][1] == 0.3
    parts = {**VIEW.reward_components, "offroad_penalty": -2.0}
    raw = replace(VIEW, shaped=False, reward=-1.6, reward_components=parts)
    assert [row[:2] for row in reward_rows(raw)] == [
        ("base reward", 0.4), ("off the road", -2.0), ("training reward", -1.6),
    ]  # fmt: skip


def test_a_raw_environment_shows_its_own_reward():
    env = make_evaluation_env({**SMALL_ENV, "reward": "base"})
    try:
        policy = random_policy(env.action_space)
        step = next(iter(run_episode(policy, {}, env, 10_000, deterministic=False)))
        view = step_view(step, env.unwrapped.action_names, env.unwrapped.config)
    finally:
        env.close()
    assert not view.shaped
    assert view.reward == step.reward == step.info["reward_components"]["base_reward"]
    assert view.reward != step.info["reward_components"]["training_reward"]


def test_choices_are_named():
    assert choice_name(np.int64(3), {"type": "DiscreteMetaAction"}) == "faster"
    assert choice_name(0, {"type": "DiscreteMetaAction", "lateral": False}) == "slower"
    assert choice_name(7, {"type": "DiscreteAction"}) == "choice 7"
    chosen = [compose(replace(VIEW, actions={}, choice=name)) for name in ("faster", "idle")]
    assert np.abs(chosen[0].astype(int) - chosen[1]).max() > 60


def test_overlay_is_a_function_of_its_numbers():
    np.testing.assert_array_equal(compose(VIEW, 1.0), compose(VIEW, 1.0))


def test_overlay_shows_the_clock_and_the_end():
    picture = compose(VIEW, 3.0)
    assert (picture != compose(VIEW, 3.1)).any()
    assert len({compose(VIEW, 3.0, end).tobytes() for end in ("collision", "off_road", "time_limit")}) == 3
    assert (picture != compose(VIEW, 3.0, "collision")).any()


def test_overlay_widens_the_road_and_keeps_its_shape():
    picture = compose(VIEW)
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 1280
    assert picture.shape[0] % 2 == 0
    # 600 x 150 becomes 1280 x 320: that many rows of the road's grey on the left edge.
    assert (picture[:, 2] == 100).all(axis=1).sum() == 320
