"""Runs of earlier versions: their agents' configurations in today's words, and checkpoints that cannot be resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from racer.core.checkpoint import Checkpoint
from racer.core.errors import UsageError

__all__ = ["check_layout", "upgraded_agent_config"]


def upgraded_agent_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return an agent's configuration with the encoder named as today.

    An earlier one has ``pointnet_dims`` (widths over the rows of an observation, empty for none) and
    ``vehicle_features`` (numbers in a row, which now comes from the observation's shape).
    """
    upgraded = dict(config)
    widths = upgraded.pop("pointnet_dims", None)
    upgraded.pop("vehicle_features", None)
    if widths is not None:
        upgraded["encoder"] = {"kind": "pointnet", "widths": list(widths)} if widths else "flat"
    return upgraded


def check_layout(checkpoint: Checkpoint) -> None:
    """Raise UsageError where a run cannot go on from a checkpoint, as an earlier version wrote it."""
    if "loop" not in checkpoint.metadata:
        raise UsageError(
            f"checkpoint {str(checkpoint.path)!r} was written by an earlier version of the training loop, which cannot "
            "be resumed exactly; begin a new run with its networks: --start_from"
        )
