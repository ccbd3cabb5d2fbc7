"""Which column of an observation's rows is what, for networks that place rows by their distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from racer.core.errors import UsageError
from racer.envs.highway.geometry import LANE_WIDTH

__all__ = ["row_layout"]

_USUAL_FEATURES = ("presence", "x", "y", "vx", "vy")
_USUAL_X = 200.0
"""highway-env's range of x: five times the greatest speed (highway_env/envs/common/observation.py, normalize_obs)."""


def row_layout(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of :class:`racer.networks.encodings.Placement` for a resolved configuration.

    Raises:
        UsageError: rows without a position, or none at all.
    """
    observation = config["observation"]
    features = list(observation.get("features") or _USUAL_FEATURES)
    if config["flatten_observation"] or "x" not in features or "y" not in features:
        raise UsageError(
            "positional_encoding needs observations in rows with 'x' and 'y' among 'env.observation.features', and "
            "'env.flatten_observation' off"
        )
    scales = [1.0, 1.0]
    if observation.get("normalize", True):
        ranges = observation.get("features_range") or {}
        usual_y = LANE_WIDTH * float(config["lanes_count"])
        usual = {"x": (-_USUAL_X, _USUAL_X), "y": (-usual_y, usual_y)}
        # Where ranges are given, highway-env leaves features without one as they are.
        scales = [_half((ranges or usual)[name]) if name in (ranges or usual) else 1.0 for name in ("x", "y")]
    return {
        "x": features.index("x"), "y": features.index("y"),
        "presence": features.index("presence") if "presence" in features else None,
        "metres": (scales[0], scales[1]), "absolute": bool(observation.get("absolute", False)),
    }  # fmt: skip


def _half(interval: Any) -> float:
    low, high = (float(end) for end in interval)
    if low != -high:
        raise UsageError(f"positional_encoding needs ranges of x and y that are symmetric around 0, not {[low, high]}")
    return high
