"""Descriptions of policies in the forms that earlier versions wrote, brought into today's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from racer.core.errors import UsageError

__all__ = ["upgraded"]


def upgraded(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a policy's description in today's form; one that is in it already comes back as it is.

    Format 1 had a ``trunk`` with a flat ``observation_dim``, a scale for each of ``vehicle_features`` numbers of a row,
    and ``pointnet_dims``.

    Raises:
        UsageError: the description is none of format 1 either.
    """
    if "trunk" not in spec:
        return dict(spec)
    trunk = spec["trunk"]
    needed = ("observation_dim", "hidden_dims", "activation", "observation_scale", "pointnet_dims", "vehicle_features")
    missing = [name for name in needed if not isinstance(trunk, Mapping) or name not in trunk]
    if missing:
        raise UsageError(f"policy's trunk lacks: {', '.join(missing)}")
    size, row, scale = trunk["observation_dim"], trunk["vehicle_features"], trunk["observation_scale"]
    in_rows = bool(trunk["pointnet_dims"]) or isinstance(scale, list | tuple)
    if not (isinstance(size, int) and isinstance(row, int) and row > 0 and (size % row == 0 or not in_rows)):
        raise UsageError(f"a policy's {size!r} observed numbers do not divide into rows of {row!r}")
    encoder: dict[str, Any] = {"kind": "flat"}
    if trunk["pointnet_dims"]:
        encoder = {"kind": "pointnet", "widths": trunk["pointnet_dims"]}
    torso = {name: trunk[name] for name in ("hidden_dims", "activation", "observation_scale")}
    rest = {name: value for name, value in spec.items() if name != "trunk"}
    shape = [size // row, row] if in_rows else [size]
    return {**rest, "observation_shape": shape, "torso": {**torso, "encoder": encoder, "memory": None}}
