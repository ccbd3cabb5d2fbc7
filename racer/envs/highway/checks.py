"""What each key of the highway's configuration may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from racer.core.errors import UsageError, shown, unknown_name

__all__ = ["ACTION_KEYS", "ENGINES", "OBSERVATION_KEYS", "SCENARIOS", "check_config"]

ENGINES = ("compiled", "highway-env")
SCENARIOS = ("highway-v0", "highway-fast-v0")
REWARDS = ("training", "base")
SAFETY_MODES = ("ttc", "proximity")
# highway-env imports the module that the name says: it is one of its own.
VEHICLES = tuple(
    f"highway_env.vehicle.{name}"
    for name in (
        "behavior.IDMVehicle", "behavior.LinearVehicle", "behavior.AggressiveVehicle", "behavior.DefensiveVehicle",
        "controller.ControlledVehicle", "controller.MDPVehicle", "kinematics.Vehicle", "dynamics.BicycleVehicle",
    )
)  # fmt: skip
ORDERS = ("sorted", "shuffled")

OBSERVATION_KEYS = (
    "type",
    "features",
    "vehicles_count",
    "features_range",
    "absolute",
    "order",
    "normalize",
    "clip",
    "see_behind",
    "observe_intentions",
    "include_obstacles",
)

ACTION_KEYS: dict[str, tuple[str, ...]] = {
    "ContinuousAction": (
        "type", "acceleration_range", "steering_range", "speed_range", "longitudinal", "lateral", "dynamical", "clip",
    ),
    "DiscreteAction": (
        "type", "acceleration_range", "steering_range", "longitudinal", "lateral", "dynamical", "clip",
        "actions_per_axis",
    ),
    "DiscreteMetaAction": ("type", "longitudinal", "lateral", "target_speeds"),
}  # fmt: skip

_MOST = 1e9
"""No number of a configuration is larger: beyond it neither rewards nor metres mean anything."""


@dataclass(frozen=True)
class _Number:
    """A finite number from ``low`` to ``high``; ``above`` excludes ``low``, ``none`` lets None stand for another."""

    low: float = -_MOST
    high: float = _MOST
    above: bool = False
    whole: bool = False
    none: bool = False

    def check(self, key: str, value: Any) -> None:
        if value is None and self.none:
            return
        good = isinstance(value, int | float) and not isinstance(value, bool)
        good = good and self.low <= value <= self.high and not (self.above and value == self.low)
        if good and (not self.whole or value == math.floor(value)):
            return
        kind = "a whole number" if self.whole else "a finite number"
        bounds = [f"above {self.low:g}" if self.above else f"of at least {self.low:g}"] if self.low > -_MOST else []
        # An upper end is worth saying only to who is beyond it.
        above = isinstance(value, int | float) and not value <= self.high and value == value
        bounds += [f"at most {self.high:g}"] if above or not bounds else []
        raise UsageError(f"environment config key {key!r} must be {kind} {' and '.join(bounds)}, not {shown(value)}")


_POSITIVE = _Number(0, above=True)
_AT_LEAST_ZERO = _Number(0)
_PIXELS = _Number(16, 8_192, whole=True)

_NUMBERS: Mapping[str, _Number] = {
    "lanes_count": _Number(1, 64, whole=True),
    "vehicles_count": _Number(0, 10_000, whole=True),
    "controlled_vehicles": _Number(1, whole=True),
    "max_episode_steps": _Number(1, 100_000_000, whole=True),
    "simulation_frequency": _Number(0, 1_000, above=True),
    "policy_frequency": _Number(0, 1_000, above=True),
    "duration": _POSITIVE,
    "vehicles_density": _Number(0, 1_000, above=True),
    "ego_spacing": _Number(0, 10_000),
    "observation_clip": _POSITIVE,
    "ttc_critical": _AT_LEAST_ZERO,
    "gap_threshold": _AT_LEAST_ZERO,
    "proximity_near": _AT_LEAST_ZERO,
    "offroad_safety_penalty": _AT_LEAST_ZERO,
    "cone_half_angle_degrees": _Number(0, 360),
    "collision_reward": _Number(),
    "right_lane_reward": _Number(),
    "high_speed_reward": _Number(),
    "lane_change_reward": _Number(),
    "on_road_reward": _Number(),
    "speed_weight": _Number(),
    "safety_coeff": _Number(),
    "offroad_penalty": _Number(),
    "scaling": _Number(0, 1_000, above=True),
    "screen_width": _PIXELS,
    "screen_height": _PIXELS,
}

_SWITCHES = ("offroad_terminal", "normalize_reward", "flatten_observation", "neighbour_vehicles_connected_lanes",
             "render_agent", "real_time_rendering", "show_trajectories", "manual_control")  # fmt: skip
_NESTED_SWITCHES = ("absolute", "normalize", "clip", "see_behind", "observe_intentions", "include_obstacles",
                    "longitudinal", "lateral", "dynamical")  # fmt: skip


def check_config(config: Mapping[str, Any]) -> None:
    """Check a completed configuration.

    Raises:
        UsageError: naming the key, its value and what it should be.
    """
    for key, choices in (
        ("engine", ENGINES),
        ("scenario", SCENARIOS),
        ("reward", REWARDS),
        ("safety_mode", SAFETY_MODES),
        ("row_order", ORDERS),
    ):
        _check_choice(key, config[key], choices)
    for key, rule in _NUMBERS.items():
        if key in config:
            rule.check(key, config[key])
    for key in _SWITCHES:
        _check_switch(key, config[key])
    if config["offscreen_rendering"] is not None:
        _check_switch("offscreen_rendering", config["offscreen_rendering"])
    _check_choice("other_vehicles_type", config["other_vehicles_type"], VEHICLES)
    _check_several(config)
    _check_observation(config["observation"])
    _check_action(config["action"])


def _check_several(config: Mapping[str, Any]) -> None:
    """Check what depends on other keys."""
    _Number(config["ttc_critical"], above=True).check("ttc_threshold", config["ttc_threshold"])
    _Number(config["proximity_near"], above=True).check("proximity_far", config["proximity_far"])
    if config["simulation_frequency"] < config["policy_frequency"]:
        raise UsageError(
            f"environment config key 'policy_frequency' ({config['policy_frequency']}) must not exceed "
            f"'simulation_frequency' ({config['simulation_frequency']})"
        )
    for key in ("forward_speed_range", "reward_speed_range"):
        _check_interval(key, config[key])
    centre = config["centering_position"]
    if not _are_numbers(centre, 2) or not all(0 <= share <= 1 for share in centre):
        raise _wrong("centering_position", "two shares from 0 to 1", centre)
    if config["controlled_vehicles"] != 1:
        raise UsageError("environment config key 'controlled_vehicles' must be 1: one policy drives one car")
    lane = config["initial_lane_id"]
    whole = isinstance(lane, int) and not isinstance(lane, bool)
    if lane is not None and (not whole or not 0 <= lane < config["lanes_count"]):
        raise _wrong("initial_lane_id", f"None or a lane from 0 to {int(config['lanes_count']) - 1}", lane)


def _check_observation(observation: Mapping[str, Any]) -> None:
    if observation.get("type") != "Kinematics":
        raise UsageError(
            f"environment config key 'observation.type' is {shown(observation.get('type'))}; "
            "racer/RiskHighway-v0 observes vehicle rows: use 'Kinematics'"
        )
    _check_keys("observation", observation, OBSERVATION_KEYS)
    _Number(2, 10_000, whole=True).check("observation.vehicles_count", observation.get("vehicles_count", 5))
    _check_choice("observation.order", observation.get("order", "sorted"), ORDERS)
    features = observation.get("features")
    if features is not None and not (isinstance(features, list) and all(isinstance(f, str) for f in features)):
        raise _wrong("observation.features", "a list of names", features)
    ranges = observation.get("features_range")
    if ranges is not None and not isinstance(ranges, Mapping):
        raise _wrong("observation.features_range", "an interval for each feature by name", ranges)
    for name, interval in (ranges or {}).items():
        _check_interval(f"observation.features_range.{name}", interval)


def _check_action(action: Mapping[str, Any]) -> None:
    kind = action.get("type")
    _check_choice("action.type", kind, tuple(ACTION_KEYS))
    _check_keys("action", action, ACTION_KEYS[str(kind)])
    if not action.get("longitudinal", True) and not action.get("lateral", True):
        raise UsageError("environment config: 'action.longitudinal' and 'action.lateral' must not both be off")
    for key in ("acceleration_range", "steering_range", "speed_range"):
        if action.get(key) is not None:
            _check_interval(f"action.{key}", action[key])
    _Number(2, 1_000, whole=True).check("action.actions_per_axis", action.get("actions_per_axis", 3))
    speeds = action.get("target_speeds")
    if speeds is not None and not (_are_numbers(speeds) and 2 <= len(speeds) <= 1_000):
        raise _wrong("action.target_speeds", "a list of at least 2 speeds", speeds)


def _check_keys(part: str, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key, value in values.items():
        if key not in known:
            raise unknown_name("environment config key", f"{part}.{key}", [f"{part}.{k}" for k in known])
        if key in _NESTED_SWITCHES:
            _check_switch(f"{part}.{key}", value)


def _check_choice(key: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str):
        raise _wrong(key, f"one of {', '.join(choices)}", value)
    if value not in choices:
        raise unknown_name(f"environment config value for {key!r}", value, choices)


def _check_switch(key: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise _wrong(key, "True or False", value)


def _check_interval(key: str, value: Any) -> None:
    if not _are_numbers(value, 2) or not value[0] < value[1]:
        raise _wrong(key, "[low, high] with low < high", value)


def _are_numbers(value: Any, count: int | None = None) -> bool:
    return (
        isinstance(value, list)
        and (count is None or len(value) == count)
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= _MOST for v in value)
    )


def _wrong(key: str, what: str, value: Any) -> UsageError:
    return UsageError(f"environment config key {key!r} must be {what}, not {shown(value)}")
