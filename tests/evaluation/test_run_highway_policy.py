"""The program, as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import pytest
from evaluation_standins import write_tiny_checkpoint

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "sim" / "run_highway_policy.py"
CONFIG = ROOT / "scripts" / "sim" / "configs" / "highway_distributional_config.py"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("policies") / "highway_run_42", 10_000)


def test_evaluates_and_films(checkpoint, tmp_path):
    out = tmp_path / "videos"
    done = run("--policy_file", str(checkpoint), "--num_episodes", "3", "--num_videos", "1", "--compare_random", "true",
               "--video_output_dir", str(out))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "HIGHWAY POLICY EVALUATION RESULTS" in done.stdout
    assert "random actions: mean return" in done.stdout
    assert sorted(p.name for p in out.iterdir()) == [
        "evaluation_metrics.json",
        "highway_eval_checkpoint_10000_episode_0.mp4",
    ]
    document = json.loads((out / "evaluation_metrics.json").read_text())
    assert [e["seed"] for e in document["episodes"]] == [10_000, 10_001, 10_002]
    assert len(document["comparisons"]["random"]["episodes"]) == 3
    assert document["configuration"]["checkpoint_step"] == 10_000
    assert document["configuration"]["env_config"]["vehicles_count"] == 3
    reader = imageio_ffmpeg.read_frames(str(out / "highway_eval_checkpoint_10000_episode_0.mp4"))
    assert next(reader)["fps"] == 15
    # One frame of the reset, three a step at 15 Hz over 5 Hz, one second of the end.
    assert sum(1 for _ in reader) == 1 + 3 * document["episodes"][0]["length"] + 15


def test_same_numbers_again_without_video_and_with_other_batches(checkpoint, tmp_path):
    documents = []
    for name, num_envs in (("a", "1"), ("b", "3")):
        done = run("--policy_file", str(checkpoint), "--num_episodes", "4", "--render=false", "--num_envs", num_envs,
                   "--video_output_dir", str(tmp_path / name))  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert [p.name for p in (tmp_path / name).iterdir()] == ["evaluation_metrics.json"]
        documents.append((tmp_path / name / "evaluation_metrics.json").read_text())
    assert documents[0] == documents[1]


def test_config_is_compared_and_only_overrides_touch_the_environment(checkpoint, tmp_path):
    done = run("--policy_file", str(checkpoint), "--config", str(CONFIG), "--config.cvar_risk=0.5", "--num_episodes=1",
               "--config.env.lanes_count=2", "--render=false", "--video_output_dir", str(tmp_path / "out"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cvar_risk = 0.5, the checkpoint 0.8" in done.stderr
    assert "env.vehicles_count = 50, the checkpoint 3" in done.stderr
    assert "lanes_count" not in done.stderr
    used = json.loads((tmp_path / "out" / "evaluation_metrics.json").read_text())["configuration"]["env_config"]
    assert (used["vehicles_count"], used["lanes_count"]) == (3, 2)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def test_missing_checkpoint_names_its_neighbours(checkpoint):
    assert_refused(run("--policy_file", str(checkpoint.parent / "checkpoint_7")), "checkpoint_7", "checkpoint_10000")


def test_pickle_is_never_loaded(tmp_path):
    (tmp_path / "policy.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert_refused(run("--policy_file", str(tmp_path / "policy.pkl")), "policy.pkl", "pickle")


def test_newer_and_damaged_checkpoints(tmp_path):
    newer = write_tiny_checkpoint(tmp_path / "newer", 1)
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps(manifest | {"format": 999}))
    assert_refused(run("--policy_file", str(newer)), "999", "newer")
    damaged = write_tiny_checkpoint(tmp_path / "damaged", 1)
    (damaged / "policy.safetensors").write_bytes(b"")
    assert_refused(run("--policy_file", str(damaged)), "policy.safetensors")


def test_other_observation_shape_names_both(tmp_path):
    path = write_tiny_checkpoint(tmp_path / "run", 1, observation_dim=60)
    done = run("--policy_file", str(path), "--render=false", "--video_output_dir", str(tmp_path / "out"))
    assert_refused(done, "observation", "(60,)", "(90,)")


def test_unwritable_folder_and_missing_encoder_are_found_first(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused(run("--policy_file", str(checkpoint), "--video_output_dir", str(tmp_path / "file" / "x")), "file/x")
    done = run("--policy_file", str(checkpoint), "--video_output_dir", str(tmp_path / "out"),
               IMAGEIO_FFMPEG_EXE=str(tmp_path / "no-ffmpeg"))  # fmt: skip
    assert_refused(done, "encoder")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--polcy_file", "x"], ["--polcy_file", "--policy_file"]),
        (["--num_episodes", "0"], ["num_episodes"]),
        (["--seed", "-1"], ["seed"]),
        (["--seed", "1.5"], ["seed"]),
        (["--cvar_level", "nan"], ["cvar_level"]),
        (["--engine", "compild"], ["compild", "compiled"]),
        (["--num_videos", "-1"], ["num_videos"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_wrong_values(checkpoint, tmp_path, arguments, words):
    done = run("--policy_file", str(checkpoint), "--video_output_dir", str(tmp_path / "out"), *arguments)
    assert_refused(done, *words)


def test_unknown_keys_of_agent_and_environment_name_the_nearest(checkpoint, tmp_path):
    start = ["--policy_file", str(checkpoint), "--video_output_dir", str(tmp_path / "out"), "--config", str(CONFIG)]
    assert_refused(run(*start, "--config.cvar_rsk=0.5"), "cvar_rsk", "'cvar_risk'")
    assert_refused(run(*start, "--config.env.vehicles_cont=5"), "vehicles_cont", "'vehicles_count'")


def test_malformed_config_names_its_line(checkpoint, tmp_path):
    (tmp_path / "config.py").write_text("def get_config():\n    return (\n")
    assert_refused(run("--policy_file", str(checkpoint), "--config", str(tmp_path / "config.py")), "config.py:2")


def test_help_documents_every_flag():
    text = run("--help").stdout
    for flag in ("policy_file", "config", "engine", "num_episodes", "render", "video_output_dir", "num_videos", "seed",
                 "deterministic", "cvar_level", "compare_random", "num_envs"):  # fmt: skip
        assert f"--{flag}  (default" in text
