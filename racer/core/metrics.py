"""Where a run's numbers go: a JSON-lines file and TensorBoard always, Weights & Biases when it is configured.

The local file is the complete record; a tracker that is slow or unreachable never holds up training.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from racer.core.errors import UsageError
from racer.core.run_dir import strict

__all__ = ["METRICS_FILE", "MetricsLogger", "read_metrics", "wandb_mode"]

METRICS_FILE = "metrics.jsonl"

log = logging.getLogger(__name__)


class _Tracker(Protocol):
    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class MetricsLogger:
    """Writes named numbers under a step (transitions so far).

    Args:
        run_dir: the run's folder; ``metrics.jsonl`` and ``tensorboard/`` are made in it.
        config: the run's configuration, for trackers that show it.
        wandb_project: Weights & Biases project.
        truncate_after: on resume, lines beyond this step are dropped, so that none appears twice.
    """

    def __init__(
        self,
        run_dir: Path,
        config: Mapping[str, Any] | None = None,
        *,
        wandb_project: str = "racer",
        truncate_after: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        path = run_dir / METRICS_FILE
        if truncate_after is not None and path.exists():
            _drop_after(path, truncate_after)
        self._file = path.open("a", encoding="utf-8")
        self._trackers: list[_Tracker] = [_TensorBoard(run_dir / "tensorboard")]
        if wandb_mode() is not None:
            self._trackers.append(_WandB(run_dir, config or {}, wandb_project))

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Write one line and hand the same numbers to the trackers."""
        numbers = {name: strict(value) for name, value in values.items()}
        line = {"step": int(step), "time": self._clock(), **numbers}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        finite = {name: value for name, value in numbers.items() if isinstance(value, int | float)}
        for tracker in list(self._trackers):
            try:
                tracker.log(step, finite)
            except Exception as error:  # noqa: BLE001 - a tracker may raise anything and must not stop a run
                log.warning("%s stopped taking metrics and is left out from here: %s", type(tracker).__name__, error)
                self._trackers.remove(tracker)

    def close(self) -> None:
        """Flush and close everything."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics file; a last line cut short by a kill is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def wandb_mode() -> str | None:
    """Return "online" or "offline" if Weights & Biases is configured in the environment, else None.

    It is when ``WANDB_MODE`` says so, or when a project or a key is set; the mode is offline unless ``WANDB_MODE``
    is ``online``.

    Raises:
        UsageError: if the mode is unknown, or online without a key: nobody is ever asked to log in.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode is None:
        return "offline" if os.environ.get("WANDB_PROJECT") or os.environ.get("WANDB_API_KEY") else None
    if mode in ("disabled", "dryrun"):
        return None if mode == "disabled" else "offline"
    if mode not in ("online", "offline"):
        raise UsageError(f"WANDB_MODE is {mode!r}; choose online, offline or disabled")
    if mode == "online" and not os.environ.get("WANDB_API_KEY"):
        raise UsageError("WANDB_MODE=online needs WANDB_API_KEY; use WANDB_MODE=offline and sync later")
    return mode


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, run_dir: Path, config: Mapping[str, Any], project: str) -> None:
        import wandb

        id_file = run_dir / "wandb_id"
        run_id = id_file.read_text().strip() if id_file.exists() else secrets.token_hex(4)
        id_file.write_text(run_id + "\n")
        self._run = wandb.init(
            dir=str(run_dir),
            project=os.environ.get("WANDB_PROJECT", project),
            name=run_dir.name,
            id=run_id,
            resume="allow",
            mode=wandb_mode(),  # type: ignore[arg-type]
            config=strict(dict(config)),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _drop_after(path: Path, step: int) -> None:
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)
