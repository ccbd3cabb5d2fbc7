"""Single-threaded on-policy training: exact counts, exact resume, and the program that chooses the loop."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from absl import flags

from racer.agents.policy import build_policy
from racer.agents.ppo import PPOConfig, PPOLearner
from racer.core.checkpoint import checkpoint_path, read_checkpoint
from racer.core.errors import RacerError, UsageError
from racer.core.metrics import METRICS_FILE, MetricsLogger, read_metrics
from racer.distributed.channels import WorkerBatch
from racer.distributed.config import ServiceConfig
from racer.replay.experience import Experience
from racer.training.checkpointing import CheckpointSaver, resume_checkpoint
from racer.training.flags import define_dataclass_flags, options_from_flags, refuse_flags
from racer.training.off_policy import OffPolicyConfig
from racer.training.on_policy import OnPolicyConfig, OnPolicyTrainer, is_on_policy, join_rollouts
from racer.training.on_policy_distributed import RolloutConfig, on_policy_consumer, on_policy_service
from racer.training.run_spec import RunSpec, spec_from_config

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "scripts/sim/configs/highway_ppo_config.py"
ENV = {"engine": "compiled", "vehicles_count": 3, "duration": 4, "observation": {"vehicles_count": 4}}
AGENT = {
    "hidden_dims": (8,), "value_hidden_dims": (8,), "rollout_length": 10, "num_epochs": 2, "num_minibatches": 4,
    "action_scale": {"steering": 0.1},
}  # fmt: skip
BASE = OnPolicyConfig(max_steps=120, num_envs=2, log_interval=20, eval_interval=0, save_interval=60)


@pytest.fixture(autouse=True)
def _no_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def make_spec(seed: int = 3, **changes: Any) -> RunSpec:
    return spec_from_config({"model_cls": "PPOLearner", "env": ENV, **AGENT, **changes}, seed=seed)


def run(spec: RunSpec, config: OnPolicyConfig, run_dir: Path, *, stop_at: int | None = None) -> OnPolicyTrainer:
    run_dir.mkdir(exist_ok=True)
    resumed = any(run_dir.glob("checkpoint_*"))
    trainer = OnPolicyTrainer(spec, config, resume_checkpoint(run_dir) if resumed else None)
    metrics = MetricsLogger(run_dir, truncate_after=trainer.step if resumed else None)
    stop = threading.Event()
    if stop_at is not None:
        iterate = trainer.iterate

        def iterate_and_stop() -> None:
            iterate()
            if trainer.step >= stop_at:
                stop.set()

        trainer.iterate = iterate_and_stop  # type: ignore[method-assign]
    trainer.run(metrics, CheckpointSaver(run_dir, spec, keep=5), stop=stop, progress=False)
    metrics.close()
    return trainer


def contents(run_dir: Path, step: int) -> dict[str, bytes]:
    checkpoint = read_checkpoint(checkpoint_path(run_dir, step))
    arrays = {f"{g}/{n}": a.tobytes() for g, group in checkpoint.groups.items() for n, a in group.items()}
    return {**arrays, "metadata": json.dumps(checkpoint.metadata, sort_keys=True).encode()}


def logged(run_dir: Path) -> list[dict[str, Any]]:
    lines = read_metrics(run_dir / METRICS_FILE)
    return [{k: v for k, v in line.items() if k != "time" and not k.startswith("speed/")} for line in lines]


def test_resumed_run_is_the_run_that_never_stopped(tmp_path: Path) -> None:
    """Parameters, optimizer, every random stream, environments, counters and metrics."""
    spec = make_spec()
    run(spec, BASE, tmp_path / "whole")
    stopped = run(spec, BASE, tmp_path / "parts", stop_at=40)
    assert stopped.step == 40
    run(spec, BASE, tmp_path / "parts")
    whole, parts = contents(tmp_path / "whole", 120), contents(tmp_path / "parts", 120)
    assert whole.keys() == parts.keys()
    assert [name for name in whole if whole[name] != parts[name]] == []
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")
    other = run(make_spec(seed=4), BASE, tmp_path / "other")
    assert contents(tmp_path / "other", 120)["policy/mean/kernel"] != whole["policy/mean/kernel"]
    assert (other.updates, other.gradient_steps) == (6, 6 * 2 * 4)
    line = logged(tmp_path / "other")[-1]
    assert line["training/update_to_data"] == pytest.approx(48 / 120)
    assert line["agent/explained_variance"] <= 1.0


def test_evaluates_on_the_way_and_acts_inside_the_scaled_range(tmp_path: Path) -> None:
    trainer = OnPolicyTrainer(make_spec(), OnPolicyConfig(**{**vars(BASE), "max_steps": 60, "eval_interval": 30}))
    steps: list[int] = []
    metrics = MetricsLogger(tmp_path)
    saver = CheckpointSaver(tmp_path, trainer.spec, keep=5)

    def evaluate(step: int, agent: Any) -> dict[str, float]:
        steps.append(step)
        return {"evaluation/return": float(step)}

    trainer.run(metrics, saver, stop=threading.Event(), evaluate=evaluate, progress=False)
    metrics.close()
    assert steps == [40, 60]
    assert [line["evaluation/return"] for line in logged(tmp_path) if "evaluation/return" in line] == [40.0, 60.0]
    rows = trainer.collector.observations
    actions = trainer.policy.act(trainer._params, rows, np.random.default_rng(0))
    assert np.abs(actions[:, 1]).max() <= 0.1


def test_nonfinite_updates_stop_the_run() -> None:
    trainer = OnPolicyTrainer(make_spec(), OnPolicyConfig(**{**vars(BASE), "max_nonfinite_updates": 2}))
    trainer.iterate()
    before = trainer.agent.state_arrays()["actor/params/mean/kernel"].copy()
    collect = trainer.collector.collect

    def poisoned(*given: Any) -> Experience:
        experience = collect(*given)
        experience.rewards[:] = np.nan
        return experience

    trainer.collector.collect = poisoned  # type: ignore[method-assign]
    trainer.iterate()
    with pytest.raises(RacerError, match="2 updates in a row had non-finite gradients"):
        trainer.iterate()
    assert trainer.updates == 3
    np.testing.assert_array_equal(before, trainer.agent.state_arrays()["actor/params/mean/kernel"])


def test_rollouts_are_joined_side_by_side() -> None:
    def experience(envs: int, steps: int = 3, **extras: np.ndarray) -> Experience:
        rows = np.full((steps, envs), float(envs), np.float32)
        wide = np.full((steps, envs, 2), float(envs), np.float32)
        return Experience(wide, wide, rows, rows, rows, wide, rows > 0, {"log_probs": rows, **extras})

    joined = join_rollouts([experience(2), experience(1)])
    assert joined["observations"].shape == (3, 3, 2)
    np.testing.assert_array_equal(joined["log_probs"], [[2.0, 2.0, 1.0]] * 3)
    assert joined["valid"].dtype == bool
    with pytest.raises(UsageError, match=r"3 steps .* 4 steps"):
        join_rollouts([experience(2), experience(2, steps=4)])
    with pytest.raises(UsageError, match="draws"):
        join_rollouts([experience(2), experience(2, draws=np.zeros((3, 2, 2)))])


def test_indivisible_rollouts_are_refused_before_anything_starts() -> None:
    with pytest.raises(UsageError, match=r"10 steps x 3 environments = 30 rows .* num_minibatches=4"):
        OnPolicyTrainer(make_spec(), OnPolicyConfig(**{**vars(BASE), "num_envs": 3}))


def test_the_loop_follows_the_agent_and_foreign_flags_are_refused() -> None:
    assert is_on_policy("PPOLearner")
    assert not is_on_policy("SACLearner")
    values = flags.FlagValues()
    define_dataclass_flags(OffPolicyConfig, values, num_envs=None)
    define_dataclass_flags(OnPolicyConfig, values)
    values(["program", "--utd_ratio=4"])
    assert options_from_flags(OffPolicyConfig, {}, values).num_envs == OffPolicyConfig().num_envs
    assert options_from_flags(OnPolicyConfig, {}, values).num_envs == OnPolicyConfig().num_envs
    with pytest.raises(UsageError, match="--utd_ratio has no meaning for PPOLearner"):
        refuse_flags(OnPolicyConfig, (OffPolicyConfig,), "PPOLearner", values)
    refuse_flags(OffPolicyConfig, (OnPolicyConfig,), "SACLearner", values)


def test_service_settings_and_updates_on_workers_rollouts() -> None:
    """Stale rollouts are dropped and counted; one rollout of each worker makes an update."""
    spaces = gymnasium.spaces.Box(-9, 9, (3,)), gymnasium.spaces.Box(-1, 1, (2,))
    small = {"hidden_dims": (8,), "value_hidden_dims": (8,), "rollout_length": 10, "num_minibatches": 8}
    agent = PPOLearner.create(0, *spaces, **small)
    service = on_policy_service(agent, ServiceConfig(num_workers=2, worker_steps_per_iteration=77))
    assert (service.worker_steps_per_iteration, service.credits) == (10, 1)
    with pytest.raises(UsageError, match="10 steps x 6 environments"):
        on_policy_consumer(agent, RolloutConfig(), service, 3)
    consumer = on_policy_consumer(agent, RolloutConfig(max_policy_lag=1), service, 2)
    rng = np.random.default_rng(0)

    def batch(worker: int, version: int) -> WorkerBatch:
        rows, wide = np.ones((10, 2), np.float32), rng.normal(size=(10, 2, 3)).astype(np.float32)
        drawn, extras = build_policy(agent.policy_spec).act_with_extras(agent.policy_params, wide.reshape(-1, 3), rng)
        extras = {name: array.reshape(10, 2, *array.shape[1:]) for name, array in extras.items()}
        experience = Experience(wide, drawn.reshape(10, 2, 2), rows, rows, 0 * rows, wide, rows > 0, extras)
        return WorkerBatch(experience, worker, 0, 1, version)

    assert consumer.accept(batch(0, 3), current_version=4) == 20
    assert consumer.accept(batch(1, 2), current_version=4) == 0
    assert consumer.updates_due() == 0
    assert consumer.metrics()["stale_batches"] == 1.0
    consumer.accept(batch(1, 4), current_version=4)
    assert consumer.updates_due() == 1
    agent, info = consumer.update(agent)
    assert int(agent.state_arrays()["transitions"]) == 40
    assert float(info["minibatches"]) == 80.0
    assert float(info["lag_kl"]) == pytest.approx(0.0, abs=1e-6)
    assert consumer.updates_due() == 0


def test_config_file_names_every_key_with_values_the_agent_takes() -> None:
    where = importlib.util.spec_from_file_location("highway_ppo_config", CONFIG)
    module = importlib.util.module_from_spec(where)
    where.loader.exec_module(module)
    config = module.get_config()
    spec = spec_from_config(config, seed=0)
    assert set(spec.agent_config) == {key for key in config if key not in ("model_cls", "env", "safety_penalty")}
    assert spec.agent_config["action_scale"] == [["steering", config.action_scale.steering]]
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.agent_config.items()}
    agent = PPOConfig(**values)
    agent.check_rows(agent.rollout_length, OnPolicyConfig().num_envs)


def test_program_trains_ppo(tmp_path: Path) -> None:
    command = [
        sys.executable, str(ROOT / "scripts/sim/train_highway_states.py"), "--device", "cpu", "--noprogress",
        "--config", str(CONFIG), "--config.env.vehicles_count=3", "--config.rollout_length=8",
        "--config.num_epochs=1", "--config.action_scale.steering=0.2", "--num_envs", "2", "--max_steps", "16",
        "--policy_dir", str(tmp_path), "--run_name", "ppo", "--eval_interval", "0",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    checkpoint = resume_checkpoint(tmp_path / "ppo")
    assert checkpoint.step == 16
    assert checkpoint.metadata["counters"]["updates"] == 1
    assert checkpoint.metadata["policy_spec"]["kind"] == "tanh_gaussian"
    np.testing.assert_allclose(checkpoint.groups["policy"]["action_high"], [1.0, 0.2])
