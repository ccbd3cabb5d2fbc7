"""The training programs through their real command lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from racer.core.checkpoint import list_checkpoints, read_checkpoint
from racer.core.metrics import read_metrics

ROOT = Path(__file__).parents[2]
STATES, DISTRIBUTED = "train_highway_states.py", "train_highway_distributed.py"
CONFIG = "scripts/sim/configs/highway_distributional_config.py"
PPO_CONFIG = "scripts/sim/configs/highway_ppo_config.py"
STUDY_CONFIG = "scripts/sim/configs/highway_study_config.py"
SMALL = [
    "--config", CONFIG, "--config.actor_hidden_dims=(16,)", "--config.critic_hidden_dims=(16,)",
    "--config.num_atoms=11", "--config.env.vehicles_count=3", "--config.policy_steps=2",
    "--batch_size", "8", "--utd_ratio", "2",
    "--start_training", "64", "--eval_interval", "0", "--log_interval", "64",
]  # fmt: skip
TINY_DISTRIBUTED = [*SMALL, "--num_workers", "2", "--envs_per_worker", "2", "--worker_steps_per_iteration", "8",
                    "--experience_batch_size", "32", "--learner_update_ratio", "1"]  # fmt: skip
TINY_PPO = ["--config", PPO_CONFIG, "--config.rollout_length=16", "--config.num_epochs=1", "--config.num_minibatches=2",
            "--config.hidden_dims=(16,)",
            "--config.encoder={'kind': 'pointnet', 'widths': (8,)}", "--config.env.vehicles_count=3"]  # fmt: skip


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}


def start(program: str, *flags: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, f"scripts/sim/{program}", *flags]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )  # type: ignore[call-overload]


def run(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"scripts/sim/{program}", *flags]
    return subprocess.run(
        command, cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=240, check=False
    )


WRONG = [
    (STATES, ["--confg", CONFIG], "'--config'"),
    (STATES, [], "--config is missing"),
    (STATES, ["--config", "nowhere.py"], "nowhere.py"),
    (STATES, ["--config", CONFIG, "--config.cvar_rsk=0.5"], "key 'cvar_rsk'; did you mean 'cvar_risk'?"),
    (STATES, ["--config", CONFIG, "--config.cvar_risk=1.5"], "cvar_risk"),
    (STATES, ["--config", CONFIG, "--config.discount=0"], "discount"),
    (STATES, ["--config", CONFIG, "--config.tau=2"], "tau"),
    (STATES, ["--config", CONFIG, "--config.env.lane_count=3"], "key 'lane_count'; did you mean 'lanes_count'?"),
    (STATES, ["--config", CONFIG, "--config.nonsense=3"], "unknown config key 'nonsense'"),
    (STATES, ["--config", CONFIG, "--config.env.lanes_count=0"], "lanes_count"),
    (STATES, ["--config", CONFIG, "--config.model_cls=SACLerner"], "SACLearner"),
    (STATES, ["--config", CONFIG, "--config.env.action.type=DiscreteMetaAction"], "action space"),
    (STATES, ["--config", CONFIG, "--batch_size", "100", "--replay_buffer_size", "50"], "replay_buffer_size"),
    (STATES, ["--config", CONFIG, "--start_training", "500", "--max_steps", "500"], "start_training"),
    (STATES, ["--config", CONFIG, "--num_envs", "0"], "num_envs"),
    (STATES, ["--config", CONFIG, "--seed", "-1"], "seed"),
    (STATES, ["--config", CONFIG, "--seed", "1.5"], "seed"),
    (STATES, ["--config", CONFIG, "--run_name", "../up"], "run name"),
    (STATES, ["--config", CONFIG, "--engine", "compield"], "compiled"),
    (STATES, ["--config", CONFIG, "--device", "gpu"], "no GPU"),
    (STATES, ["--config", CONFIG, "--config.env.observation.type=OccupancyGrid"], "'Kinematics'"),
    (STATES, ["--config", CONFIG, "--config.env.scenario=highway-v1"], "'highway-v0'"),
    (STATES, ["--config", PPO_CONFIG, "--num_envs", "3", "--config.num_minibatches=5"], "do not divide"),
    (STATES, ["--config", f"{STUDY_CONFIG}:ppo"], "cvar, house, sac"),
    (STATES, ["--config", CONFIG, "extra"], "unexpected argument"),
    (STATES, ["--resume", "policies/none-such"], "no run to resume"),
    (STATES, ["--resume", "policies/highway-ppo", "--start_from", "policies/highway-ppo"], "--start_from is for new"),
    (STATES, ["--config", CONFIG, "--start_from", "policies/none-such"], "--start_from: there is no checkpoint"),
    (DISTRIBUTED, ["--config", CONFIG, "--num_workers", "0"], "num_workers"),
    (DISTRIBUTED, ["--config", CONFIG, "--policy_update_frequency", "nan"], "policy_update_frequency"),
    (DISTRIBUTED, ["--config", CONFIG, "--policy_update_frequency", "inf"], "policy_update_frequency"),
    (DISTRIBUTED, ["--config", CONFIG, "--batch_size", "300", "--replay_buffer_size", "200"], "replay"),
    (DISTRIBUTED, ["--config", CONFIG, "--start_training", "900", "--max_steps", "800"], "start_training"),
]


@pytest.mark.parametrize(("program", "flags", "words"), WRONG)
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path: Path, program: str, flags: list[str], words: str) -> None:
    place = [] if "--resume" in flags else ["--policy_dir", str(tmp_path / "policies")]
    result = run(program, *flags, *place)
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert words in lines[0]
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("run.json"))


def test_malformed_config_is_named_with_its_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config():\n    return {\n")
    result = run(STATES, "--config", str(broken))
    assert result.returncode == 2
    assert f"{broken}:" in result.stderr
    raising = tmp_path / "raising.py"
    raising.write_text("def get_config():\n    return 1 / 0\n")
    result = run(STATES, "--config", str(raising))
    assert result.returncode == 2
    assert f"{raising}:2" in result.stderr


def test_debug_shows_where(tmp_path: Path) -> None:
    result = run(STATES, "--config", CONFIG, "--num_envs", "0", "--debug")
    assert result.returncode == 2
    assert "Traceback" in result.stderr


def test_help_documents_every_flag() -> None:
    result = run(DISTRIBUTED, "--help")
    assert result.returncode == 0
    for name in (
        "replay_buffer_size", "experience_batch_size", "learner_update_ratio", "max_queue_size", "debug_distributed",
        "policy_update_frequency", "worker_steps_per_iteration", "resume", "config", "seed", "run_name",
    ):  # fmt: skip
        entry = result.stdout.split(f"  --{name}  (default: ")
        assert len(entry) == 2, name
        assert len(entry[1].splitlines()[1].strip()) > 10, name


def test_states_program_stops_in_order_and_goes_on(tmp_path: Path) -> None:
    place = ["--policy_dir", str(tmp_path), "--run_name", "one"]
    process = start(STATES, *SMALL, *place, "--max_steps", "1000000", "--save_interval", "0", "--num_envs", "2")
    metrics = tmp_path / "one" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") >= 2, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "go on with --resume" in out
    (checkpoint,) = list_checkpoints(tmp_path / "one")
    stopped_at = read_checkpoint(checkpoint).step
    goal = stopped_at + 130
    result = run(STATES, "--resume", str(tmp_path / "one"), "--max_steps", str(goal))
    assert result.returncode == 0, result.stderr
    steps = [line["step"] for line in read_metrics(metrics)]
    assert steps == sorted(steps)
    assert steps[-1] > stopped_at
    assert read_checkpoint(list_checkpoints(tmp_path / "one")[-1]).step >= goal
    changed = run(STATES, "--resume", str(tmp_path / "one"), *SMALL, "--config.num_atoms=21")
    assert changed.returncode == 2
    assert "num_atoms: the run has 11, --config has 21" in changed.stderr
    again = run(STATES, *SMALL, *place)
    assert again.returncode == 2
    assert "--resume" in again.stderr


def test_distributed_program_end_to_end(tmp_path: Path) -> None:
    place = ["--policy_dir", str(tmp_path), "--run_name", "two"]
    result = run(DISTRIBUTED, *TINY_DISTRIBUTED, *place, "--max_steps", "400", "--save_interval", "200",
                 "--debug_distributed", "true")  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = read_metrics(tmp_path / "two" / "metrics.jsonl")
    assert lines[-1]["training/update_to_data_target"] == 2 / 32
    assert lines[-1]["training/workers_alive"] >= 1
    checkpoint = read_checkpoint(list_checkpoints(tmp_path / "two")[-1])
    assert set(checkpoint.groups) == {"policy", "agent", "replay", "collector"}
    assert checkpoint.metadata["env_config"]["vehicles_count"] == 3
    result = run(DISTRIBUTED, "--resume", str(tmp_path / "two"), "--max_steps", "600")
    assert result.returncode == 0, result.stderr
    resumed = read_checkpoint(list_checkpoints(tmp_path / "two")[-1])
    assert resumed.step >= 600
    assert resumed.metadata["loop"]["updates"] > checkpoint.metadata["loop"]["updates"]


def test_ppo_goes_through_every_program(tmp_path: Path) -> None:
    place = ["--policy_dir", str(tmp_path), "--run_name", "ppo"]
    shape = ["--num_workers", "2", "--envs_per_worker", "2", "--log_interval", "64", "--eval_interval", "0"]
    result = run(DISTRIBUTED, *TINY_PPO, *shape, *place, "--max_steps", "256")
    assert result.returncode == 0, result.stderr
    first = read_checkpoint(list_checkpoints(tmp_path / "ppo")[-1])
    result = run(DISTRIBUTED, "--resume", str(tmp_path / "ppo"), "--max_steps", "384")
    assert result.returncode == 0, result.stderr
    last = read_checkpoint(list_checkpoints(tmp_path / "ppo")[-1])
    assert last.step >= 384
    assert last.groups["agent"]["updates"] > first.groups["agent"]["updates"]
    assert any(line.get("agent/minibatches") == 2.0 for line in read_metrics(tmp_path / "ppo" / "metrics.jsonl"))
    films = tmp_path / "films"
    result = run(
        "run_highway_policy.py", "--policy_file", str(tmp_path / "ppo"), "--num_episodes", "2", "--num_videos", "1",
        "--video_output_dir", str(films),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len(list(films.glob("*.mp4"))) == 1


def test_ppo_in_one_process_stops_in_order_and_goes_on(tmp_path: Path) -> None:
    place = ["--policy_dir", str(tmp_path), "--run_name", "one"]
    process = start(STATES, *TINY_PPO, *place, "--num_envs", "4", "--max_steps", "10000000", "--log_interval", "64",
                    "--eval_interval", "0", "--save_interval", "0")  # fmt: skip
    metrics = tmp_path / "one" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") >= 2, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    (checkpoint,) = list_checkpoints(tmp_path / "one")
    goal = read_checkpoint(checkpoint).step + 64
    result = run(STATES, "--resume", str(tmp_path / "one"), "--max_steps", str(goal))
    assert result.returncode == 0, result.stderr
    assert read_checkpoint(list_checkpoints(tmp_path / "one")[-1]).step >= goal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_distributed_program_leaves_no_orphans(tmp_path: Path, number: signal.Signals) -> None:
    place = ["--policy_dir", str(tmp_path), "--run_name", "three"]
    process = start(DISTRIBUTED, *TINY_DISTRIBUTED, *place, "--max_steps", "1000000", "--save_interval", "0")
    metrics = tmp_path / "three" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") >= 2, process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert list_checkpoints(tmp_path / "three")
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert json.loads((tmp_path / "three" / "run.json").read_text())["options"]["num_workers"] == 2


def wait_until(condition: object, process: subprocess.Popen[str], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if process.poll() is not None:
            raise AssertionError(f"program ended early: {process.communicate()[1]}")
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError("nothing happened in time")
        time.sleep(0.1)
