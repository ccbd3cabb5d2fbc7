"""Configuration of the RACER highway: highway-env's own keys, and RACER's beside them.

A configuration is a plain dictionary, as highway-env's is, so that it can be written to JSON and overridden key
by key. It is completed and checked once, in :func:`resolve_config`; everything behind that door may rely on it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from racer.core.errors import UsageError, shown, unknown_name
from racer.envs.highway.checks import ACTION_KEYS, ENGINES, OBSERVATION_KEYS, SCENARIOS, check_config
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

# Read by highway-env where given (``config.get``), though no default names it.
OPTIONAL_HIGHWAY_KEYS = ("on_road_reward",)

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
    "engine": "compiled",
    "scenario": "highway-v0",
    "reward": "training",
    "max_episode_steps": 1000,
    "observation_clip": 100.0,
    "row_order": "sorted",
    "flatten_observation": False,
    "speed_weight": None,
    "forward_speed_range": [30.0, 45.0],
    "safety_coeff": 0.01,
    "safety_mode": "ttc",
    "ttc_threshold": 2.0,
    "ttc_critical": 1.0,
    "gap_threshold": 1.0,
    "cone_half_angle_degrees": 11.25,
    "proximity_near": 2.0,
    "proximity_far": 10.0,
    "offroad_safety_penalty": 0.5,
    "offroad_penalty": 0.0,
}


def default_config(scenario: str = "highway-v0") -> dict[str, Any]:
    """Return the complete default configuration of ``racer/RiskHighway-v0`` for a scenario."""
    if not isinstance(scenario, str):
        raise UsageError(f"scenario must be one of {', '.join(SCENARIOS)}, not {shown(scenario)}")
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
    try:
        overrides = _plain(overrides or {})
    except RecursionError as error:
        raise UsageError("environment config is nested too deeply") from error
    config = default_config(overrides.get("scenario", "highway-v0"))
    known = [*config, *OPTIONAL_HIGHWAY_KEYS]
    for key, value in overrides.items():
        if key not in known:
            raise unknown_name("environment config key", key, known)
        if key in ("observation", "action"):
            if not isinstance(value, dict):
                raise UsageError(f"environment config key {key!r} must be a dictionary, not {shown(value)}")
            same_type = value.get("type", config[key]["type"]) == config[key]["type"]
            config[key] = {**config[key], **value} if same_type else value
        else:
            config[key] = value
    if config["speed_weight"] is None:
        config["speed_weight"] = config["high_speed_reward"]
    check_config(config)
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
