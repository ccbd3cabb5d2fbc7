"""Checkpoints that are either whole or refused.

``<run>/checkpoint_<step>/`` holds one safetensors file a group of arrays (``policy``, ``agent``, ``replay``, ...) and
``manifest.json`` (:mod:`racer.core.manifest`) with the size and SHA-256 of every file beside the metadata. A checkpoint
is written under a temporary name, synced, and committed by one rename; it is read only after its sums match. Nothing in
it can run: safetensors is a header and raw numbers, the rest is JSON.

A run that has a whole checkpoint has one at every instant, whenever it is killed: one that is written anew stays in
sight as ``checkpoint_<step>.replaced`` until the new one has its name, and :func:`recover_checkpoints` gives a whole
``.unfinished-`` folder the name that it was meant to get.

safetensors rather than orbax because a flipped byte must be an error and a half-written folder must not count as the
newest checkpoint; orbax restores both in silence.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from racer.core.errors import UsageError, shown
from racer.core.files import fsync_folder, open_regular, read_bytes, strict
from racer.core.manifest import (
    CHECKPOINT_FOLDER,
    FORMAT_VERSION,
    GROUP_NAME,
    MANIFEST,
    CheckpointError,
    list_checkpoints,
    read_manifest,
    sealed,
)

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "CheckpointError",
    "checkpoint_path",
    "latest_valid_checkpoint",
    "list_checkpoints",
    "prune_checkpoints",
    "read_checkpoint",
    "recover_checkpoints",
    "verify_checkpoint",
    "write_checkpoint",
]

_UNFINISHED = ".unfinished-"
_REPLACED = ".replaced"
_FILE_BYTES = 1 << 37

Arrays = dict[str, NDArray[Any]]

log = logging.getLogger(__name__)

# SHA-256 of the files that this process has written or summed, by (device, inode), with the (size, times) of then.
_summed: dict[tuple[int, int], tuple[tuple[int, int, int], str]] = {}


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
        step: transitions so far; an existing checkpoint of that step is replaced, unless it holds just this.
        groups: named groups of named arrays, a file a group.
        metadata: JSON values.

    Raises:
        OSError: the disk is full or the folder cannot be written; earlier checkpoints are untouched.
    """
    final = checkpoint_path(run_dir, step)
    metadata = strict(dict(metadata))
    if _holds(final, groups, metadata):
        return final
    temporary = run_dir / f"{_UNFINISHED}{step}-{os.getpid()}"
    _remove(temporary)
    try:
        temporary.mkdir(parents=True)
        files = {}
        for group, arrays in groups.items():
            if not GROUP_NAME.match(group):
                raise ValueError(f"checkpoint group {group!r} must be lower-case letters, digits and '_'")
            files[f"{group}.safetensors"] = _write_durably(temporary / f"{group}.safetensors", _serialized(arrays))
        manifest = sealed({"format": FORMAT_VERSION, "step": step, "files": files, "metadata": metadata})
        _write_durably(temporary / MANIFEST, (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode())
        fsync_folder(temporary)
        _commit(temporary, final)
    finally:
        _remove(temporary)
    return final


def verify_checkpoint(path: Path, groups: Collection[str] | None = None) -> dict[str, Any]:
    """Check a checkpoint's manifest and the sums of its files; return the manifest.

    A file that this process has written or summed before and that has not been touched since is not summed again.

    Args:
        path: the checkpoint's folder.
        groups: those whose sums are to be checked, all by default; of the other files only the size is.

    Raises:
        CheckpointError: naming the file that is wrong and how.
    """
    manifest = read_manifest(path)
    for name, entry in manifest["files"].items():
        if groups is None or name.removesuffix(".safetensors") in groups:
            _check_sum(path / name, entry)
        else:
            with _opened(path / name, entry):
                pass
    return manifest


def read_checkpoint(path: Path | str, groups: Collection[str] | None = None) -> Checkpoint:
    """Read a checkpoint, or only some of its groups, after checking their sums.

    Raises:
        CheckpointError: if it is missing, damaged, from a newer version, or not a checkpoint at all.
    """
    path = Path(path)
    manifest = read_manifest(path)
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
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
            raise CheckpointError(f"checkpoint file {str(path / name)!r} is not safetensors: {shown(error)}") from error
    return Checkpoint(path, manifest["step"], arrays, manifest["metadata"])


def latest_valid_checkpoint(run_dir: Path, groups: Collection[str] | None = None) -> Path:
    """Return the newest checkpoint whose sums match, warning of every newer one that was passed over.

    Args:
        run_dir: the run's folder.
        groups: those that will be read, all by default; of the other files only the size is checked.

    Raises:
        CheckpointError: if the run has none; the message says what was wrong with each.
    """
    reasons = []
    for path in reversed(list_checkpoints(run_dir)):
        try:
            verify_checkpoint(path, groups)
        except CheckpointError as error:
            reasons.append(str(error))
        else:
            for reason in reasons:
                log.warning("falling back to an older checkpoint: %s", reason)
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
            if _is_whole(path):
                kept += 1
                continue
            if kept == 0:
                continue
        _remove(path)
        removed.append(path)
    return removed


def recover_checkpoints(run_dir: Path) -> list[Path]:
    """Finish or undo what killed saves left behind; call it when a run starts, before its checkpoints are looked for.

    A whole leftover whose step has no whole checkpoint gets its name, the newest first; every other is deleted.

    Returns:
        The checkpoints that were recovered.
    """
    recovered = []
    for path in sorted(_leftovers(run_dir), key=lambda p: p.lstat().st_mtime_ns, reverse=True):
        if _is_whole(path):
            final = checkpoint_path(run_dir, read_manifest(path)["step"])
            if not _is_whole(final):
                _remove(final)
                os.rename(path, final)
                fsync_folder(run_dir)
                log.warning("recovered the checkpoint that a killed run left in %s as %s", path.name, final.name)
                recovered.append(final)
                continue
        _remove(path)
    return recovered


def _leftovers(run_dir: Path) -> Iterator[Path]:
    for entry in list(run_dir.iterdir()) if os.path.isdir(run_dir) else ():
        match = CHECKPOINT_FOLDER.match(entry.name)
        if entry.name.startswith(_UNFINISHED) or (match and match[2]):
            yield entry


def _commit(temporary: Path, final: Path) -> None:
    """Give a whole checkpoint its name; one that has it already is in sight under another name until then."""
    replaced = final.with_name(final.name + _REPLACED)
    if os.path.lexists(final):
        _remove(replaced)
        os.rename(final, replaced)
    os.rename(temporary, final)
    fsync_folder(final.parent)
    _remove(replaced)


def _holds(path: Path, groups: Mapping[str, Mapping[str, NDArray[Any]]], metadata: Mapping[str, Any]) -> bool:
    """Whether a whole checkpoint of just these arrays and metadata lies there."""
    try:
        manifest = verify_checkpoint(path)
    except CheckpointError:
        return False
    files = manifest["files"]
    if manifest["format"] != FORMAT_VERSION or manifest["metadata"] != metadata:
        return False
    if set(files) != {f"{group}.safetensors" for group in groups}:
        return False
    sums = (hashlib.sha256(_serialized(groups[name.removesuffix(".safetensors")])).hexdigest() for name in files)
    return all(found == entry["sha256"] for found, entry in zip(sums, files.values(), strict=True))


def _is_whole(path: Path) -> bool:
    try:
        verify_checkpoint(path)
    except CheckpointError:
        return False
    return True


def _remove(path: Path) -> None:
    """Delete a folder, its manifest first, so that one half deleted is no checkpoint."""
    with contextlib.suppress(OSError):
        (path / MANIFEST).unlink()
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _serialized(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    return safetensors.numpy.save({name: np.asarray(a, order="C") for name, a in arrays.items()})


def _write_durably(path: Path, data: bytes) -> dict[str, Any]:
    found = hashlib.sha256(data).hexdigest()
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        _remember(os.fstat(file.fileno()), found)
    return {"bytes": len(data), "sha256": found}


def _remember(info: os.stat_result, found: str) -> None:
    _summed[info.st_dev, info.st_ino] = (info.st_size, info.st_mtime_ns, info.st_ctime_ns), found


@contextlib.contextmanager
def _opened(file: Path, entry: Mapping[str, Any]) -> Iterator[tuple[io.BufferedReader, os.stat_result]]:
    """Open a checkpoint file after comparing its kind and size."""
    try:
        with open_regular(file, _FILE_BYTES) as (opened, info):
            if info.st_size != entry["bytes"]:
                raise UsageError(f"{str(file)!r} has {info.st_size} bytes instead of {entry['bytes']}")
            yield opened, info
    except UsageError as error:
        raise CheckpointError(f"checkpoint file {error}") from error


def _check_sum(file: Path, entry: Mapping[str, Any]) -> None:
    with _opened(file, entry) as (opened, info):
        now, found = _summed.get((info.st_dev, info.st_ino), (None, ""))
        if now != (info.st_size, info.st_mtime_ns, info.st_ctime_ns):
            found = hashlib.file_digest(opened, "sha256").hexdigest()
            _remember(info, found)
        _compare(file, found, entry)


def _verified_bytes(path: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    with _opened(path / name, entry):
        data = read_bytes(path / name, entry["bytes"])
        _compare(path / name, hashlib.sha256(data).hexdigest(), entry)
        return data


def _compare(file: Path, found: str, entry: Mapping[str, Any]) -> None:
    if found != entry["sha256"]:
        raise UsageError(f"{str(file)!r} is damaged: its SHA-256 does not match the manifest")
