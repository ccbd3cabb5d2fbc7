"""Frozen policies for worlds, some of whose inhabitants are driven by them.

Worlds stand below the networks and import none of them. Whoever can read a policy offers to do so here, as
:mod:`racer.networks` does when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from racer.core.checkpoint import CheckpointError
from racer.core.errors import UsageError
from racer.core.shipped import resolve_checkpoint

__all__ = ["FrozenPolicy", "frozen_policy", "offer_reader"]


class FrozenPolicy(NamedTuple):
    """A policy to act with.

    Attributes:
        policy: with the verbs of :class:`racer.networks.policy.Policy`, on NumPy arrays.
        params: its arrays.
        world: that it was trained in, by name; None where its checkpoint does not say.
        env_config: the whole configuration of that world.
    """

    policy: Any
    params: Mapping[str, Any]
    world: str | None
    env_config: Mapping[str, Any]


Reader = Callable[[Path], FrozenPolicy]

_readers: list[Reader] = []
_read: dict[tuple[Path, int], FrozenPolicy] = {}


def offer_reader(reader: Reader) -> None:
    """Let :func:`frozen_policy` read checkpoint folders with ``reader``."""
    _readers[:] = [reader]


def frozen_policy(path: str) -> FrozenPolicy:
    """Return the policy of a checkpoint, a run or a shipped policy; a file that has not changed is read once.

    Raises:
        UsageError: there is none, it does not fit itself, or nobody has offered to read policies.
    """
    if not _readers:
        raise UsageError(f"nothing that reads policies was imported: import racer.networks before {path!r} is used")
    try:
        folder = resolve_checkpoint(path, ["policy"]).resolve()
        written = (folder / "manifest.json").stat().st_mtime_ns
        if (folder, written) not in _read:
            _read[folder, written] = _readers[0](folder)
    except OSError as error:
        raise UsageError(f"there is no policy at {path!r}: {error.strerror or error}") from error
    except CheckpointError as error:
        raise UsageError(f"the policy at {path!r}: {error}") from error
    return _read[folder, written]
