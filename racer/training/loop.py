"""The loop around a single-threaded trainer: when to log, evaluate and save."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from racer.core.metrics import MetricsLogger
from racer.training.checkpointing import CheckpointSaver
from racer.training.progress import ProgressBar, Throughput

__all__ = ["Intervals", "IteratingTrainer", "run_iterations"]


class Intervals(Protocol):
    """Amounts in transitions; an interval of 0 means never."""

    @property
    def max_steps(self) -> int: ...

    @property
    def log_interval(self) -> int: ...

    @property
    def eval_interval(self) -> int: ...

    @property
    def save_interval(self) -> int: ...


class IteratingTrainer(Protocol):
    """What the loop needs of a trainer."""

    step: int
    gradient_steps: int
    agent: Any

    def iterate(self) -> None:
        """Collect and update once."""

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the moment."""

    def save(self, saver: CheckpointSaver, *, final: bool = False) -> Path | None:
        """Write a checkpoint of everything."""


def run_iterations(
    trainer: IteratingTrainer,
    config: Intervals,
    metrics: MetricsLogger,
    saver: CheckpointSaver,
    *,
    stop: threading.Event,
    evaluate: Callable[[int, Any], Mapping[str, float]] | None,
    progress: bool,
) -> None:
    """Iterate until ``max_steps`` or until ``stop`` is set, logging, evaluating and saving on the way."""
    throughput, start = Throughput(), trainer.step

    def crossed(before: int, interval: int) -> bool:
        return interval > 0 and before // interval != trainer.step // interval

    with ProgressBar(config.max_steps, start, enabled=progress) as bar:
        while trainer.step < config.max_steps and not stop.is_set():
            before = trainer.step
            trainer.iterate()
            if crossed(before, config.log_interval):
                rates = throughput.update(steps=trainer.step, gradient_steps=trainer.gradient_steps)
                values = trainer.metrics()
                metrics.log(trainer.step, {**values, **{f"speed/{k}_per_second": v for k, v in rates.items()}})
                bar.show(trainer.step, _bar_values(values, rates))
            if evaluate is not None and crossed(before, config.eval_interval):
                metrics.log(trainer.step, evaluate(trainer.step, trainer.agent))
            if crossed(before, config.save_interval):
                trainer.save(saver)
    if trainer.step > start:
        trainer.save(saver, final=True)


def _bar_values(values: Mapping[str, float], rates: Mapping[str, float]) -> dict[str, Any]:
    on_policy = "agent/kl" in values
    learning = {"kl": values["agent/kl"]} if on_policy else {"utd": values["training/update_to_data"]}
    return {
        "steps/s": rates["steps"],
        "return": values.get("training/return", 0.0),
        "speed": values.get("training/mean_speed", 0.0),
        "collisions": values.get("training/collision_rate", 0.0),
        **learning,
    }
