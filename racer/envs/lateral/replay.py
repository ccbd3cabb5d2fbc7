"""Lateral control as numbers: no picture from above, but what was asked for and what the car did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from racer.envs.lateral.env import LateralControlEnv
from racer.envs.lateral.rules import MAX_STEER, STEP
from racer.envs.replay import Replay, Shapes, Trace
from racer.envs.world import Step

__all__ = ["REPLAY"]


def _facts(steps: Sequence[Step], moments: Sequence[Shapes], config: Mapping[str, Any]) -> dict[str, float]:
    """Say what a route asked for and where it went wrong."""
    target, actual, steer = (np.array([step.info[name] for step in steps]) for name in ("target", "lataccel", "steer"))
    errors = np.abs(target - actual)
    return {
        "greatest target [m/s^2]": float(np.abs(target).max()),
        "greatest change of the target in a step [m/s^2]": float(np.abs(np.diff(target)).max(initial=0.0)),
        "greatest error [m/s^2]": float(errors.max()),
        "time of the greatest error [s]": float(errors.argmax() * STEP),
        "share of steps at the steering limit": float((np.abs(steer) >= MAX_STEER).mean()),
        "jerk's share of the cost": _share(steps, "jerk_cost"),
    }


def _costs(info: Mapping[str, Any]) -> tuple[float, float]:
    """Return the two parts of a step's cost, each with its weight."""
    return info["total_cost"] - info["jerk_cost"], info["jerk_cost"]


def _share(steps: Sequence[Step], name: str) -> float:
    part, whole = (sum(float(step.info[key]) for step in steps) for key in (name, "total_cost"))
    return part / whole if whole else np.nan


REPLAY = Replay(
    make=LateralControlEnv,
    traces=(
        Trace("lateral acceleration [m/s^2]", lambda step: (step.info["target"], step.info["lataccel"]),
              names=("target", "actual")),
        Trace("error [m/s^2]", lambda step: step.info["target"] - step.info["lataccel"]),
        Trace("steer", lambda step: step.info["steer"]),
        Trace("cost of the step", lambda step: _costs(step.info),
              names=("error", "jerk")),
    ),
    facts=_facts,
)  # fmt: skip
