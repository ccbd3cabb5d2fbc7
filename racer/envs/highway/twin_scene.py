"""Chosen initial scenes: ``env.reset(options={"scene": {"ego": {...}, "others": [{...}, ...]}})``.

A vehicle is a dictionary of the fields in :data:`FIELDS`. What it does not name keeps what the reset drew (``x``,
``y``, ``heading``, ``speed``, ``exponent``) or follows from the rest as in highway-env's constructors (``target_lane``,
``target_speed``, ``timer``); a vehicle without any field stays as drawn, and so does a side of the scene that is left
out. The scene has as many vehicles as it lists.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from racer.core.errors import UsageError, unknown_name
from racer.envs.highway.simulator import layout as at

if TYPE_CHECKING:
    from racer.envs.highway.simulator import HighwaySimulator

__all__ = ["FIELDS", "Scene", "place_compiled", "place_vehicles", "read_scene"]

FIELDS = {
    "x": "m along the road",
    "y": "m across it, lane k is centred on 4 k",
    "lane": "the lane to stand in the middle of, instead of y",
    "heading": "rad",
    "speed": "m/s, negative when reversing",
    "steering": "rad, the stored action",
    "acceleration": "m/s2, the stored action",
    "target_lane": "the lane that the car steers to",
    "target_speed": "m/s",
    "timer": "s since the last lane-change decision",
    "exponent": "IDM's velocity exponent",
    "crashed": "has it crashed?",
}
LANE_FIELDS = ("lane", "target_lane")
DRAWN = {"x": at.X, "y": at.Y, "heading": at.HEADING, "speed": at.SPEED}


@dataclass(frozen=True)
class Scene:
    """A checked scene.

    Attributes:
        vehicles: fields of each vehicle by its index, 0 being the ego.
        others: vehicles besides the ego, those that stay as drawn included.
    """

    vehicles: Mapping[int, Mapping[str, Any]]
    others: int

    @classmethod
    def parse(cls, given: Any, lanes: int, others: int) -> Scene:
        """Check ``options["scene"]``.

        Args:
            given: ``{"ego": {...}, "others": [{...}, ...]}``.
            lanes: lanes of the road.
            others: ``vehicles_count``, the size of a scene that lists no others.

        Raises:
            UsageError: naming what is wrong and where.
        """
        if not isinstance(given, Mapping):
            raise UsageError(f'a scene must be {{"ego": {{...}}, "others": [...]}}, got {given!r}')
        for key in given:
            if key not in ("ego", "others"):
                raise unknown_name("part of a scene", str(key), ("ego", "others"))
        vehicles = {}
        if given.get("ego"):
            vehicles[0] = _checked(given["ego"], "ego", lanes)
        listed = given.get("others")
        if listed is not None:
            if not isinstance(listed, Sequence) or isinstance(listed, str):
                raise UsageError(f"the others of a scene must be a list of dictionaries, got {listed!r}")
            others = len(listed)
            for i, fields in enumerate(listed):
                if fields:
                    vehicles[1 + i] = _checked(fields, f"others[{i}]", lanes)
        return cls(vehicles, others)

    def placed(self, index: int, drawn: Mapping[str, float]) -> dict[str, Any]:
        """Return all fields of vehicle ``index``; ``drawn`` holds ``x``, ``y``, ``heading`` and ``speed``.

        ``target_lane`` is None for the closest lane, ``exponent`` for the drawn one.
        """
        fields = self.vehicles[index]
        full: dict[str, Any] = {
            **drawn, "steering": 0.0, "acceleration": 0.0, "crashed": False, "target_lane": None, "exponent": None,
            **fields,
        }  # fmt: skip
        if "lane" in fields:
            full["y"] = at.LANE_WIDTH * full.pop("lane")
        full.setdefault("target_speed", full["speed"])
        full.setdefault("timer", (full["x"] + full["y"]) * math.pi % at.LANE_CHANGE_DELAY)
        return full


def _checked(fields: Any, where: str, lanes: int) -> dict[str, Any]:
    if not isinstance(fields, Mapping):
        raise UsageError(f"scene vehicle {where} must be a dictionary, got {fields!r}")
    checked: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in FIELDS:
            raise unknown_name(f"field of scene vehicle {where}", str(name), FIELDS)
        if name == "crashed":
            checked[name] = bool(value)
            continue
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(float(value)):
            raise UsageError(f"{name!r} of scene vehicle {where} must be a finite number, got {value!r}")
        number = float(value)
        if name in LANE_FIELDS and not (number.is_integer() and 0 <= number < lanes):
            raise UsageError(f"{name!r} of scene vehicle {where} must be a lane from 0 to {lanes - 1}, got {value!r}")
        checked[name] = int(number) if name in LANE_FIELDS else number
    if "lane" in checked and "y" in checked:
        raise UsageError(f"scene vehicle {where} has both 'lane' and 'y'; choose one")
    return checked


def speed_index(speed: float, target_speeds: np.ndarray) -> int:
    """Return the index of the target speed closest to ``speed``, rounding halves to even, as MDPVehicle does."""
    position = (speed - target_speeds[0]) / (target_speeds[-1] - target_speeds[0]) * (target_speeds.size - 1)
    return int(np.clip(np.round(position), 0, target_speeds.size - 1))


def place_compiled(simulator: HighwaySimulator, index: int, scene: Scene) -> None:
    """Write a scene into environment ``index``, which has just been reset."""
    real, whole = simulator._real[index], simulator._whole[index]
    closest = []
    for i in scene.vehicles:
        fields = scene.placed(i, {name: float(real[row, i]) for name, row in DRAWN.items()})
        real[[at.X, at.Y, at.HEADING, at.SPEED, at.STEERING, at.ACCELERATION, at.TIMER], i] = [
            fields[name] for name in ("x", "y", "heading", "speed", "steering", "acceleration", "timer")
        ]
        whole[at.CRASHED, i] = fields["crashed"]
        if fields["exponent"] is not None:
            real[at.EXPONENT, i] = fields["exponent"]
        if fields["target_lane"] is None:
            closest.append(i)
        else:
            whole[at.TARGET_LANE, i] = fields["target_lane"]
        if i > 0:
            real[at.TARGET_SPEED, i] = fields["target_speed"]
            continue
        real[at.TIMER, i] = 0.0  # the ego decides nothing by itself
        if simulator.parameters.wholes[at.EGO_KIND] == at.EGO_META:
            speeds = simulator.parameters.action.target_speeds
            whole[at.SPEED_INDEX, 0] = speed_index(fields["target_speed"], speeds)
            real[at.TARGET_SPEED, 0] = speeds[whole[at.SPEED_INDEX, 0]]
    simulator.set_scene(index)
    whole[at.TARGET_LANE, closest] = whole[at.LANE, closest]


def place_vehicles(vehicles: Sequence[Any], scene: Scene) -> None:
    """Write a scene into highway-env's own vehicles, which have just been created.

    Raises:
        UsageError: if there are not as many as the scene has, as after an override of ``_create_vehicles``.
    """
    if len(vehicles) != 1 + scene.others:
        raise UsageError(f"the scene has {1 + scene.others} vehicles, the environment created {len(vehicles)}")
    for i in scene.vehicles:
        vehicle = vehicles[i]
        x, y = vehicle.position
        drawn = {"x": float(x), "y": float(y), "heading": float(vehicle.heading), "speed": float(vehicle.speed)}
        fields = scene.placed(i, drawn)
        vehicle.position = np.array([fields["x"], fields["y"]])
        vehicle.heading, vehicle.speed, vehicle.crashed = fields["heading"], fields["speed"], fields["crashed"]
        vehicle.impact = None
        vehicle.action = {"steering": fields["steering"], "acceleration": fields["acceleration"]}
        vehicle.on_state_update()
        if hasattr(vehicle, "target_lane_index"):
            lane = fields["target_lane"]
            origin, end, closest = vehicle.lane_index
            vehicle.target_lane_index = (origin, end, closest if lane is None else lane)
            vehicle.target_speed = fields["target_speed"]
        if hasattr(vehicle, "target_speeds"):
            vehicle.speed_index = speed_index(fields["target_speed"], vehicle.target_speeds)
            vehicle.target_speed = vehicle.index_to_speed(vehicle.speed_index)
        if hasattr(vehicle, "timer"):
            vehicle.timer = fields["timer"]
        if fields["exponent"] is not None and hasattr(vehicle, "DELTA"):
            vehicle.DELTA = fields["exponent"]


def read_scene(vehicles: Sequence[Any]) -> dict[str, Any]:
    """Return highway-env vehicles, or views of compiled ones, as a scene that a reset takes."""
    scenes = []
    for vehicle in vehicles:
        fields = {
            "x": float(vehicle.position[0]),
            "y": float(vehicle.position[1]),
            "heading": float(vehicle.heading),
            "speed": float(vehicle.speed),
            "steering": float(vehicle.action["steering"]),
            "acceleration": float(vehicle.action["acceleration"]),
            "crashed": bool(vehicle.crashed),
        }
        if hasattr(vehicle, "target_lane_index"):
            fields["target_lane"] = int(vehicle.target_lane_index[2])
            fields["target_speed"] = float(vehicle.target_speed)
        if hasattr(vehicle, "timer"):
            fields["timer"] = float(vehicle.timer)
            fields["exponent"] = float(vehicle.DELTA)
        scenes.append(fields)
    return {"ego": scenes[0], "others": scenes[1:]}
