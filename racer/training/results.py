"""What a finished run leaves beside its checkpoints: the acting policy alone, and its numbers as arrays."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np

from racer.core.checkpoint import latest_valid_checkpoint, prune_checkpoints, read_checkpoint, write_checkpoint
from racer.core.files import replace_file
from racer.core.metrics import METRICS_FILE, read_metrics

__all__ = ["FINAL_MODEL", "STATS_FILE", "write_final_model", "write_stats"]

FINAL_MODEL = "final_model"
STATS_FILE = "training_stats.npz"


def write_final_model(run_dir: Path) -> Path:
    """Write the policy of a run's newest checkpoint into ``final_model``, without what only training needs.

    Raises:
        CheckpointError: the run has no checkpoint.
    """
    newest = read_checkpoint(latest_valid_checkpoint(run_dir), groups=["policy"])
    folder = run_dir / FINAL_MODEL
    kept = {key: value for key, value in newest.metadata.items() if key != "loop"}
    written = write_checkpoint(folder, newest.step, {"policy": newest.groups["policy"]}, kept)
    prune_checkpoints(folder, 1)
    return written


def write_stats(run_dir: Path) -> Path:
    """Write a run's metrics as arrays: ``<name>`` ``[K]`` and ``<name>/step`` ``[K]`` for each number ever logged."""
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for line in read_metrics(run_dir / METRICS_FILE):
        for name, value in line.items():
            if name != "step" and not isinstance(value, bool) and (value is None or isinstance(value, int | float)):
                steps, values = columns.setdefault(name, ([], []))
                steps.append(line["step"])
                values.append(math.nan if value is None else float(value))
    arrays = {name: np.array(values) for name, (_, values) in columns.items()}
    arrays |= {f"{name}/step": np.array(steps) for name, (steps, _) in columns.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    replace_file(run_dir / STATS_FILE, buffer.getvalue())
    return run_dir / STATS_FILE
