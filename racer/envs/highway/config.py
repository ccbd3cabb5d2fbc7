"""Configuration of the RACER highway: highway-env's own keys, and RACER's beside them.

A configuration is a plain dictionary, as highway-env's is, so that it can be written to JSON and overridden key
by key. It is completed and checked once, in :func:`resolve_config`; everything behind that door may rely on it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from racer.core.errors import UsageError, unknown_name
from racer.envs.highway.defaults import HIGHWAY_DEFAULTS, highway_defaults
from racer.envs.highway.reward import ROW_FEATURES, SafetyConfig

__all__ = [
    "ACTION_KEYS",
    "ENGINES",
    "OBSERVATION_KEYS",
    "RACER_DEFAULTS",
    "action_names",
    "default_config",
    "highway_config",
    "resolve_config",
    "safety_config",
]

ENGINES = ("compiled", "highway-env")
SCENARIOS = ("highway-v0", "highway-fast-v0")
REWARDS = ("training", "base")
SAFETY_MODES = ("ttc", "proximity")

# Read by highway-env where given (``config.get``), though no default names it.
OPTIONAL_HIGHWAY_KEYS = ("on_road_reward",)

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

# What RACER changes of highway-v0. Rewards are left unnormalized: highway-env's normalization pays 0.73 a step for
# standing still in the right lane, which neither the critic's support nor a reader expects.
RISK_OVERRIDES: dict[str, Any] = {
    "observation": {
        "type": "Kinematics",
        "vehicles_count": 15,
        "features": list(ROW_FEATURES),
        "normalize": False,
        "absolute": False,
        "order": "sorted",
    },
    "action": {"type": "ContinuousAction"},
    "policy_frequency": 5,
    "normalize_reward": False,
    "offroad_terminal": True,
}

RACER_DEFAULTS: dict[str, Any] = {
    # which simulator: the exact compiled one, or highway-env itself
    "engine": "compiled",
    # which of highway-env's two ids the remaining defaults and the collision rule come from
    "scenario": "highway-v0",
    # the reward that step() returns: "training" (safety-shaped) or "base" (highway-env's own)
    "reward": "training",
    # steps after which an episode is truncated, whatever its duration in seconds
    "max_episode_steps": 1000,
    # observations are clipped to [-observation_clip, observation_clip]
    "observation_clip": 100.0,
    # one vector [V * F] instead of rows [V, F]
    "flatten_observation": False,
    # weight of the speed terms; None takes high_speed_reward, so that the correction removes what was added
    "speed_weight": None,
    # m/s, forward speeds that earn 0 and 1
    "forward_speed_range": [30.0, 45.0],
    # weight of the safety reward
    "safety_coeff": 0.01,
    # "ttc" or "proximity"
    "safety_mode": "ttc",
    # s, s, m, degrees: see SafetyConfig
    "ttc_threshold": 2.0,
    "ttc_critical": 1.0,
    "gap_threshold": 1.0,
    "cone_half_angle_degrees": 11.25,
    # m, m
    "proximity_near": 2.0,
    "proximity_far": 10.0,
    # taken off the safety reward in every step off the road
    "offroad_safety_penalty": 0.5,
    # added to the reward once, in the step that ends an episode off the road (only where offroad_terminal is on)
    "offroad_penalty": 0.0,
}


def default_config(scenario: str = "highway-v0") -> dict[str, Any]:
    """Return the complete default configuration of ``racer/RiskHighway-v0`` for a scenario."""
    if scenario not in SCENARIOS:
        raise unknown_name("scenario", scenario, SCENARIOS)
    config = highway_defaults(fast=scenario == "highway-fast-v0")
    config.update(copy.deepcopy(RISK_OVERRIDES))
    config.update(copy.deepcopy(RACER_DEFAULTS))
    config["scenario"] = scenario
    return config


def resolve_config(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Complete a configuration with the defaults and check it.

    Nested ``observation`` and ``action`` dictionaries are merged key by key while their type stays the same.

    Raises:
        UsageError: for an unknown key (with the nearest one), a wrong type or a value out of range.
    """
    overrides = _plain(overrides or {})
    config = default_config(overrides.get("scenario", "highway-v0"))
    known = [*config, *OPTIONAL_HIGHWAY_KEYS]
    for key, value in overrides.items():
        if key not in known:
            raise unknown_name("environment config key", key, known)
        if key in ("observation", "action"):
            if not isinstance(value, dict):
                raise UsageError(f"environment config key {key!r} must be a dictionary, not {value!r}")
            same_type = value.get("type", config[key]["type"]) == config[key]["type"]
            config[key] = {**config[key], **value} if same_type else value
        else:
            config[key] = value
    if config["speed_weight"] is None:
        config["speed_weight"] = float(config["high_speed_reward"])
    _check_choices(config)
    _check_numbers(config)
    _check_observation(config["observation"])
    _check_action(config["action"])
    return config


def highway_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a resolved configuration that highway-env itself understands."""
    keys = (*HIGHWAY_DEFAULTS, *OPTIONAL_HIGHWAY_KEYS)
    return {key: copy.deepcopy(config[key]) for key in keys if key in config}


def safety_config(config: Mapping[str, Any]) -> SafetyConfig:
    """Return the safety thresholds of a resolved configuration."""
    return SafetyConfig(
        mode=config["safety_mode"],
        ttc_threshold=float(config["ttc_threshold"]),
        ttc_critical=float(config["ttc_critical"]),
        gap_threshold=float(config["gap_threshold"]),
        cone_half_angle=float(np.deg2rad(config["cone_half_angle_degrees"])),
        near_distance=float(config["proximity_near"]),
        far_distance=float(config["proximity_far"]),
        offroad_penalty=float(config["offroad_safety_penalty"]),
    )


def action_names(action: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the components of a continuous action vector, in highway-env's order.

    highway-env puts the acceleration first and the steering second (highway_env/envs/common/action.py,
    ``ContinuousAction.get_action``). Discrete action spaces have no components and give ``()``.
    """
    if action["type"] != "ContinuousAction":
        return ()
    names = []
    if action.get("longitudinal", True):
        names.append("acceleration")
    if action.get("lateral", True):
        names.append("steering")
    return tuple(names)


def _plain(value: Any) -> Any:
    """Turn mappings, sequences and NumPy values into what JSON knows."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(v) for v in value]
    return copy.deepcopy(value)


def _check_choices(config: Mapping[str, Any]) -> None:
    for key, choices in (
        ("engine", ENGINES),
        ("scenario", SCENARIOS),
        ("reward", REWARDS),
        ("safety_mode", SAFETY_MODES),
    ):
        if config[key] not in choices:
            raise unknown_name(f"environment config value for {key!r}", str(config[key]), choices)


def _check_numbers(config: Mapping[str, Any]) -> None:
    def number(key: str, low: float, *, exclusive: bool = False, whole: bool = False) -> None:
        value = config[key]
        right_type = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
        if not right_type or value < low or (exclusive and value == low) or (whole and value != int(value)):
            kind = "a whole number" if whole else "a finite number"
            bound = f"above {low:g}" if exclusive else f"of at least {low:g}"
            raise UsageError(f"environment config key {key!r} must be {kind} {bound}, not {value!r}")

    number("lanes_count", 1, whole=True)
    number("vehicles_count", 0, whole=True)
    number("controlled_vehicles", 1, whole=True)
    number("max_episode_steps", 1, whole=True)
    number("simulation_frequency", 0, exclusive=True)
    number("policy_frequency", 0, exclusive=True)
    number("duration", 0, exclusive=True)
    number("vehicles_density", 0, exclusive=True)
    number("ego_spacing", 0)
    number("observation_clip", 0, exclusive=True)
    number("ttc_critical", 0)
    number("ttc_threshold", config["ttc_critical"], exclusive=True)
    number("gap_threshold", 0)
    number("proximity_near", 0)
    number("proximity_far", config["proximity_near"], exclusive=True)
    number("offroad_safety_penalty", 0)
    number("cone_half_angle_degrees", 0)
    for key in ("collision_reward", "right_lane_reward", "high_speed_reward", "speed_weight", "safety_coeff",
                "offroad_penalty"):  # fmt: skip
        number(key, -np.inf)
    if config["simulation_frequency"] < config["policy_frequency"]:
        raise UsageError(
            f"environment config key 'policy_frequency' ({config['policy_frequency']}) must not exceed "
            f"'simulation_frequency' ({config['simulation_frequency']})"
        )
    for key in ("forward_speed_range", "reward_speed_range"):
        _check_interval(key, config[key])
    if config["controlled_vehicles"] != 1:
        raise UsageError("environment config key 'controlled_vehicles' must be 1: one policy drives one car")
    lane = config["initial_lane_id"]
    if lane is not None and (not isinstance(lane, int) or not 0 <= lane < config["lanes_count"]):
        raise UsageError(
            f"environment config key 'initial_lane_id' must be None or a lane from 0 to "
            f"{config['lanes_count'] - 1}, not {lane!r}"
        )


def _check_interval(key: str, value: Any) -> None:
    pair = isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
    if not pair or not value[0] < value[1]:
        raise UsageError(f"environment config key {key!r} must be [low, high] with low < high, not {value!r}")


def _check_observation(observation: Mapping[str, Any]) -> None:
    if observation.get("type") != "Kinematics":
        raise UsageError(
            f"environment config key 'observation.type' is {observation.get('type')!r}; "
            "racer/RiskHighway-v0 observes vehicle rows: use 'Kinematics'"
        )
    for key in observation:
        if key not in OBSERVATION_KEYS:
            raise unknown_name("environment config key", f"observation.{key}",
                               [f"observation.{k}" for k in OBSERVATION_KEYS])  # fmt: skip
    count = observation.get("vehicles_count", 5)
    if not isinstance(count, int) or count < 2:
        raise UsageError(f"environment config key 'observation.vehicles_count' must be at least 2, not {count!r}")


def _check_action(action: Mapping[str, Any]) -> None:
    kind = action.get("type")
    if kind not in ACTION_KEYS:
        raise unknown_name("environment config value for 'action.type'", str(kind), ACTION_KEYS)
    for key in action:
        if key not in ACTION_KEYS[kind]:
            raise unknown_name("environment config key", f"action.{key}", [f"action.{k}" for k in ACTION_KEYS[kind]])
    if not action.get("longitudinal", True) and not action.get("lateral", True):
        raise UsageError("environment config: 'action.longitudinal' and 'action.lateral' must not both be off")
    for key in ("acceleration_range", "steering_range", "speed_range"):
        if action.get(key) is not None:
            _check_interval(f"action.{key}", action[key])
