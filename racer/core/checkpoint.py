"""Checkpoints that are either whole or refused.

``<run>/checkpoint_<step>/`` holds one safetensors file a group of arrays (``policy``, ``agent``, ``replay``, ...) and
``manifest.json`` with the size and SHA-256 of every file beside the metadata. A checkpoint is written under a
temporary name, synced, and committed by one rename; it is read only after its sums match. Nothing in it can run:
safetensors is a header and raw numbers, the rest is JSON.

safetensors rather than orbax because a flipped byte must be an error and a half-written folder must not count as the
newest checkpoint; orbax restores both in silence.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.core.run_dir import fsync_folder, read_json, strict

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "CheckpointError",
    "checkpoint_path",
    "latest_valid_checkpoint",
    "list_checkpoints",
    "prune_checkpoints",
    "read_checkpoint",
    "remove_unfinished",
    "verify_checkpoint",
    "write_checkpoint",
]

FORMAT_VERSION = 1
MANIFEST = "manifest.json"

_FOLDER = re.compile(r"checkpoint_(\d+)\Z")
_UNFINISHED = ".unfinished-"
_GROUP = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")

Arrays = dict[str, NDArray[Any]]

log = logging.getLogger(__name__)


class CheckpointError(UsageError):
    """A checkpoint is missing, damaged, or of a kind that this version cannot read."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read: ``groups[group][name]`` are the arrays."""

    path: Path
    step: int
    groups: dict[str, Arrays]
    metadata: dict[str, Any]


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return run_dir / f"checkpoint_{step}"


def write_checkpoint(
    run_dir: Path, step: int, groups: Mapping[str, Mapping[str, NDArray[Any]]], metadata: Mapping[str, Any]
) -> Path:
    """Write a checkpoint atomically and return its folder.

    Args:
        run_dir: the run's folder.
        step: transitions so far; an existing checkpoint of that step is replaced.
        groups: named groups of named arrays, a file a group.
        metadata: JSON values.

    Raises:
        OSError: the disk is full or the folder cannot be written; earlier checkpoints are untouched.
    """
    final = checkpoint_path(run_dir, step)
    temporary = run_dir / f"{_UNFINISHED}{step}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        files = {}
        for group, arrays in groups.items():
            if not _GROUP.match(group):
                raise ValueError(f"checkpoint group {group!r} must be lower-case letters, digits and '_'")
            data = safetensors.numpy.save({name: np.asarray(a, order="C") for name, a in arrays.items()})
            files[f"{group}.safetensors"] = _write_durably(temporary / f"{group}.safetensors", data)
        manifest = {"format": FORMAT_VERSION, "step": step, "files": files, "metadata": strict(dict(metadata))}
        _write_durably(temporary / MANIFEST, (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode())
        fsync_folder(temporary)
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        fsync_folder(run_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def verify_checkpoint(path: Path) -> dict[str, Any]:
    """Check a checkpoint's manifest and the sums of all its files; return the manifest.

    Raises:
        CheckpointError: naming the file that is wrong and how.
    """
    manifest = _read_manifest(path)
    for name, entry in manifest["files"].items():
        _verified_bytes(path, name, entry)
    return manifest


def read_checkpoint(path: Path | str, groups: Collection[str] | None = None) -> Checkpoint:
    """Read a checkpoint, or only some of its groups, after checking their sums.

    Raises:
        CheckpointError: if it is missing, damaged, from a newer version, or not a checkpoint at all.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    wanted = [g.removesuffix(".safetensors") for g in manifest["files"]] if groups is None else list(groups)
    arrays: dict[str, Arrays] = {}
    for group in wanted:
        name = f"{group}.safetensors"
        if name not in manifest["files"]:
            raise CheckpointError(f"checkpoint {str(path)!r} has no {group!r} group, only {sorted(manifest['files'])}")
        data = _verified_bytes(path, name, manifest["files"][name])
        try:
            # Loaded arrays are views of the bytes: copied, so that they can be written to.
            arrays[group] = {k: np.array(v) for k, v in safetensors.numpy.load(data).items()}
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"checkpoint file {str(path / name)!r} is not safetensors: {error}") from error
    return Checkpoint(path, manifest["step"], arrays, manifest["metadata"])


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Return the checkpoint folders of a run, oldest first, whether whole or not."""
    found = []
    for entry in run_dir.iterdir() if run_dir.is_dir() else ():
        match = _FOLDER.match(entry.name)
        if match and entry.is_dir():
            found.append((int(match[1]), entry))
    return [path for _, path in sorted(found)]


def latest_valid_checkpoint(run_dir: Path) -> Path:
    """Return the newest checkpoint whose sums match, warning of every newer one that was passed over.

    Raises:
        CheckpointError: if the run has none; the message says what was wrong with each.
    """
    reasons = []
    for path in reversed(list_checkpoints(run_dir)):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            log.warning("falling back to an older checkpoint: %s", error)
            reasons.append(str(error))
        else:
            return path
    found = "; ".join(reasons) if reasons else "no folder named checkpoint_<step>"
    raise CheckpointError(f"no valid checkpoint in {str(run_dir)!r}: {found}")


def prune_checkpoints(run_dir: Path, keep: int) -> list[Path]:
    """Delete all but the newest ``keep`` valid checkpoints; returns what was deleted.

    Damaged ones older than the newest valid checkpoint go too. The last valid checkpoint is never deleted.
    """
    kept, removed = 0, []
    for path in reversed(list_checkpoints(run_dir)):
        if kept < max(keep, 1):
            try:
                verify_checkpoint(path)
            except CheckpointError:
                if kept == 0:
                    continue
            else:
                kept += 1
                continue
        shutil.rmtree(path, ignore_errors=True)
        removed.append(path)
    return removed


def remove_unfinished(run_dir: Path) -> list[Path]:
    """Delete what a killed save left behind; returns it."""
    left = sorted(run_dir.glob(f"{_UNFINISHED}*"))
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return left


def _write_durably(path: Path, data: bytes) -> dict[str, Any]:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _verified_bytes(path: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    file = path / name
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint file {str(file)!r} cannot be read: {error.strerror}") from error
    if len(data) != entry["bytes"]:
        raise CheckpointError(f"checkpoint file {str(file)!r} has {len(data)} bytes instead of {entry['bytes']}")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise CheckpointError(f"checkpoint file {str(file)!r} is damaged: its SHA-256 does not match the manifest")
    return data


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {str(path)!r}{_neighbour(path)}")
    if path.is_file():
        kind = " (a pickle is never loaded)" if path.suffix in (".pkl", ".pickle", ".p") else ""
        raise CheckpointError(f"{str(path)!r} is a file; a checkpoint is a folder with a {MANIFEST}{kind}")
    if not (path / MANIFEST).is_file():
        raise CheckpointError(f"{str(path)!r} is no checkpoint: it has no {MANIFEST}")
    try:
        manifest = read_json(path / MANIFEST)
    except UsageError as error:
        raise CheckpointError(f"checkpoint file {error}") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {str(path)!r} has format {version}, newer than this version of racer reads ({FORMAT_VERSION})"
        )
    if version != FORMAT_VERSION or not _well_formed(manifest):
        raise CheckpointError(f"checkpoint file {str(path / MANIFEST)!r} is malformed")
    return manifest


def _well_formed(manifest: Mapping[str, Any]) -> bool:
    files, step = manifest.get("files"), manifest.get("step")
    return (
        isinstance(step, int)
        and step >= 0
        and isinstance(manifest.get("metadata"), dict)
        and isinstance(files, dict)
        and all(
            isinstance(entry, dict)
            and isinstance(entry.get("bytes"), int)
            and isinstance(entry.get("sha256"), str)
            and name.endswith(".safetensors")
            and _GROUP.match(name.removesuffix(".safetensors"))
            for name, entry in files.items()
        )
    )


def _neighbour(path: Path) -> str:
    siblings = [p.name for p in list_checkpoints(path.parent)]
    return f"; {str(path.parent)!r} holds {', '.join(siblings)}" if siblings else ""
