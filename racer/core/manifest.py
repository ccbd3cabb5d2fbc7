"""What a checkpoint says of itself: ``manifest.json``, with a format number and a sum over everything in it.

Format 2 holds ``format``, ``step``, ``files`` (size and SHA-256 by name), ``metadata`` and ``sha256``, the sum over the
other four. Format 1 had no sum over itself; it is still read. There is no format 0, and a newer one than this version
writes is refused: what it means is not known here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from racer.core.errors import UsageError, shown
from racer.core.files import read_json

__all__ = [
    "CHECKPOINT_FOLDER",
    "FORMAT_VERSION",
    "GROUP_NAME",
    "MANIFEST",
    "CheckpointError",
    "json_sum",
    "list_checkpoints",
    "read_manifest",
    "sealed",
]

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
CHECKPOINT_FOLDER = re.compile(r"checkpoint_(\d{1,18})(\.replaced)?\Z")
GROUP_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_KEYS = {
    1: {"format", "step", "files", "metadata"},
    2: {"format", "step", "files", "metadata", "sha256"},
}


class CheckpointError(UsageError):
    """A checkpoint is missing, damaged, or of a kind that this version cannot read."""


def json_sum(value: Any) -> str:
    """Return the SHA-256 of a JSON value, whatever the order of its keys and the space between them."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with the sum over the rest of it, whatever it held before."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return {**rest, "sha256": json_sum(rest)}


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and check the manifest in a checkpoint's folder.

    Raises:
        CheckpointError: there is none, it is damaged or malformed, of another format than those known here, or of
            another step than the folder's name says.
    """
    manifest = _read(path)
    version: Any = manifest.get("format") if isinstance(manifest, dict) else None
    if _is_count(version) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {str(path)!r} has format {version}, newer than this version of racer reads ({FORMAT_VERSION})"
        )
    if _is_count(version) and version not in _KEYS:
        raise CheckpointError(f"checkpoint {str(path)!r} has format {version}, which no version of racer writes")
    if not _is_count(version) or set(manifest) != _KEYS[version] or not _well_formed(manifest):
        raise CheckpointError(f"checkpoint file {str(path / MANIFEST)!r} is malformed")
    if manifest != (sealed(manifest) if "sha256" in manifest else manifest):
        raise CheckpointError(f"checkpoint file {str(path / MANIFEST)!r} is damaged: its SHA-256 does not match itself")
    named = CHECKPOINT_FOLDER.match(path.name)
    if named and int(named[1]) != manifest["step"]:
        raise CheckpointError(f"checkpoint {str(path)!r} holds step {manifest['step']}, against its name")
    return manifest


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Return the checkpoint folders of a run, oldest first, whether whole or not."""
    found: dict[int, Path] = {}
    for entry in run_dir.iterdir() if os.path.isdir(run_dir) else ():
        match = CHECKPOINT_FOLDER.match(entry.name)
        # One that is being replaced counts only while its successor has no name.
        if match and entry.is_dir() and not (match[2] and int(match[1]) in found):
            found[int(match[1])] = entry
    return [path for _, path in sorted(found.items())]


def _read(path: Path) -> Any:
    if not os.path.lexists(path):
        siblings = [p.name for p in list_checkpoints(path.parent)]
        hint = f"; {str(path.parent)!r} holds {', '.join(siblings)}" if siblings else ""
        raise CheckpointError(f"there is no checkpoint at {shown(str(path))}{hint}")
    if not path.is_dir():
        kind = " (a pickle is never loaded)" if path.suffix in (".pkl", ".pickle", ".p") else ""
        raise CheckpointError(f"{shown(str(path))} is no folder; a checkpoint is a folder with a {MANIFEST}{kind}")
    if not os.path.lexists(path / MANIFEST):
        raise CheckpointError(f"{str(path)!r} is no checkpoint: it has no {MANIFEST}")
    try:
        return read_json(path / MANIFEST)
    except UsageError as error:
        raise CheckpointError(f"checkpoint file {error}") from error


def _well_formed(manifest: Mapping[str, Any]) -> bool:
    files = manifest.get("files")
    return (
        _is_count(manifest.get("step"))
        and isinstance(manifest.get("metadata"), dict)
        and isinstance(files, dict)
        and all(
            isinstance(entry, dict)
            and _is_count(entry.get("bytes"))
            and isinstance(entry.get("sha256"), str)
            and _SHA256.match(entry["sha256"])
            and name.endswith(".safetensors")
            and GROUP_NAME.match(name.removesuffix(".safetensors"))
            for name, entry in files.items()
        )
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
