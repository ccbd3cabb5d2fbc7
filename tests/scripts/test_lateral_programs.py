"""The lateral programs through their real command lines, on the synthetic plant."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from racer.agents.ppo import PPOLearner
from racer.core.checkpoint import list_checkpoints, read_checkpoint, write_checkpoint
from racer.envs.lateral.generator import generate_route
from racer.envs.lateral.routes import write_route
from racer.envs.lateral.world import lateral_spaces
from racer.envs.registry import get_world
from racer.training.run_spec import create_agent, read_run
from tests.envs.lateral.plant_file import PLANT_FILE, needs_plant

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "scripts" / "lateral" / "config.yaml")
TINY = ("env.num_envs=4", "env.max_steps=40", "ppo.num_steps=32", "ppo.batch_size=64", "ppo.num_epochs=2",
        "ppo.hidden_sizes=[16]", "training.total_timesteps=512", "training.log_freq=128", "training.save_freq=256",
        "training.eval_freq=512", "training.eval_episodes=2", "warm_start.routes=4", "warm_start.epochs=2")  # fmt: skip


def command(program, *words):
    return [sys.executable, str(ROOT / "scripts" / "lateral" / program), *map(str, words)]


def environment():
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT)}  # fmt: skip


def run(program, *words, cwd):
    return subprocess.run(
        command(program, *words), cwd=cwd, env=environment(), text=True, capture_output=True, timeout=240, check=False
    )


def settings(*more):
    return [word for setting in (*TINY, *more) for word in ("--set", setting)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lateral")
    done = run("train.py", "--config", CONFIG, *settings(), "--noprogress", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_training_leaves_what_it_promises(trained):
    model = trained / "models" / "lateral"
    assert [path.name for path in list_checkpoints(model)] == ["checkpoint_256", "checkpoint_512"]
    final = read_checkpoint(model / "final_model" / "checkpoint_512")
    newest = read_checkpoint(model / "checkpoint_512", groups=["policy"])
    assert list(final.groups) == ["policy"]
    for name, value in newest.groups["policy"].items():
        np.testing.assert_array_equal(final.groups["policy"][name], value)
    with np.load(model / "training_stats.npz", allow_pickle=False) as stats:
        assert stats["agent/policy_loss/step"].tolist() == [128, 256, 384, 512]
        assert np.isfinite(stats["agent/policy_loss"]).all()
        # Episodes have 40 steps, and each environment takes 32 between two lines.
        assert stats["training/episodes"].tolist() == [0, 4, 8, 12]


def test_tensorboard_has_the_usual_tags(trained):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="install the extra [lateral]"
    )
    events = accumulator.EventAccumulator(str(trained / "runs" / "ppo_lateral_control"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    episode = {f"episode/{name}" for name in ("mean_reward", "mean_cost", "mean_length", "num_episodes")}
    assert episode | {"train/policy_loss", "train/value_loss", "train/entropy", "train/kl"} <= tags
    assert not [tag for tag in tags if tag.startswith("agent/")]
    reward = {event.step: event.value for event in events.Scalars("episode/mean_reward")}
    cost = {event.step: event.value for event in events.Scalars("episode/mean_cost")}
    assert reward == pytest.approx({step: -value for step, value in cost.items()}, rel=1e-5)


def test_a_finished_run_goes_further(trained, tmp_path):
    import shutil

    copied = tmp_path / "lateral"
    shutil.copytree(trained / "models" / "lateral", copied)
    further = ["--resume", copied, "--set", "training.total_timesteps=640", "--noprogress"]
    done = run("train.py", *further, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list_checkpoints(copied)[-1].name == "checkpoint_640"
    assert [path.name for path in list_checkpoints(copied / "final_model")] == ["checkpoint_640"]
    refused = run("train.py", "--resume", copied, "--set", "ppo.gamma=0.5", cwd=tmp_path)
    assert refused.returncode == 2
    assert "would make run" in refused.stderr


def test_a_stopped_run_resumes_as_if_it_had_not_been_stopped(trained, tmp_path):
    words = ["--config", CONFIG, *settings("training.log_freq=1"), "--noprogress"]
    process = subprocess.Popen(command("train.py", *words), cwd=tmp_path, env=environment(), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    metrics, deadline = tmp_path / "models" / "lateral" / "metrics.jsonl", time.monotonic() + 120
    while (not metrics.is_file() or not metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    stopped = list_checkpoints(tmp_path / "models" / "lateral")[-1]
    if process.returncode == 0 and stopped.name == "checkpoint_512":
        pytest.skip("the run was over before the signal came")
    assert process.returncode == 130, errors
    resumed = run("train.py", "--resume", tmp_path / "models" / "lateral", "--noprogress", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    one, two = (read_checkpoint(folder / "models" / "lateral" / "checkpoint_512") for folder in (trained, tmp_path))
    for group in ("policy", "agent", "collector"):
        assert one.groups[group].keys() == two.groups[group].keys()
        for name, value in one.groups[group].items():
            np.testing.assert_array_equal(value, two.groups[group][name], err_msg=name)


def test_workers_train_it_too(tmp_path):
    words = ["--config", CONFIG, *settings("ppo.shared_extractor=true"), "--workers", 2, "--noprogress"]
    done = run("train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 workers x 2 environments" in done.stdout
    assert read_checkpoint(list_checkpoints(tmp_path / "models" / "lateral")[-1], groups=["policy"]).step >= 512


def test_an_evaluation_is_printed_written_and_drawn(trained, tmp_path):
    for number in range(12):
        route = generate_route(0, "test", number)
        (tmp_path / "routes").mkdir(exist_ok=True)
        write_route(tmp_path / "routes" / route.name, route)
    model = trained / "models" / "lateral" / "final_model"
    done = run("eval.py", "--model_path", model, "--data_path", "routes", "--num_segments", 12, "--report", "r.html",
               cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "evaluation_results"
    written = json.loads((folder / "evaluation_metrics.json").read_text())
    for streams in ("salted", "official"):
        found = written[streams]
        assert set(found["policy"]) == set(found["pid"])
        for who in ("policy", "pid"):
            row = found[who]
            assert row["mean_total_cost"] == pytest.approx(50 * row["mean_lataccel_cost"] + row["mean_jerk_cost"])
            assert row["mean_total_cost_low"] < row["mean_total_cost"] < row["mean_total_cost_high"]
            assert f"{row['mean_total_cost']:.2f}" in done.stdout
        assert len(found["worst_routes"]) == 10
    assert written["salted"]["pid"] != written["official"]["pid"]
    for name in ("best", "median", "worst"):
        assert (folder / f"trace_{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (tmp_path / "r.html").read_text()
    assert len(page) < 5_000_000
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=\"?(https?:)?//", page)


def test_a_controller_is_evaluated_as_a_policy_is(tmp_path):
    done = run("eval.py", "--model_path", "driver:lateral/pid", "--num_segments", 3, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "evaluation_results" / "evaluation_metrics.json").read_text())
    assert written["salted"]["policy"] == written["salted"]["pid"]


def test_a_policy_is_trained_in_a_model_of_the_plant(tmp_path):
    imagined = ("imagination.rounds=2", "imagination.routes=4", "imagination.steps=10", "imagination.epochs=1",
                "imagination.lanes=8", "imagination.horizon=20", "ppo.view=ahead", "ppo.distribution=tanh_gaussian",
                "ppo.critic_warmup=1000", "env.action=residual", "env.max_steps=400", "warm_start.source=none",
                "training.total_timesteps=128", "training.eval_freq=0")  # fmt: skip
    done = run("train.py", "--config", CONFIG, *settings(*imagined), "--noprogress", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "imagination 2 of 2: cost" in done.stdout
    assert len(re.findall(r"imagined cost [\d.]+ at first, [\d.]+ at last", done.stdout)) == 2
    spec, _ = read_run(tmp_path / "models" / "lateral")
    first = create_agent(spec, *lateral_spaces()).policy_params
    learnt = read_checkpoint(tmp_path / "models" / "lateral" / "checkpoint_128", groups=["policy"]).groups["policy"]
    # PPO's updates leave the policy alone (critic_warmup), so what has moved has followed the gradient.
    assert first.keys() == learnt.keys()
    assert np.abs(learnt["trunk/hidden_0/kernel"] - first["trunk/hidden_0/kernel"]).max() > 1e-4
    done = run("eval.py", "--model_path", "models/lateral/final_model", "--num_segments", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


WRONG = [
    ("train.py", [], "--config is missing"),
    ("train.py", ["--config", "nowhere.yaml"], "nowhere.yaml"),
    ("train.py", ["--config", CONFIG, "--set", "ppo.learning_rat=1"], "did you mean 'learning_rate'"),
    ("train.py", ["--config", CONFIG, "--set", "env.plant=no.onnx"], "'no.onnx' cannot be read"),
    ("train.py", ["--config", CONFIG, "--set", "env.data_path=empty"], "no folder of routes at 'empty'"),
    ("train.py", ["--config", CONFIG, "--workers", "3"], "do not divide among 3 workers"),
    ("train.py", ["--resume", "nowhere"], "no run to resume"),
    ("train.py", ["--config", CONFIG, "--set", "imagination.round=1"], "did you mean 'rounds'"),
    ("train.py", ["--config", CONFIG, "--set", "ppo.view=ahed"], "did you mean 'ahead'"),
    ("train.py", ["--config", CONFIG, "--set", "imagination.rounds=1", "--set", "imagination.horizon=30"],
     "'horizon' 30 does not divide 400 steps"),
    ("train.py", ["--config", CONFIG, "--set", "warm_start.source=pdi"], "did you mean 'pid'"),
    ("eval.py", [], "--model_path is missing"),
    ("eval.py", ["--model_path", "nowhere"], "nowhere"),
    ("eval.py", ["--model_path", "driver:lateral/pdi"], "did you mean 'pid'"),
    ("eval.py", ["--model_path", "driver:rules"], "not in 'lateral'"),
    ("eval.py", ["--model_path", "driver:lateral/pid", "--num_segments", "0"], "--num_segments is at least 1, not 0"),
    ("eval.py", ["--model_path", "driver:lateral/pid", "--plant", "no.onnx"], "'no.onnx' cannot be read"),
    ("eval.py", ["--model_path", "driver:lateral/pid", "--plant", CONFIG], "is not an ONNX file"),
    ("eval.py", ["--model_path", "driver:lateral/pid", "--data_path", "."], "holds no routes"),
    ("routes.py", ["--num", "0", "--output", "x"], "--num is at least 1"),
    ("routes.py", [], "--output is missing"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("program", "words", "message"), WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing(tmp_path, program, words, message):
    done = run(program, *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_none_in_a_route_leaves_nothing(tmp_path):
    route = generate_route(0, "test", 0)
    write_route(tmp_path / "a.csv", route)
    text = (tmp_path / "a.csv").read_text().splitlines()
    text[10] = text[10].replace(text[10].split(",")[1], "nan")
    (tmp_path / "a.csv").write_text("\n".join(text))
    done = run("eval.py", "--model_path", "driver:lateral/pid", "--data_path", ".", "--num_segments", 1, cwd=tmp_path)
    assert done.returncode == 2
    assert "line 11 (row 9), column 'vEgo': 'nan' is not a finite number" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_policy_of_another_observation_is_refused(tmp_path):
    box = gymnasium.spaces.Box(-1.0, 1.0, (8,)), gymnasium.spaces.Box(-1.0, 1.0, (1,))
    agent = PPOLearner.create(0, *box, hidden_dims=(4,), value_hidden_dims=(4,))
    metadata = {"world": "lateral", "policy_spec": agent.policy_spec, "env_config": get_world("lateral").resolve(None)}
    write_checkpoint(tmp_path / "other", 1, {"policy": agent.policy_params}, metadata)
    done = run("eval.py", "--model_path", "other", cwd=tmp_path)
    assert done.returncode == 2
    assert "was trained on observations [8], today's are [256]" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@needs_plant
@pytest.mark.slow
def test_the_learned_plant_trains_and_is_evaluated(tmp_path):
    plant = f"env.plant={PLANT_FILE}"
    done = run("train.py", "--config", CONFIG, *settings(plant), "--noprogress", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("eval.py", "--model_path", "models/lateral/final_model", "--num_segments", 4, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
