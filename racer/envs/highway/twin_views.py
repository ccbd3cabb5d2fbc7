"""The compiled state as highway-env's own objects: vehicles, road, lanes, all to be read.

A view is an instance of a subclass of the highway-env class that it stands for, with the state's attributes read from
the packed arrays: every method of highway-env that only reads works on it (``to_dict``, ``lane_offset``,
``neighbour_vehicles``, its graphics, ...). Writing asks the owner first, which raises, or has the views turned into the
plain objects (:meth:`SceneViews.release`), with the same identities.
"""

from __future__ import annotations

import copy
from abc import ABC, ABCMeta
from collections import deque
from typing import Any

import numpy as np
from highway_env.road.lane import StraightLane
from highway_env.road.road import Road, RoadNetwork
from highway_env.utils import class_from_path
from highway_env.vehicle.behavior import LinearVehicle
from highway_env.vehicle.controller import ControlledVehicle, MDPVehicle
from highway_env.vehicle.kinematics import Vehicle

from racer.envs.highway.simulator import layout as at
from racer.envs.highway.simulator.config import BEHAVIORS
from racer.envs.highway.twin_guards import Guard, GuardedArray, GuardedDict, GuardedList
from racer.envs.highway.twin_simulator import TwinSimulator

__all__ = ["SceneViews"]

ORIGIN, END = "0", "1"  # the nodes of highway-env's straight road


class SceneViews:
    """Views of environment 0 of a simulator.

    Args:
        simulator: the compiled scene.
        guard: is asked before anything is written.
        np_random: the environment's generator, shown as the road's.
        owner: what the views belong to: a deep copy of it makes views of its own.
    """

    def __init__(self, simulator: TwinSimulator, guard: Guard, np_random: Any, owner: Any = None) -> None:
        self.simulator, self.guard, self.owner = simulator, guard, owner
        self.real, self.whole = simulator.arrays()
        self.has_meta_ego = simulator.parameters.wholes[at.EGO_KIND] == at.EGO_META
        other = class_from_path(BEHAVIORS + simulator.parameters.traffic)
        network = RoadNetwork.straight_road_network(
            int(simulator.parameters.wholes[at.LANES]), speed_limit=int(at.SPEED_LIMIT)
        )
        self.road = Road(
            network,
            np_random=np_random,
            neighbour_vehicles_connected_lanes=simulator.config["neighbour_vehicles_connected_lanes"],
        )
        kinds = [MDPVehicle if self.has_meta_ego else Vehicle] + [other] * (self.real.shape[1] - 1)
        self.vehicles = [view_of(kind, self, i) for i, kind in enumerate(kinds)]
        self._containers: list[GuardedList | GuardedDict] = []
        self._lock()

    def _lock(self) -> None:
        road, network = self.road, self.road.network
        lanes = network.graph[ORIGIN][END]
        for lane in lanes:
            _become(lane, GuardedLane, self.guard)
        roads = self._guarded(GuardedDict({END: self._guarded(GuardedList(lanes, "the road's lanes", self.guard))},
                                          "the road network", self.guard))  # fmt: skip
        network.graph = self._guarded(GuardedDict({ORIGIN: roads}, "the road network", self.guard))
        road.vehicles = self._guarded(GuardedList(self.vehicles, "road.vehicles", self.guard))
        road.objects = self._guarded(GuardedList([], "road.objects", self.guard))
        _become(network, GuardedNetwork, self.guard)
        _become(road, GuardedRoad, self.guard)

    def _guarded(self, container: Any) -> Any:
        self._containers.append(container)
        return container

    def freeze(self) -> None:
        """Keep the present values: these vehicles' episode is over and the arrays go on to the next."""
        self.real, self.whole = self.real.copy(), self.whole.copy()

    def release(self) -> None:
        """Turn every view into the plain, writable highway-env object that it stands for."""
        for vehicle in self.vehicles:
            vehicle.release()
        for container in self._containers:
            container.guard = None
        for thing, kind in (
            *((lane, StraightLane) for lane in self.road.network.graph[ORIGIN][END]),
            (self.road.network, RoadNetwork),
            (self.road, Road),
        ):
            object.__delattr__(thing, "_guard")
            object.__setattr__(thing, "__class__", kind)

    def detached(self) -> SceneViews:
        """Return plain objects in the same state, a scene of their own."""
        copied = SceneViews(self.simulator, self.guard, copy.deepcopy(self.road.np_random))
        copied.real, copied.whole = self.real.copy(), self.whole.copy()
        copied.release()
        return copied


def _become(thing: Any, kind: type, guard: Guard) -> None:
    thing._guard = guard
    thing.__class__ = kind


class Guarded:
    """Asks the guard before an attribute that highway-env knows is set; others (a colour, a mark) are free."""

    _guard: Guard

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(self, name):
            self._guard(f"{type(self).__name__}.{name}")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        self._guard(f"{type(self).__name__}.{name}")
        object.__delattr__(self, name)


class GuardedLane(Guarded, StraightLane):
    """A lane that reports writes; a copy is a plain lane."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuilt, (StraightLane, {k: v for k, v in self.__dict__.items() if k != "_guard"})


class GuardedNetwork(Guarded, RoadNetwork):
    """A road network that reports writes; a copy is a plain network."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuilt, (RoadNetwork, {k: v for k, v in self.__dict__.items() if k != "_guard"})


class GuardedRoad(Guarded, Road):
    """The road of a compiled scene; a copy is a plain road with plain vehicles."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.vehicles[0].scene_copy(memo).road

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _itself, (self.vehicles[0].scene_copy({}).road,)


def _itself(thing: Any) -> Any:
    return thing


def _rebuilt(kind: type, attributes: dict[str, Any]) -> Any:
    thing: Any = kind.__new__(kind)  # type: ignore[call-overload]
    thing.__dict__.update(attributes)
    return thing


GuardedLane.__name__, GuardedNetwork.__name__, GuardedRoad.__name__ = "StraightLane", "RoadNetwork", "Road"


class StateProperty(property):
    """An attribute that is read from the scene; the guard is asked before it is written."""


def state(read: Any) -> Any:
    """Turn a method that reads from the scene into such an attribute."""
    name = read.__name__

    def write(self: Any, value: Any) -> None:
        self._scene.guard(f"a vehicle's {name}")
        setattr(self, name, value)  # the view has become a plain vehicle

    return StateProperty(read, write, doc=read.__doc__)


class ViewMeta(ABCMeta):
    """Makes a view's class equal to the class that it stands for, which highway-env's graphics compare."""

    def __eq__(cls, other: object) -> bool:
        return cls is other or getattr(cls, "stands_for", None) is other

    def __hash__(cls) -> int:
        return type.__hash__(getattr(cls, "stands_for", cls))


class VehicleView(ABC, metaclass=ViewMeta):
    """What the views of all kinds of vehicle read from the scene.

    The base is that of highway-env's objects: an instance then has their layout and can become one of them.
    """

    _scene: SceneViews
    _index: int

    def __init__(self, scene: SceneViews, index: int) -> None:
        parameters = scene.simulator.parameters
        plain: dict[str, Any] = {
            "_scene": scene, "_index": index, "road": scene.road, "collidable": True, "solid": True, "hit": False,
            "check_collisions": index == 0 or not scene.simulator.fast,
            "diagonal": np.sqrt(self.LENGTH**2 + self.WIDTH**2),
            "prediction_type": "constant_steering", "log": [], "history": deque(maxlen=Vehicle.HISTORY_SIZE),
        }  # fmt: skip
        if index == 0:
            plain["MIN_SPEED"] = float(parameters.reals[at.EGO_MIN_SPEED])
            plain["MAX_SPEED"] = float(parameters.reals[at.EGO_MAX_SPEED])
        if isinstance(self, ControlledVehicle):
            plain["route"] = None
        if index == 0 and isinstance(self, MDPVehicle):
            plain["target_speeds"] = parameters.action.target_speeds.copy()
        if index > 0:
            plain["enable_lane_change"] = True
        if isinstance(self, LinearVehicle):
            plain["collecting_data"] = True
        self.__dict__.update(plain)

    LENGTH: float
    WIDTH: float

    def _real(self, row: int) -> Any:
        return self._scene.real[row, self._index]

    def _lane_index(self, row: int) -> tuple[str, str, int]:
        return (ORIGIN, END, int(self._scene.whole[row, self._index]))

    @state
    def position(self) -> np.ndarray:
        """``[2]`` m."""
        values = self._scene.real[at.X : at.Y + 1, self._index]
        return GuardedArray.of(values, self, "position", self._scene.guard)

    @state
    def heading(self) -> float:
        return self._real(at.HEADING)

    @state
    def speed(self) -> float:
        return self._real(at.SPEED)

    @state
    def lane_index(self) -> tuple[str, str, int]:
        return self._lane_index(at.LANE)

    @state
    def lane(self) -> StraightLane:
        return self._scene.road.network.get_lane(self._lane_index(at.LANE))

    @state
    def crashed(self) -> bool:
        return bool(self._scene.whole[at.CRASHED, self._index])

    @state
    def impact(self) -> np.ndarray | None:
        """``[2]`` m, the displacement that a collision imposes in the next frame."""
        if not self._scene.whole[at.HAS_IMPACT, self._index]:
            return None
        values = self._scene.real[at.IMPACT_X : at.IMPACT_Y + 1, self._index]
        return GuardedArray.of(values, self, "impact", self._scene.guard)

    @state
    def action(self) -> dict[str, float]:
        values = {"steering": float(self._real(at.STEERING)), "acceleration": float(self._real(at.ACCELERATION))}
        return GuardedDict(values, "a vehicle's action", self._scene.guard, lambda: self.action)

    def __setattr__(self, name: str, value: Any) -> None:
        known = getattr(type(self), name, None)
        if isinstance(known, property) and known.fset is not None:
            known.fset(self, value)
            return
        if hasattr(self, name):
            self._scene.guard(f"a vehicle's {name}")
        object.__setattr__(self, name, value)

    def release(self) -> None:
        """Become the plain vehicle."""
        values: dict[str, Any] = {}
        for name in self.state_names():
            value = {} if name == "data" else getattr(self, name)
            values[name] = np.array(value) if isinstance(value, np.ndarray) else value
        values["action"] = dict(values["action"])
        plain = {name: value for name, value in self.__dict__.items() if name not in ("_scene", "_index")}
        object.__setattr__(self, "__class__", type(self).stands_for)
        self.__dict__.clear()
        self.__dict__.update(plain)
        self.__dict__.update(values)

    @classmethod
    def state_names(cls) -> list[str]:
        """Return the attributes that are read from the scene."""
        return [name for kind in cls.__mro__ for name, value in vars(kind).items() if isinstance(value, StateProperty)]

    stands_for: type

    def scene_copy(self, memo: dict[int, Any]) -> SceneViews:
        """Return the plain copy of this vehicle's scene that belongs to a deep copy in progress."""
        key = id(self._scene)
        if key not in memo:
            memo[key] = self._scene.detached()
            memo.setdefault(id(memo), []).append(self._scene)
        return memo[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied_owner = memo.get(id(self._scene.owner)) if self._scene.owner is not None else None
        if copied_owner is not None:
            return copied_owner.view_of_copy(self._index)
        return self.scene_copy(memo).vehicles[self._index]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _itself, (self._scene.detached().vehicles[self._index],)


class ControlledView(VehicleView):
    """A vehicle with a lane and a speed to steer for."""

    @state
    def target_lane_index(self) -> tuple[str, str, int]:
        return self._lane_index(at.TARGET_LANE)

    @state
    def target_speed(self) -> float:
        return self._real(at.TARGET_SPEED)


class MetaView(ControlledView):
    """The ego of discrete meta-actions."""

    @state
    def speed_index(self) -> int:
        return int(self._scene.whole[at.SPEED_INDEX, self._index])


class TrafficView(ControlledView):
    """A car that decides for itself."""

    @state
    def timer(self) -> float:
        """s since the last lane-change decision."""
        return float(self._real(at.TIMER))

    @state
    def DELTA(self) -> float:
        return float(self._real(at.EXPONENT))


class LinearView(TrafficView):
    """A linear car, whose gains were drawn."""

    @state
    def ACCELERATION_PARAMETERS(self) -> np.ndarray:
        values = self._scene.real[at.GAIN_SPEED : at.GAIN_FRONT_GAP + 1, self._index]
        return GuardedArray.of(values, self, "ACCELERATION_PARAMETERS", self._scene.guard)

    @state
    def STEERING_PARAMETERS(self) -> np.ndarray:
        values = self._scene.real[at.GAIN_HEADING : at.GAIN_LATERAL + 1, self._index]
        return GuardedArray.of(values, self, "STEERING_PARAMETERS", self._scene.guard)

    @state
    def data(self) -> dict:
        """The features that highway-env's linear cars collect; the compiled ones do not."""
        self._scene.guard("LinearVehicle.data, which is not collected,")
        return self.data


VIEWS: dict[type, type] = {}


def view_of(kind: type, scene: SceneViews, index: int) -> Any:
    """Make the view of a vehicle of class ``kind``."""
    if kind not in VIEWS:
        traffic = LinearView if issubclass(kind, LinearVehicle) else TrafficView
        base = {Vehicle: VehicleView, MDPVehicle: MetaView}.get(kind, traffic)
        VIEWS[kind] = type(kind.__name__, (base, kind), {"stands_for": kind, "__module__": kind.__module__})
    return VIEWS[kind](scene, index)
