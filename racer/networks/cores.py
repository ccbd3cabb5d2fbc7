"""The networks with a memory by name, as agents' configurations and policies' descriptions name them."""

from __future__ import annotations

from typing import Any

from racer.networks.fields import build_kind, described
from racer.networks.memory import Core
from racer.networks.recurrent import Gru
from racer.networks.transformer import Transformer

__all__ = ["CORES", "build_core", "core_spec"]

CORES: dict[str, type[Any]] = {"gru": Gru, "transformer": Transformer}


def build_core(given: Any) -> Core | None:
    """Build a core from its description, ``{"kind": "gru", "size": 64}``, or its bare name; None for no memory.

    Raises:
        UsageError: an unknown kind or field, or a value out of range.
    """
    if given is None or given == "none":
        return None
    core: Core = build_kind("memory", CORES, given)
    return core


def core_spec(core: Core | None) -> dict[str, Any] | None:
    """Return the JSON form of a core."""
    return None if core is None else described(CORES, core)
