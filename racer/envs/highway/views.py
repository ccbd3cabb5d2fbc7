"""Views of the highway's observation and controllers of its actions, on NumPy or JAX arrays.

Both read kinematic rows ``[..., V, 6]`` with the features :data:`racer.envs.highway.reward.ROW_FEATURES`, in metres,
m/s and rad: the ego's row in road coordinates, the others relative to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from racer.core.errors import UsageError
from racer.envs.highway.geometry import LANE_WIDTH
from racer.envs.highway.reward import ROW_FEATURES

__all__ = ["CONTROLLERS", "VIEWS", "LaneSlots", "Targets"]

LANE_COUNTS = range(1, 9)
USUAL_LANES = 4

OFFSETS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Lanes beside the ego's own that have slots."""

ALONGSIDE = 6.0
"""Vehicles less than this ahead count as alongside (m)."""

CHANGING_SPEED = 0.25
"""Vehicles that move sideways faster than this are in two lanes (m/s)."""

_FAR = 1e9


@dataclass(frozen=True)
class LaneSlots:
    """Per lane the nearest car alongside or behind and the two nearest ahead, then the ego itself: 84 numbers.

    A slot is ``(1, 0.04 dx, 0.1 dvx, 0.25 dy, 0.3 vy)``, zeros where it is empty; a car that changes lanes counts in
    both. Then follow the ego's offset from its lane's centre, heading, speed, sideways speed, and which lanes exist.

    Attributes:
        lanes: of the road.
    """

    lanes: int = USUAL_LANES

    def shape(self, observation_shape: tuple[int, ...]) -> tuple[int, ...]:
        """See :class:`racer.envs.world.View`."""
        _check_rows("view 'lane_slots'", observation_shape)
        return (len(OFFSETS) * 3 * 5 + 4 + len(OFFSETS),)

    def __call__(self, observations: Any) -> Any:
        """Map ``[..., V, 6]`` to ``[..., 84]``."""
        xp = observations.__array_namespace__()
        y, vx, vy, heading = (observations[..., 0, i] for i in (2, 3, 4, 5))
        lane = xp.clip(xp.round(y / LANE_WIDTH), 0.0, self.lanes - 1.0)
        around = xp.stack([lane + offset for offset in OFFSETS], axis=-1)
        others = observations[..., 1:, :]
        sideways = others[..., 4] + vy[..., None]
        inside = self._inside(xp, others, y, sideways, around)
        features = xp.stack(
            [
                xp.ones_like(sideways),
                0.04 * others[..., 1],
                0.1 * others[..., 3],
                0.25 * others[..., 2],
                0.3 * sideways,
            ],
            axis=-1,
        )
        slots = self._slots(xp, inside, others[..., 1], features)
        ego = xp.stack(
            [0.5 * (y - LANE_WIDTH * lane), 8.0 * heading, 0.1 * (vx - 35.0), 0.25 * vy], axis=-1
        )
        exists = ((around >= 0.0) & (around <= self.lanes - 1.0)).astype(observations.dtype)
        return xp.concatenate([slots, ego, exists], axis=-1)

    @staticmethod
    def _inside(xp: Any, others: Any, y: Any, sideways: Any, around: Any) -> Any:
        """Return which vehicle is in which lane, ``[..., 5, V-1]``."""
        place = (others[..., 2] + y[..., None]) / LANE_WIDTH
        changing = xp.abs(sideways) > CHANGING_SPEED
        low = xp.where(changing, xp.floor(place), xp.round(place))[..., None, :]
        high = xp.where(changing, xp.ceil(place), xp.round(place))[..., None, :]
        lanes = around[..., :, None]
        return (others[..., None, :, 0] > 0.5) & ((low == lanes) | (high == lanes))

    @staticmethod
    def _slots(xp: Any, inside: Any, dx: Any, features: Any) -> Any:
        """Return the slots of all lanes, ``[..., 75]``."""
        ahead = inside & (dx > ALONGSIDE)[..., None, :]
        distance = xp.abs(dx)[..., None, :]
        index = xp.arange(dx.shape[-1])
        filled: list[tuple[Any, Any]] = []
        for candidates in (inside & ~ahead, ahead, None):
            if candidates is None:
                candidates = ahead & (index != filled[-1][0][..., None])
            nearest = xp.argmin(xp.where(candidates, distance, _FAR), axis=-1)
            filled.append((nearest, xp.any(candidates, axis=-1)))
        chosen = xp.stack([nearest for nearest, _ in filled], axis=-1)
        found = xp.stack([any_ for _, any_ in filled], axis=-1)
        lead = chosen.shape[:-2]
        flat = chosen.reshape(*lead, -1)
        picked = xp.take_along_axis(features, flat[..., None], axis=-2)
        return (picked * found.reshape(*lead, -1)[..., None]).reshape(*lead, -1).astype(features.dtype)


@dataclass(frozen=True)
class Targets:
    """Aims at a speed and a place across the road; gives acceleration and steering.

    The speed lies between 20 and 40 m/s, the place up to 4.5 m to either side and within the road. Proportional control
    of the speed; a lateral speed from the distance, a heading from it, the steering from the error of the heading.

    Attributes:
        lanes: of the road.
    """

    lanes: int = USUAL_LANES

    names = ("target_speed", "target_offset")

    def __call__(self, observations: Any, actions: Any) -> Any:
        """Map ``[..., V, 6]`` and ``[..., 2]`` in [-1, 1] to ``[acceleration, steering]`` in [-1, 1]."""
        xp = observations.__array_namespace__()
        y, vx, vy, heading = (observations[..., 0, i] for i in (2, 3, 4, 5))
        speed = xp.hypot(vx, vy)
        moving = xp.maximum(speed, 1.0)
        target_speed = 30.0 + 10.0 * actions[..., 0]
        edge = LANE_WIDTH * (self.lanes - 1) + 0.6
        target = xp.clip(y + 4.5 * actions[..., 1], -0.6, edge)
        lateral_speed = xp.clip(1.5 * (target - y), -4.0, 4.0)
        target_heading = xp.clip(lateral_speed / moving, -0.7, 0.7)
        steering = 17.5 * (target_heading - heading) / moving / (math.pi / 4.0)
        acceleration = xp.clip(0.5 * (target_speed - speed), -1.0, 1.0)
        return xp.stack([acceleration, xp.clip(steering, -0.1, 0.1)], axis=-1)


def _by_lanes(name: str, made: type[Any]) -> dict[str, Any]:
    """Return a transform under its name for the usual road, and under ``name_<lanes>`` for each other."""
    return {name: made(USUAL_LANES), **{f"{name}_{lanes}": made(lanes) for lanes in LANE_COUNTS}}


VIEWS: dict[str, Any] = _by_lanes("lane_slots", LaneSlots)
CONTROLLERS: dict[str, Any] = _by_lanes("targets", Targets)


def _check_rows(what: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[1] != len(ROW_FEATURES) or shape[0] < 2:
        features = ", ".join(ROW_FEATURES)
        raise UsageError(f"{what} reads rows of {features} (flatten_observation off), these have shape {list(shape)}")
