"""What the single and the batched twin share; imports no highway-env."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from racer.core.errors import UsageError, nearest
from racer.envs.highway.defaults import highway_defaults
from racer.envs.highway.simulator.actions import ActionMap
from racer.envs.highway.simulator.config import Observation

__all__ = [
    "ENGINES", "VIDEO_SPEED", "action_space", "check_action", "merge_config", "observation_space", "refused",
    "warn_of_unknown_options",
]  # fmt: skip

ENGINES = ("compiled", "highway-env", "auto")
# highway-env films at twice real time (AbstractEnv.update_metadata)
VIDEO_SPEED = 2
WAY_OUT = 'pass engine="highway-env" (highway-env does everything) or engine="auto" (it does what is not compiled)'


def merge_config(config: Mapping[str, Any] | None, fast: bool) -> dict[str, Any]:
    """Put ``config`` on top of the id's defaults, key by key at the top level, as highway-env does."""
    merged = {**highway_defaults(fast), **(config or {})}
    if merged["offscreen_rendering"] is None:
        merged["offscreen_rendering"] = True
    return merged


def observation_space(observation: Observation) -> spaces.Box:
    """Return the space of ``[K, F]`` float32 observations, highway-env's own: unbounded."""
    return spaces.Box(-np.inf, np.inf, (observation.rows, len(observation.features)), np.float32)


def action_space(action: ActionMap) -> spaces.Space:
    """Return the action space, highway-env's own."""
    if action.is_discrete:
        return spaces.Discrete(action.size)
    return spaces.Box(-1.0, 1.0, (action.size,), np.float32)


def check_action(action: Any) -> np.ndarray:
    """Return an action, or a batch of them, as an array.

    Raises:
        UsageError: if a number in it is not a number.
    """
    array = np.asarray(action)
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise UsageError(f"an action must not be NaN, got {action!r}")
    return array


def refused(reason: object) -> UsageError:
    """Build the error for what the compiled engine cannot do, naming the engines that can."""
    return UsageError(f"{reason}; {WAY_OUT}")


def warn_of_unknown_options(options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Warn of every reset option that highway-env would ignore without a word."""
    known = tuple(known)
    for name in options:
        if name not in known:
            guess = nearest(str(name), known)
            hint = f"; did you mean {guess!r}?" if guess else f"; it knows {', '.join(known)}"
            warnings.warn(f"reset ignores the option {name!r}{hint}", stacklevel=3)
