"""From a highway-env configuration to the numbers that the kernels take.

Every key of highway-v0 and highway-fast-v0 that changes what happens is either covered here or refused with
its name: nothing is approximated. Keys that only concern drawing are left alone, and so are keys that
highway-env itself ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.core.errors import UsageError, unknown_name
from racer.envs.highway.defaults import HIGHWAY_DEFAULTS
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.simulator.actions import ActionMap
from racer.envs.highway.simulator.readers import count, interval, not_covered, number

__all__ = ["Observation", "Parameters"]

BEHAVIORS = "highway_env.vehicle.behavior."
TRAFFIC = {
    # name: (kind, TIME_WANTED [s], LANE_CHANGE_MIN_ACC_GAIN [m/s2])
    "IDMVehicle": (at.TRAFFIC_IDM, 1.5, 0.2),
    "LinearVehicle": (at.TRAFFIC_LINEAR, 2.5, 0.2),
    "AggressiveVehicle": (at.TRAFFIC_LINEAR, 2.5, 1.0),
    "DefensiveVehicle": (at.TRAFFIC_LINEAR, 2.5, 1.0),
}


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

    def buffer(self, num_envs: int) -> np.ndarray:
        """Return zeros ``[num_envs, capacity, F]`` float32 to be written to."""
        return np.zeros((num_envs, self.capacity, len(self.features)), dtype=np.float32)

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
