"""What the config files under ``scripts/sim/configs`` are made of."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from racer.envs.highway.config import default_config

__all__ = ["environment_config"]

# Written with a decimal point so that --config.env.duration=12.5 fits the type of the default.
_REAL = (
    "duration", "ego_spacing", "vehicles_density", "collision_reward", "right_lane_reward", "high_speed_reward",
    "lane_change_reward", "scaling",
)  # fmt: skip


def environment_config(scenario: str = "highway-v0", **overrides: Any) -> ConfigDict:
    """Return every key of the environment with its default, so that each can be overridden from the command line.

    Args:
        scenario: "highway-v0" or "highway-fast-v0".
        overrides: keys that differ from the defaults.
    """
    config = {**default_config(scenario), **overrides}
    for key in _REAL:
        config[key] = float(config[key])
    return ConfigDict(_with_tuples(config))


def _with_tuples(value: Any) -> Any:
    """Lists become tuples, which ml_collections lets a command line replace: --config.env.x="(1, 2)"."""
    if isinstance(value, dict):
        return {k: _with_tuples(v) for k, v in value.items()}
    return tuple(value) if isinstance(value, list) else value
