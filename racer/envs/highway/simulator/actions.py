"""Actions: from what an agent chooses to what the ego is told (highway_env/envs/common/action.py)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from racer.core.errors import UsageError
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.simulator.readers import count, interval, not_covered

__all__ = ["ActionMap"]

META_ACTIONS = {
    # (longitudinal, lateral): highway-env's action tables
    (True, True): (at.LANE_LEFT, at.IDLE, at.LANE_RIGHT, at.FASTER, at.SLOWER),
    (True, False): (at.SLOWER, at.IDLE, at.FASTER),
    (False, True): (at.LANE_LEFT, at.IDLE, at.LANE_RIGHT),
}


@dataclass(frozen=True)
class ActionMap:
    """How an action becomes a command.

    Attributes:
        kind: ``ContinuousAction``, ``DiscreteAction`` or ``DiscreteMetaAction``.
        size: numbers in a continuous action, or choices of a discrete one.
        acceleration_range, steering_range: m/s2, rad; None where that axis is not controlled.
        clip: clip the action to [-1, 1] first.
        table: ``[A, 2]`` commands of a discrete action, or ``[A]`` meta-actions.
        target_speeds: m/s, of the meta-actions.
        scales: for float32 and float64 actions, where both axes are controlled and their ranges are plain Python
            numbers, which take the action's precision: the ranges' low ends and widths ``[2]``, and -1, 1 and 2, all in
            that precision.
    """

    kind: str
    size: int
    acceleration_range: tuple[Any, Any] | None
    steering_range: tuple[Any, Any] | None
    clip: bool
    table: np.ndarray
    target_speeds: np.ndarray
    scales: dict[np.dtype, tuple[np.ndarray, ...]] = field(default_factory=dict)

    @property
    def is_discrete(self) -> bool:
        """Is an action one whole number?"""
        return self.kind != "ContinuousAction"

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> ActionMap:
        """Parse an ``action`` dictionary of highway-env.

        Raises:
            UsageError: for a type or value that is not covered.
        """
        kind = config.get("type")
        longitudinal, lateral = bool(config.get("longitudinal", True)), bool(config.get("lateral", True))
        if kind == "DiscreteMetaAction":
            return cls._parse_meta(config, longitudinal, lateral)
        if kind not in ("ContinuousAction", "DiscreteAction"):
            raise not_covered("action.type", kind)
        if config.get("dynamical", False):
            raise not_covered("action.dynamical", config["dynamical"])
        if not (longitudinal or lateral):
            raise UsageError("config keys 'action.longitudinal' and 'action.lateral' cannot both be false")
        acceleration = interval(config.get("acceleration_range") or (-5, 5.0), "action.acceleration_range")
        steering = interval(config.get("steering_range") or (-np.pi / 4, np.pi / 4), "action.steering_range")
        mapped = cls(
            str(kind),
            int(longitudinal) + int(lateral),
            acceleration if longitudinal else None,
            steering if lateral else None,
            bool(config.get("clip", True)),
            np.zeros((0, 2)),
            np.zeros(2),
            _plain_scales((acceleration, steering)) if longitudinal and lateral else {},
        )
        return mapped if kind == "ContinuousAction" else mapped._discretized(config)

    @classmethod
    def _parse_meta(cls, config: Mapping[str, Any], longitudinal: bool, lateral: bool) -> ActionMap:
        if not (longitudinal or lateral):
            raise UsageError("config keys 'action.longitudinal' and 'action.lateral' cannot both be false")
        given = config.get("target_speeds")
        speeds = np.asarray(np.linspace(20, 30, 3) if given is None else given)
        if (
            speeds.ndim != 1
            or speeds.size < 2
            or speeds[0] == speeds[-1]
            or speeds.dtype not in (np.int64, np.float64)
        ):
            raise not_covered("action.target_speeds", given)
        table = np.array(META_ACTIONS[longitudinal, lateral], dtype=np.int64)
        return cls("DiscreteMetaAction", table.size, None, None, False, table, speeds.astype(np.float64))

    def _discretized(self, config: Mapping[str, Any]) -> ActionMap:
        """Tabulate a DiscreteAction: every combination of ``actions_per_axis`` values an axis."""
        per_axis = count(
            {"action.actions_per_axis": config.get("actions_per_axis", 3)}, "action.actions_per_axis", 1
        )
        low, high = -np.ones(self.size, dtype=np.float32), np.ones(self.size, dtype=np.float32)
        axes = np.linspace(low, high, per_axis).T
        points = np.array(list(itertools.product(*axes)), dtype=axes.dtype)
        table = np.zeros((len(points), 2))
        self.write_commands(points, table)
        return ActionMap(
            self.kind,
            len(points),
            self.acceleration_range,
            self.steering_range,
            self.clip,
            table,
            self.target_speeds,
        )

    def write_commands(self, actions: np.ndarray, command: np.ndarray) -> None:
        """Turn continuous actions ``[E, size]`` into ``[E, 2]`` accelerations (m/s2) and steering angles (rad).

        float32 actions stay float32 until they are stored, as in highway-env (utils.lmap).
        """
        scale = self.scales.get(actions.dtype)
        if scale is not None:
            # ready-made operands: with 16 environments turning Python's numbers into NumPy's is most of the work
            low, width, least, most, two = scale
            if self.clip:
                actions = np.minimum(np.maximum(actions, least), most)
            np.add(low, (actions + most) * width / two, out=command)
            return
        if self.clip:
            actions = np.minimum(np.maximum(actions, -1), 1)
        column = 0
        for k, bounds in enumerate((self.acceleration_range, self.steering_range)):
            if bounds is None:
                command[:, k] = 0.0
            else:
                low, high = bounds
                command[:, k] = low + (actions[:, column] - -1) * (high - low) / (1 - -1)
                column += 1


def _plain_scales(ranges: tuple[tuple[Any, Any], ...]) -> dict[np.dtype, tuple[np.ndarray, ...]]:
    """Tabulate ``ActionMap.scales``; empty where a range holds NumPy numbers, whose own precision counts."""
    if any(type(bound) not in (int, float) for bounds in ranges for bound in bounds):
        return {}
    return {
        np.dtype(precision): (
            np.array([low for low, _ in ranges], dtype=precision),
            np.array([high - low for low, high in ranges], dtype=precision),
            *(np.array(number, dtype=precision) for number in (-1, 1, 2)),
        )
        for precision in (np.float32, np.float64)
    }
