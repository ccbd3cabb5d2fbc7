"""Controllers that nobody trained, behind one protocol: the baselines of what is learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import unknown_name
from racer.envs.lateral.generator import steady_gain
from racer.envs.lateral.observation import observe
from racer.envs.lateral.simulation import Signals, Simulation

__all__ = ["CONTROLLERS", "PID", "Controller", "FeedForward", "PolicyController", "Zero", "make_controller"]


class Controller(Protocol):
    """Steers every episode of a simulation, which it was made for, from the first step to the last."""

    def __call__(self, signals: Signals) -> NDArray[np.float64]:
        """Return steers ``[N]``, which the simulation clips."""
        ...


@dataclass(frozen=True)
class Zero:
    """Leaves the wheel straight."""

    def __call__(self, signals: Signals) -> NDArray[np.float64]:
        return np.zeros(len(signals.target))


@dataclass(frozen=True)
class PID:
    """The challenge's own baseline: the error, its sum and its change."""

    proportional: float = 0.195
    integral: float = 0.100
    derivative: float = -0.053

    def __call__(self, signals: Signals) -> NDArray[np.float64]:
        change = signals.error - signals.previous_error
        return self.proportional * signals.error + self.integral * signals.integral + self.derivative * change


@dataclass(frozen=True)
class FeedForward:
    """The steer that would settle at the target a little ahead, and a proportional and integral correction.

    Attributes:
        preview: weights of the targets now and in the steps to come; they sum to 1.
        gain: share of the settled steer.
        proportional: steer for an error of 1 m/s^2.
        integral: steer for a clamped sum of errors of 1 m/s^2.
    """

    preview: tuple[float, ...] = (0.05, 0.12, 0.21, 0.24, 0.21, 0.12, 0.05)
    gain: float = 0.65
    proportional: float = 0.13
    integral: float = 0.09

    def __call__(self, signals: Signals) -> NDArray[np.float64]:
        future = signals.future[:, : len(self.preview)]
        settled = (future[..., 0] - future[..., 1]) / steady_gain(future[..., 2])
        ahead = self.gain * (settled @ np.array(self.preview))
        return ahead + self.proportional * signals.error + self.integral * signals.clamped_integral


class PolicyController:
    """A policy in the place of a controller: the deterministic one, with its memory from step to step.

    Args:
        policy: as :class:`racer.networks.policy.Policy`.
        params: its arrays.
        steers: turns signals and actions ``[N]`` into steers, as
            :meth:`racer.envs.lateral.actions.ActionMap.steers` does.
        count: episodes that it acts in, N.
    """

    def __init__(
        self,
        policy: Any,
        params: Mapping[str, NDArray[np.float32]],
        steers: Callable[[Signals, NDArray[np.floating]], NDArray[np.float64]],
        count: int,
    ) -> None:
        self._policy, self._params, self._steers = policy, params, steers
        self._memory = policy.initial_memory(count)
        self._key = np.random.default_rng(0)

    def __call__(self, signals: Signals) -> NDArray[np.float64]:
        seen = observe(signals)
        actions, self._memory, _ = self._policy.act(self._params, seen, self._memory, self._key, deterministic=True)
        return self._steers(signals, actions[:, 0])


def _model_predictive(simulation: Simulation) -> Controller:
    from racer.envs.lateral.predictive import ModelPredictive

    return ModelPredictive(simulation)


CONTROLLERS: Mapping[str, Callable[[Simulation], Controller]] = {
    "zero": lambda simulation: Zero(),
    "pid": lambda simulation: PID(),
    "feed-forward": lambda simulation: FeedForward(),
    "model-predictive": _model_predictive,
}
"""Name to what makes the controller for a simulation."""


def make_controller(name: str, simulation: Simulation) -> Controller:
    """Return the controller called ``name`` for a simulation.

    Raises:
        UsageError: there is none; the message names the nearest one.
    """
    if name not in CONTROLLERS:
        raise unknown_name("controller", name, CONTROLLERS)
    return CONTROLLERS[name](simulation)
