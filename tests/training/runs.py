"""Small training runs for the tests, in the default world and without a tracker."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

from racer.core.checkpoint import checkpoint_path, read_checkpoint
from racer.core.metrics import METRICS_FILE, MetricsLogger, read_metrics
from racer.distributed.config import OffPolicyConfig, RolloutConfig, ServiceConfig
from racer.distributed.pool import PoolFactory
from racer.training.options import Schedule, Setup
from racer.training.run import TrainingRun
from racer.training.run_spec import RunSpec, spec_from_config, wants_rollouts
from racer.training.saving import CheckpointSaver, resume_checkpoint

ENV = {"engine": "compiled", "vehicles_count": 3, "duration": 4, "observation": {"vehicles_count": 4}}
ACTOR_CRITIC = {"actor_hidden_dims": (8,), "critic_hidden_dims": (8,)}
AGENTS: dict[str, dict[str, Any]] = {
    "DistributionalSACLearner": {**ACTOR_CRITIC, "num_atoms": 11},
    "SACLearner": {**ACTOR_CRITIC, "noise_correlation": 0.8},
    "PPOLearner": {
        "hidden_dims": (8,), "value_hidden_dims": (8,), "rollout_length": 10, "num_epochs": 2, "num_minibatches": 4,
        "action_scale": {"steering": 0.1},
    },
}  # fmt: skip


def make_spec(model: str, seed: int = 3, env: dict[str, Any] | None = None, **changes: Any) -> RunSpec:
    """A small agent in a small world."""
    return spec_from_config({"model_cls": model, "env": {**ENV, **(env or {})}, **AGENTS[model], **changes}, seed)


def make_setup(spec: RunSpec, *, workers: int = 1, envs: int = 2, inline: bool = True, **changes: Any) -> Setup:
    """Lock step; changes of the schedule and of what is learnt by name."""
    off_policy = {
        "start_training": 20, "batch_size": 8, "utd_ratio": 2, "replay_buffer_size": 64,
        "experience_batch_size": workers * envs, "learner_update_ratio": 1,
    }  # fmt: skip
    schedule = {"max_steps": 120, "log_interval": 10, "eval_interval": 0, "save_interval": 60}
    service = {"num_workers": workers, "worker_steps_per_iteration": 1, "deterministic": True, "seed": spec.seed,
               "max_nonfinite_updates": 3}  # fmt: skip
    rollouts = wants_rollouts(spec.agent_name)
    for known in (off_policy, schedule, service):
        known.update({name: changes[name] for name in known if name in changes})
    learning = RolloutConfig() if rollouts else OffPolicyConfig(**off_policy)
    return Setup(Schedule(**schedule), ServiceConfig(**service), learning, envs, inline)


class StopAt(threading.Event):
    """Set once a run is at a step."""

    def __init__(self, training: TrainingRun, step: int | None) -> None:
        super().__init__()
        self._training, self._step = training, step

    def is_set(self) -> bool:
        """Whether it is time."""
        return self._step is not None and self._training.step >= self._step


def train(
    spec: RunSpec,
    setup: Setup,
    run_dir: Path,
    *,
    stop_at: int | None = None,
    pool: PoolFactory | None = None,
    evaluate: Any = None,
) -> TrainingRun:
    """Begin the run of a folder, or go on with it."""
    run_dir.mkdir(exist_ok=True)
    resumed = any(run_dir.glob("checkpoint_*"))
    training = TrainingRun(spec, setup, resume_checkpoint(run_dir, spec) if resumed else None, pool=pool)
    metrics = MetricsLogger(run_dir, truncate_after=training.step if resumed else None)
    stop = StopAt(training, stop_at)
    try:
        saver = CheckpointSaver(run_dir, spec, keep=5)
        training.run(metrics, saver, stop=stop, evaluate=evaluate, progress=False)
    finally:
        metrics.close()
    return training


def lengthened(setup: Setup, max_steps: int) -> Setup:
    """The same with another goal."""
    return dataclasses.replace(setup, schedule=dataclasses.replace(setup.schedule, max_steps=max_steps))


def contents(run_dir: Path, step: int) -> dict[str, bytes]:
    """Every byte of a checkpoint, by name."""
    checkpoint = read_checkpoint(checkpoint_path(run_dir, step))
    arrays = {f"{g}/{n}": a.tobytes() for g, group in checkpoint.groups.items() for n, a in group.items()}
    return {**arrays, "metadata": json.dumps(checkpoint.metadata, sort_keys=True).encode()}


def logged(run_dir: Path) -> list[dict[str, Any]]:
    """What was logged, without what depends on the clock."""
    lines = read_metrics(run_dir / METRICS_FILE)
    return [{k: v for k, v in line.items() if k != "time" and not k.startswith("speed/")} for line in lines]


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Names of what is not the same in two checkpoints."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
