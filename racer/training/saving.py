"""Saving and restoring a training run: what goes into which group of a checkpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from racer.core.checkpoint import (
    Checkpoint,
    CheckpointError,
    latest_valid_checkpoint,
    prune_checkpoints,
    read_checkpoint,
    recover_checkpoints,
    write_checkpoint,
)
from racer.core.errors import RacerError, UsageError, shown
from racer.core.manifest import json_sum
from racer.core.terminal import write_line
from racer.evaluation.checkpoints import resolve_checkpoint
from racer.training.past import check_layout
from racer.training.run_spec import ACTOR_PARAMS, DESCRIPTION, RunSpec, described_spec

__all__ = ["CheckpointSaver", "learnt_arrays", "policy_metadata", "resume_checkpoint"]

log = logging.getLogger(__name__)


def policy_metadata(spec: RunSpec, agent: Any) -> dict[str, Any]:
    """Return what evaluation needs to know of a policy besides its parameters."""
    described = spec.description
    return {**described, "run_sha256": json_sum(described), "policy_spec": agent.policy.spec}


class CheckpointSaver:
    """Writes checkpoints of a run and keeps the newest few.

    A full disk does not end the run at once: the failure is reported, training goes on with the older checkpoints
    intact, and only ``max_failures`` failures in a row raise.

    Args:
        run_dir: the run's folder.
        spec: written into every checkpoint.
        keep: number of checkpoints kept; older ones are deleted.
        max_failures: failed saves in a row that end the run.
    """

    def __init__(self, run_dir: Path, spec: RunSpec, *, keep: int, max_failures: int = 3) -> None:
        self._run_dir, self._spec, self._keep, self._max_failures = run_dir, spec, keep, max_failures
        self._failures = 0
        recover_checkpoints(run_dir)

    def save(
        self,
        step: int,
        agent: Any,
        groups: Mapping[str, Mapping[str, NDArray[Any]]],
        metadata: Mapping[str, Any],
        *,
        final: bool = False,
    ) -> Path | None:
        """Save the agent, its policy and further groups; returns the folder, or None where the disk refused.

        Raises:
            RacerError: after ``max_failures`` failures in a row, or at the first where the save is the run's ``final``
                one: there is no later one to make up for it.
        """
        everything = {"policy": agent.policy_params, "agent": agent.state_arrays(), **groups}
        try:
            path = write_checkpoint(
                self._run_dir, step, everything, {**policy_metadata(self._spec, agent), **metadata}
            )
            prune_checkpoints(self._run_dir, self._keep)
        except OSError as error:
            self._failures += 1
            log.warning("checkpoint of step %d was not written: %s", step, error.strerror or error)
            if final or self._failures >= self._max_failures:
                which = "at the end of the run" if final else f"{self._failures} times in a row"
                raise RacerError(
                    f"no checkpoint could be written {which} in {str(self._run_dir)!r}: {error.strerror or error}"
                ) from error
            return None
        self._failures = 0
        return path


def resume_checkpoint(run_dir: Path, spec: RunSpec) -> Checkpoint:
    """Read the newest valid checkpoint of a run, warning of damaged newer ones.

    Raises:
        CheckpointError: there is none.
        UsageError: it was written by an earlier training loop, or the run is described otherwise than in it.
    """
    recover_checkpoints(run_dir)
    checkpoint = read_checkpoint(latest_valid_checkpoint(run_dir))
    check_layout(checkpoint)
    metadata = checkpoint.metadata
    described = {part: metadata.get(part) for part in DESCRIPTION}
    # Checkpoints of format 1 have no sum over the description.
    if metadata.get("run_sha256", json_sum(described)) != json_sum(described):
        raise CheckpointError(f"checkpoint {str(checkpoint.path)!r} is damaged: it describes another run than its own")
    stored = described_spec(described, str(checkpoint.path)).description
    if stored != spec.description:
        difference = _difference(spec.description, stored)
        raise UsageError(f"run {str(run_dir)!r} is not the one in its checkpoint: {difference}")
    return checkpoint


def _difference(mine: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """Name the first difference between two descriptions, key by key."""
    for part in DESCRIPTION:
        ours, theirs = mine[part], stored[part]
        if not isinstance(ours, dict):
            ours, theirs = {part: ours}, {part: theirs}
        for key in sorted({*ours, *theirs}):
            if ours.get(key) != theirs.get(key):
                return f"run.json has {part} {key!r} {shown(ours.get(key))}, the checkpoint {shown(theirs.get(key))}"
    return "nothing"


def learnt_arrays(path: str, spec: RunSpec) -> dict[str, NDArray[Any]]:
    """Read the agent of another run, or of one of its checkpoints, for a run of ``spec`` to begin with.

    An exported policy holds its actor only: that is what is returned then, with a note on standard error.

    Raises:
        CheckpointError: there is no valid checkpoint.
        UsageError: the agent is of another kind.
    """
    try:
        folder = resolve_checkpoint(path, ["policy"])
        exported = not os.path.lexists(folder / "agent.safetensors")
        group = "policy" if exported else "agent"
        checkpoint = read_checkpoint(folder if exported else resolve_checkpoint(path, ["agent"]), groups=[group])
    except CheckpointError as error:
        raise CheckpointError(f"--start_from: {error}; name a run, one of its checkpoints or a policy") from error
    name = checkpoint.metadata.get("agent_name")
    if name != spec.agent_name:
        raise UsageError(f"--start_from {path!r} holds {name}, --config is for {spec.agent_name}")
    if not exported:
        return checkpoint.groups["agent"]
    note = f"note: {path} is an exported policy: the actor begins with it, critic and optimizers afresh"
    write_line(note, error=True)
    # The range of the actions stays that of the new run's configuration.
    acting = checkpoint.groups["policy"].items()
    return {f"{ACTOR_PARAMS}{name}": array for name, array in acting if name not in ("action_low", "action_high")}
