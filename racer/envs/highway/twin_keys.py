"""What the twins know of highway-env's configuration: unknown keys, and when a change takes effect."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from racer.core.errors import nearest
from racer.envs.highway.defaults import HIGHWAY_DEFAULTS

__all__ = ["LIVE_KEYS", "live_keys", "same_config", "warn_of_unknown_keys"]

# what highway-env reads in every step; the rest it reads at a reset
LIVE_KEYS = (
    "simulation_frequency", "policy_frequency", "duration", "collision_reward", "right_lane_reward",
    "high_speed_reward", "on_road_reward", "reward_speed_range", "normalize_reward", "offroad_terminal",
    "manual_control",
)  # fmt: skip
# read by highway-env without a default
OPTIONAL_KEYS = ("on_road_reward",)


def live_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what acts at once of a configuration."""
    return {key: config[key] for key in LIVE_KEYS if key in config}


def same_config(a: Any, b: Any) -> bool:
    """Are two configurations equal, arrays inside them included?"""
    try:
        return bool(a == b)
    except ValueError:  # an array somewhere has no single truth value
        pass
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same_config(value, b[key]) for key, value in a.items())
    return repr(a) == repr(b)


@cache
def _parameters(path: str) -> frozenset[str]:
    """Names that the constructor ``module:Class`` takes."""
    module, name = path.split(":")
    kind = getattr(__import__(module, fromlist=[name]), name)
    return frozenset(inspect.signature(kind.__init__).parameters) - {"self", "env", "kwargs"} | {"type"}


PARTS = {
    "observation": {"Kinematics": "highway_env.envs.common.observation:KinematicObservation"},
    "action": {
        name: f"highway_env.envs.common.action:{name}"
        for name in ("ContinuousAction", "DiscreteAction", "DiscreteMetaAction")
    },
}


def warn_of_unknown_keys(
    config: Mapping[str, Any], known: Iterable[str], warned: set[str], *, only_misspelt: bool
) -> None:
    """Warn once of every key that highway-env would ignore without a word.

    Args:
        config: the configuration.
        known: further keys that mean something, a subclass's own.
        warned: keys that have been named before; grows.
        only_misspelt: stay silent of a key that resembles no other: a subclass may read it.
    """
    top = {*HIGHWAY_DEFAULTS, *OPTIONAL_KEYS, *known}
    unknown = {str(key): nearest(str(key), top) for key in config if key not in top}
    for part, kinds in PARTS.items():
        given = config.get(part)
        path = kinds.get(str(given.get("type"))) if isinstance(given, Mapping) else None
        if path is not None and isinstance(given, Mapping):
            names = _parameters(path)
            for key in given:
                if key not in names:
                    guess = nearest(str(key), names)
                    unknown[f"{part}.{key}"] = guess and f"{part}.{guess}"
    for key, guess in unknown.items():
        if key in warned or (only_misspelt and guess is None):
            continue
        warned.add(key)
        hint = f"; did you mean {guess!r}?" if guess else ""
        warnings.warn(f"highway-env has no config key {key!r} and ignores it{hint}", UserWarning, stacklevel=4)
