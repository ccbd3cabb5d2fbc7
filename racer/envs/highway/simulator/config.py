"""From a highway-env configuration to the numbers that the kernels take.

Every key of highway-v0 and highway-fast-v0 that changes what happens is either covered here or refused with
its name: nothing is approximated. Keys that only concern drawing are left alone, and so are keys that
highway-env itself ignores.
"""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.core.errors import UsageError, unknown_name
from racer.envs.highway.simulator import layout as at

__all__ = [
    "FAST_DEFAULTS",
    "HIGHWAY_DEFAULTS",
    "ActionMap",
    "Observation",
    "Parameters",
    "defaults",
    "not_covered",
]

HIGHWAY_DEFAULTS: dict[str, Any] = {
    "observation": {"type": "Kinematics"},
    "action": {"type": "DiscreteMetaAction"},
    "simulation_frequency": 15,
    "policy_frequency": 1,
    "other_vehicles_type": "highway_env.vehicle.behavior.IDMVehicle",
    "screen_width": 600,
    "screen_height": 150,
    "centering_position": [0.3, 0.5],
    "scaling": 5.5,
    "show_trajectories": False,
    "render_agent": True,
    "offscreen_rendering": None,
    "manual_control": False,
    "real_time_rendering": False,
    "neighbour_vehicles_connected_lanes": False,
    "lanes_count": 4,
    "vehicles_count": 50,
    "controlled_vehicles": 1,
    "initial_lane_id": None,
    "duration": 40,
    "ego_spacing": 2,
    "vehicles_density": 1,
    "collision_reward": -1,
    "right_lane_reward": 0.1,
    "high_speed_reward": 0.4,
    "lane_change_reward": 0,
    "reward_speed_range": [20, 30],
    "normalize_reward": True,
    "offroad_terminal": False,
}
FAST_DEFAULTS: dict[str, Any] = {
    **HIGHWAY_DEFAULTS,
    "simulation_frequency": 5,
    "lanes_count": 3,
    "vehicles_count": 20,
    "duration": 30,
    "ego_spacing": 1.5,
}
BEHAVIORS = "highway_env.vehicle.behavior."
TRAFFIC = {
    # name: (kind, TIME_WANTED [s], LANE_CHANGE_MIN_ACC_GAIN [m/s2])
    "IDMVehicle": (at.TRAFFIC_IDM, 1.5, 0.2),
    "LinearVehicle": (at.TRAFFIC_LINEAR, 2.5, 0.2),
    "AggressiveVehicle": (at.TRAFFIC_LINEAR, 2.5, 1.0),
    "DefensiveVehicle": (at.TRAFFIC_LINEAR, 2.5, 1.0),
}
META_ACTIONS = {
    # (longitudinal, lateral): highway-env's action tables
    (True, True): (at.LANE_LEFT, at.IDLE, at.LANE_RIGHT, at.FASTER, at.SLOWER),
    (True, False): (at.SLOWER, at.IDLE, at.FASTER),
    (False, True): (at.LANE_LEFT, at.IDLE, at.LANE_RIGHT),
}


def defaults(fast: bool) -> dict[str, Any]:
    """Return highway-fast-v0's or highway-v0's default configuration, as a copy of its own."""
    source = FAST_DEFAULTS if fast else HIGHWAY_DEFAULTS
    return {key: dict(value) if isinstance(value, dict) else value for key, value in source.items()}


def not_covered(key: str, value: object) -> UsageError:
    """Build the error for a setting that the compiled simulator does not reproduce."""
    return UsageError(
        f"config key {key!r} = {value!r} is not covered by the compiled simulator; use the highway-env engine"
    )


def number(config: Mapping[str, Any], key: str, *, positive: bool = False) -> float:
    """Read a real number, at most with a sign condition."""
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isnan(value):
        raise UsageError(f"config key {key!r} must be a number, got {value!r}")
    if positive and not value > 0:
        raise UsageError(f"config key {key!r} must be above 0, got {value!r}")
    return float(value)


def count(config: Mapping[str, Any], key: str, least: int) -> int:
    """Read a whole number of at least ``least``."""
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UsageError(f"config key {key!r} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def interval(value: Any, key: str) -> tuple[Any, Any]:
    """Read ``[low, high]``; the numbers keep their types, which decide the arithmetic's precision."""
    try:
        low, high = value
    except (TypeError, ValueError):
        raise UsageError(f"config key {key!r} must be [low, high], got {value!r}") from None
    for bound in (low, high):
        if isinstance(bound, bool) or not isinstance(bound, numbers.Real):
            raise UsageError(f"config key {key!r} must be two numbers, got {value!r}")
    return low, high


def linear_map(v: Any, x: tuple[Any, Any], y: tuple[Any, Any]) -> Any:
    """Map ``v`` from the interval ``x`` to ``y`` with highway-env's order of operations (utils.lmap)."""
    return y[0] + (v - x[0]) * (y[1] - y[0]) / (x[1] - x[0])


@dataclass(frozen=True)
class Observation:
    """A Kinematics observation as numbers.

    Attributes:
        features: names, one a column.
        rows: ``vehicles_count``.
        capacity: rows of the buffer: with ``vehicles_count`` 1 highway-env returns *all* perceived cars.
        spec, ranges: what the kernel takes.
    """

    features: tuple[str, ...]
    rows: int
    capacity: int
    spec: np.ndarray
    ranges: np.ndarray

    @property
    def shuffled(self) -> bool:
        """Does every observation draw from the environment's generator?"""
        return bool(self.spec[at.SPEC_SHUFFLED])

    @classmethod
    def parse(cls, config: Mapping[str, Any], lanes: int, vehicles: int) -> Observation:
        """Parse an ``observation`` dictionary of highway-env.

        Args:
            config: the dictionary, ``type`` included.
            lanes: number of lanes, for the default range of y.
            vehicles: vehicles of the scene, the ego included.

        Raises:
            UsageError: for a type or value that is not covered.
        """
        if config.get("type") != "Kinematics":
            raise not_covered("observation.type", config.get("type"))
        features = tuple(config.get("features") or ("presence", "x", "y", "vx", "vy"))
        for name in features:
            if name not in at.FEATURES:
                raise unknown_name("observation feature", str(name), at.FEATURES)
        if len(set(features)) != len(features):
            raise not_covered("observation.features", list(features))
        rows = count({"observation.vehicles_count": 5, **_prefixed(config)}, "observation.vehicles_count", 1)
        spec = np.zeros(at.SPEC_CODES + len(features), dtype=np.int64)
        spec[at.SPEC_ROWS] = rows
        spec[at.SPEC_FEATURES] = len(features)
        order = config.get("order", "sorted")
        for column, value in (
            (at.SPEC_ABSOLUTE, config.get("absolute", False)),
            (at.SPEC_SORTED, order == "sorted"),
            (at.SPEC_SHUFFLED, order == "shuffled"),
            (at.SPEC_NORMALIZE, config.get("normalize", True)),
            (at.SPEC_CLIP, config.get("clip", True)),
            (at.SPEC_SEE_BEHIND, config.get("see_behind", False)),
        ):
            spec[column] = bool(value)
        spec[at.SPEC_CODES :] = [at.FEATURES.index(name) for name in features]
        return cls(features, rows, rows if rows > 1 else vehicles, spec, _ranges(config, features, lanes))


def _prefixed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {f"observation.{key}": value for key, value in config.items()}


def _ranges(config: Mapping[str, Any], features: tuple[str, ...], lanes: int) -> np.ndarray:
    """Return ``[F, 3]``: low, high, and whether the feature is normalized."""
    given = config.get("features_range") or {
        "x": [-5.0 * at.MAX_SPEED, 5.0 * at.MAX_SPEED],
        "y": [-at.LANE_WIDTH * lanes, at.LANE_WIDTH * lanes],
        "vx": [-2 * at.MAX_SPEED, 2 * at.MAX_SPEED],
        "vy": [-2 * at.MAX_SPEED, 2 * at.MAX_SPEED],
    }
    ranges = np.zeros((len(features), 3))
    ranges[:, 1] = 1.0
    for name, bounds in given.items():
        low, high = interval(bounds, f"observation.features_range.{name}")
        if name in features:
            ranges[features.index(name)] = (low, high, 1.0)
    return ranges


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
    """

    kind: str
    size: int
    acceleration_range: tuple[Any, Any] | None
    steering_range: tuple[Any, Any] | None
    clip: bool
    table: np.ndarray
    target_speeds: np.ndarray

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
        )
        return mapped if kind == "ContinuousAction" else mapped._discretized(config)

    @classmethod
    def _parse_meta(cls, config: Mapping[str, Any], longitudinal: bool, lateral: bool) -> ActionMap:
        if not (longitudinal or lateral):
            raise UsageError("config keys 'action.longitudinal' and 'action.lateral' cannot both be false")
        given = config.get("target_speeds")
        speeds = np.asarray(np.linspace(20, 30, 3) if given is None else given)
        if speeds.ndim != 1 or speeds.size < 2 or speeds[0] == speeds[-1] or speeds.dtype.kind not in "iuf":
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

        float32 actions stay float32 until they are stored, as in highway-env.
        """
        if self.clip:
            actions = np.clip(actions, -1, 1)
        column = 0
        for k, bounds in enumerate((self.acceleration_range, self.steering_range)):
            if bounds is None:
                command[:, k] = 0.0
            else:
                command[:, k] = linear_map(actions[:, column], (-1, 1), bounds)
                column += 1


@dataclass(frozen=True)
class Parameters:
    """A whole configuration as numbers: what :class:`HighwaySimulator` hands to the kernels."""

    reals: np.ndarray
    wholes: np.ndarray
    action: ActionMap
    observation: Observation
    traffic: str

    @classmethod
    def parse(cls, config: Mapping[str, Any], *, fast: bool, brute_force: bool) -> Parameters:
        """Parse a full configuration (merged with its id's defaults).

        Args:
            config: highway-env's keys.
            fast: highway-fast-v0's rule that only the ego's collisions are tested.
            brute_force: search neighbours and collisions in list order.

        Raises:
            UsageError: for a key that is missing, wrong or not covered.
        """
        missing = sorted(HIGHWAY_DEFAULTS.keys() - config.keys())
        if missing:
            raise UsageError(f"config keys {missing} are missing; start from highway-env's defaults")
        for key, covered in (
            ("controlled_vehicles", 1),
            ("manual_control", False),
            ("show_trajectories", False),
        ):
            if config[key] != covered:
                raise not_covered(key, config[key])
        name = str(config["other_vehicles_type"]).removeprefix(BEHAVIORS)
        if name not in TRAFFIC:
            raise not_covered("other_vehicles_type", config["other_vehicles_type"])
        for key in ("observation", "action"):
            if not isinstance(config[key], Mapping):
                raise UsageError(f"config key {key!r} must be a dictionary, got {config[key]!r}")

        wholes = _whole_parameters(config, fast, brute_force, TRAFFIC[name][0])
        action = ActionMap.parse(config["action"])
        wholes[at.EGO_KIND] = at.EGO_META if action.kind == "DiscreteMetaAction" else at.EGO_CONTINUOUS
        reals = _real_parameters(config, int(wholes[at.LANES]), TRAFFIC[name][1:])
        if action.kind == "ContinuousAction" and config["action"].get("speed_range"):
            low, high = interval(config["action"]["speed_range"], "action.speed_range")
            reals[at.EGO_MIN_SPEED], reals[at.EGO_MAX_SPEED] = low, high
        observation = Observation.parse(
            config["observation"], int(wholes[at.LANES]), int(wholes[at.VEHICLES])
        )
        return cls(reals, wholes, action, observation, name)


def _whole_parameters(config: Mapping[str, Any], fast: bool, brute_force: bool, traffic: int) -> np.ndarray:
    wholes = np.zeros(at.WHOLE_PARAMETERS, dtype=np.int64)
    lanes = count(config, "lanes_count", 1)
    wholes[at.LANES] = lanes
    wholes[at.VEHICLES] = 1 + count(config, "vehicles_count", 0)
    wholes[at.TRAFFIC_KIND] = traffic
    wholes[at.EGO_COLLISIONS_ONLY] = fast
    wholes[at.BRUTE_FORCE] = brute_force
    wholes[at.INITIAL_LANE] = -1
    if config["initial_lane_id"] is not None:
        lane = count(config, "initial_lane_id", -lanes)
        if lane >= lanes:
            raise UsageError(f"config key 'initial_lane_id' must be below lanes_count = {lanes}, got {lane}")
        wholes[at.INITIAL_LANE] = lane % lanes
    simulation = number(config, "simulation_frequency", positive=True)
    wholes[at.FRAMES] = int(simulation // number(config, "policy_frequency", positive=True))
    wholes[at.OFFROAD_TERMINAL] = bool(config["offroad_terminal"])
    wholes[at.NORMALIZE_REWARD] = bool(config["normalize_reward"])
    return wholes


def _real_parameters(config: Mapping[str, Any], lanes: int, traffic: tuple[float, float]) -> np.ndarray:
    reals = np.zeros(at.REAL_PARAMETERS)
    reals[at.DT] = 1 / number(config, "simulation_frequency", positive=True)
    reals[at.POLICY_DT] = 1 / number(config, "policy_frequency", positive=True)
    reals[at.DURATION] = number(config, "duration")
    reals[at.EGO_MIN_SPEED], reals[at.EGO_MAX_SPEED] = at.MIN_SPEED, at.MAX_SPEED
    reals[at.COLLISION_COEFFICIENT] = number(config, "collision_reward")
    reals[at.RIGHT_LANE_COEFFICIENT] = number(config, "right_lane_reward")
    reals[at.HIGH_SPEED_COEFFICIENT] = number(config, "high_speed_reward")
    reals[at.ON_ROAD_COEFFICIENT] = number({"on_road_reward": 0, **config}, "on_road_reward")
    reals[at.REWARD_SPEED_LOW], reals[at.REWARD_SPEED_HIGH] = interval(
        config["reward_speed_range"], "reward_speed_range"
    )
    reals[at.TIME_WANTED], reals[at.MIN_GAIN] = traffic
    reals[at.EGO_SPACING] = number(config, "ego_spacing")
    density = number(config, "vehicles_density")
    if density == 0:
        raise UsageError("config key 'vehicles_density' must not be 0")
    reals[at.OTHER_SPACING] = 1 / density
    reals[at.LANE_FACTOR] = np.exp(-5 / 40 * lanes)
    reals[at.TWO] = 2.0
    return reals
