"""What both training programs do with a run once it is planned and built."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from racer.agents.protocol import Agent
from racer.core.checkpoint import Checkpoint
from racer.core.metrics import MetricsLogger
from racer.training.checkpointing import CheckpointSaver, learnt_arrays, resume_checkpoint
from racer.training.device import learner_device
from racer.training.evaluation_hook import make_evaluation
from racer.training.flags import RunPlan
from racer.training.signals import StopSignals

__all__ = ["Trainer", "run_training", "starting_point"]


class Trainer(Protocol):
    """A run that can go to its end."""

    @property
    def step(self) -> int:
        """Transitions so far."""

    def run(
        self,
        metrics: MetricsLogger,
        saver: CheckpointSaver,
        *,
        stop: threading.Event,
        evaluate: Callable[[int, Agent], Mapping[str, float]] | None = None,
        progress: bool = True,
    ) -> Any:
        """Train until the goal is reached or ``stop`` is set."""


def starting_point(plan: RunPlan) -> tuple[Checkpoint | None, Mapping[str, NDArray[Any]] | None]:
    """Return the checkpoint that a resumed run goes on from, and the agent that a new one begins with, if any."""
    if plan.resumed:
        return resume_checkpoint(plan.folder), None
    other = plan.options.get("start_from")
    return None, None if other is None else learnt_arrays(other, plan.spec)


def run_training(plan: RunPlan, trainer: Trainer, *, setting: str = "", progress: bool = True) -> int:
    """Open the run's folder, train until the end or a stop signal, and return the exit code.

    Args:
        plan: the run.
        trainer: built, and restored where the run is resumed.
        setting: said beside the agent and the device.
        progress: whether a progress bar is shown.
    """
    run_dir, spec = plan.open(), plan.spec
    name = f"{spec.agent_name} on {spec.env_config['engine']}, learner on {learner_device()}{setting}"
    print(f"run {run_dir}: {name}")  # noqa: T201 - the program's output
    metrics = MetricsLogger(run_dir, plan.options, truncate_after=trainer.step if plan.resumed else None)
    saver = CheckpointSaver(run_dir, spec, keep=plan.options["keep_checkpoints"])
    evaluate = make_evaluation(spec, plan.options["eval_episodes"])
    with StopSignals() as stop:
        try:
            trainer.run(metrics, saver, stop=stop.event, evaluate=evaluate, progress=progress)
        finally:
            metrics.close()
    ending = "stopped" if stop.exit_code else "finished"
    print(f"{ending} at step {trainer.step}; go on with --resume {run_dir}")  # noqa: T201 - the program's output
    return stop.exit_code
