"""Single-threaded training: exact counts and exact resume."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from racer.core.checkpoint import checkpoint_path, read_checkpoint
from racer.core.errors import RacerError, UsageError
from racer.core.metrics import METRICS_FILE, MetricsLogger, read_metrics
from racer.training.checkpointing import CheckpointSaver, resume_checkpoint
from racer.training.off_policy import OffPolicyConfig, OffPolicyTrainer
from racer.training.run_spec import RunSpec, read_run, spec_from_config, write_run

ENV = {"engine": "highway-env", "vehicles_count": 3, "duration": 4, "observation": {"vehicles_count": 4}}
AGENT = {"actor_hidden_dims": (16,), "critic_hidden_dims": (16,), "num_atoms": 11}
BASE = OffPolicyConfig(
    max_steps=120, start_training=20, num_envs=2, batch_size=8, utd_ratio=2, replay_buffer_size=64, log_interval=10,
    eval_interval=0, save_interval=60,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def make_spec(engine: str = "highway-env", model: str = "DistributionalSACLearner") -> RunSpec:
    agent = AGENT if model == "DistributionalSACLearner" else {k: v for k, v in AGENT.items() if k != "num_atoms"}
    return spec_from_config({"model_cls": model, "env": {**ENV, "engine": engine}, **agent}, seed=3)


def run(spec: RunSpec, config: OffPolicyConfig, run_dir: Path, *, stop_at: int | None = None) -> OffPolicyTrainer:
    run_dir.mkdir(exist_ok=True)
    resumed = any(run_dir.glob("checkpoint_*"))
    trainer = OffPolicyTrainer(spec, config, resume_checkpoint(run_dir) if resumed else None)
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


@pytest.mark.parametrize("model", ["DistributionalSACLearner", "SACLearner"])
@pytest.mark.parametrize("stop_at", [14, 66])
def test_resumed_run_is_the_run_that_never_stopped(tmp_path: Path, model: str, stop_at: int) -> None:
    """Parameters, targets, optimizer, replay and cursor, every random stream, environments, counters and metrics."""
    spec = make_spec(model=model)
    run(spec, BASE, tmp_path / "whole")
    stopped = run(spec, BASE, tmp_path / "parts", stop_at=stop_at)
    assert stop_at <= stopped.step < BASE.max_steps
    run(spec, BASE, tmp_path / "parts")
    whole, parts = contents(tmp_path / "whole", 120), contents(tmp_path / "parts", 120)
    assert whole.keys() == parts.keys()
    assert [name for name in whole if whole[name] != parts[name]] == []
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


def test_seeds_matter_and_repeat(tmp_path: Path) -> None:
    spec = make_spec()
    short = OffPolicyConfig(**{**vars(BASE), "max_steps": 40})
    a, b = (run(spec, short, tmp_path / name) for name in "ab")
    other = run(RunSpec(spec.agent_name, spec.agent_config, spec.env_config, 4), short, tmp_path / "c")
    for name, array in a.agent.state_arrays().items():
        np.testing.assert_array_equal(array, b.agent.state_arrays()[name])
    assert any((a._params[name] != other._params[name]).any() for name in a._params)


def test_update_to_data_is_what_it_says(tmp_path: Path) -> None:
    trainer = run(make_spec(), BASE, tmp_path / "run")
    # Updates begin once 20 transitions are there, with the iteration that brings them.
    assert trainer.step == 120
    assert trainer.updates == (120 - 20) // 2 + 1
    assert trainer.gradient_steps == 2 * trainer.updates
    assert len(trainer.buffer) == 64
    line = logged(tmp_path / "run")[-1]
    assert line["training/update_to_data_target"] == 1.0
    assert line["training/update_to_data"] == pytest.approx(1.0, abs=0.03)


def test_nonfinite_updates_stop_the_run(tmp_path: Path) -> None:
    trainer = OffPolicyTrainer(make_spec(), OffPolicyConfig(**{**vars(BASE), "max_nonfinite_updates": 3}))
    for _ in range(20):
        trainer.iterate()
    before = trainer.agent.state_arrays()["critic/params/" + _first_critic_leaf(trainer)].copy()
    trainer.buffer.sample = _poisoned(trainer.buffer.sample)  # type: ignore[method-assign]

    def iterate_five_times() -> None:
        for _ in range(5):
            trainer.iterate()

    with pytest.raises(RacerError, match="non-finite gradients"):
        iterate_five_times()
    after = trainer.agent.state_arrays()["critic/params/" + _first_critic_leaf(trainer)]
    np.testing.assert_array_equal(before, after)


def _first_critic_leaf(trainer: OffPolicyTrainer) -> str:
    names = [n for n in trainer.agent.state_arrays() if n.startswith("critic/params/")]
    return names[0].removeprefix("critic/params/")


def _poisoned(sample: Any) -> Any:
    def poisoned(count: int) -> dict[str, np.ndarray]:
        batch = sample(count)
        batch["rewards"] = np.full_like(batch["rewards"], np.nan)
        return batch

    return poisoned


def test_resume_refuses_another_network(tmp_path: Path) -> None:
    run(make_spec(), OffPolicyConfig(**{**vars(BASE), "max_steps": 40}), tmp_path / "run")
    wide = {"actor_hidden_dims": (32,), "critic_hidden_dims": (16,), "num_atoms": 11}
    spec = spec_from_config({"model_cls": "DistributionalSACLearner", "env": ENV, **wide}, seed=3)
    with pytest.raises(UsageError, match="does not fit"):
        OffPolicyTrainer(spec, BASE, resume_checkpoint(tmp_path / "run"))


def test_run_file_round_trip(tmp_path: Path) -> None:
    spec = make_spec()
    write_run(tmp_path, spec, {"program": "x"})
    again, options = read_run(tmp_path)
    assert again.differences(spec) == []
    assert options == {"program": "x"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_cls": "DistributionalSACLerner"}, "DistributionalSACLearner"),
        ({"model_cls": "SACLearner", "discont": 0.5}, "discount"),
        ({"model_cls": "SACLearner", "discount": 1.5}, "discount"),
        ({"model_cls": "DistributionalSACLearner", "cvar_risk": 1.5}, "cvar_risk"),
        ({"model_cls": "SACLearner", "tau": -0.1}, "tau"),
        ({"model_cls": "SACLearner", "env": {"lane_count": 3}}, "lanes_count"),
        ({}, "model_cls"),
    ],
)
def test_wrong_config_is_named(config: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        spec_from_config(config, seed=0)


@pytest.mark.parametrize(
    "changes", [{"batch_size": 100}, {"start_training": 120}, {"num_envs": 0}, {"utd_ratio": 0}, {"max_steps": 0}]
)
def test_wrong_options_are_named(changes: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(changes))):
        OffPolicyConfig(**{**vars(BASE), **changes})


def test_a_full_disk_is_survived_until_the_last_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec()
    trainer = OffPolicyTrainer(spec, BASE)
    trainer.iterate()
    saver = CheckpointSaver(tmp_path, spec, keep=2, max_failures=3)
    kept = trainer.save(saver)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("racer.core.checkpoint._write_durably", full)
    assert trainer.save(saver) is None
    assert trainer.save(saver) is None
    with pytest.raises(RacerError, match="3 times in a row"):
        trainer.save(saver)
    with pytest.raises(RacerError, match="at the end of the run"):
        trainer.save(CheckpointSaver(tmp_path, spec, keep=2), final=True)
    assert resume_checkpoint(tmp_path).path == kept
