"""What was steered elsewhere, as observations and actions that a policy can learn from before it acts itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from racer.envs.lateral.actions import ActionMap
from racer.envs.lateral.controllers import Controller
from racer.envs.lateral.observation import SIZE, observe
from racer.envs.lateral.plants import Plant
from racer.envs.lateral.plants.recorder import Recorder, Seen
from racer.envs.lateral.routes import Route
from racer.envs.lateral.rules import CONTEXT, DRAWS, FIRST_STEP, MAX_STEER, PLAN
from racer.envs.lateral.simulation import Signals, Simulation, clamped

__all__ = ["LEVELS", "controller_steers", "logged_steers", "visited"]

_FIRST_LOGGED = 2 * CONTEXT

LEVELS = 4
"""Strengths of noise that routes are steered with in turn, from none to all."""

_KEPT = (0.0, 0.5, 0.8, 0.95)
"""What noise may keep of itself from step to step."""

Demonstrations = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Observations ``[M, 256]`` and actions ``[M, 1]``."""


def logged_steers(routes: Sequence[Route], action_map: ActionMap, samples: int, seed: int) -> Demonstrations:
    """Return what the logs of routes say: steps before the first controlled one, at which target and actual are one.

    Args:
        routes: R.
        action_map: what actions mean.
        samples: steps drawn of each route, without repetition, at most 60.
        seed: of the draw.
    """
    seen, done = np.empty((0, SIZE), np.float32), np.empty((0, 1), np.float32)
    rng = np.random.default_rng(seed)
    parts = [(seen, done)]
    for route in routes:
        steps = rng.permutation(np.arange(_FIRST_LOGGED, FIRST_STEP))[:samples]
        signals = _logged_signals(route, steps)
        actions = action_map.actions(signals, np.clip(route.steer[steps], -MAX_STEER, MAX_STEER))
        parts.append((observe(signals), actions[:, None].astype(np.float32)))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def controller_steers(
    plant: Plant, controller: Controller, routes: Sequence[Route], action_map: ActionMap, samples: int, seed: int
) -> Demonstrations:
    """Return what a controller does on routes: ``samples`` steps of each, drawn without repetition."""
    rng = np.random.default_rng(seed)
    simulation = Simulation(plant, len(routes))
    simulation.start(range(len(routes)), routes, rng.random((len(routes), DRAWS)))
    steps = int(simulation.steps.max())
    chosen = np.argsort(rng.random((len(routes), steps)), axis=1) < samples
    seen, done = [], []
    for step in range(steps):
        signals = simulation.signals()
        steers = controller(signals)
        rows = chosen[:, step] & (step < simulation.steps)
        seen.append(observe(signals)[rows])
        done.append(action_map.actions(signals, steers)[rows, None].astype(np.float32))
        simulation.step(steers)
    return np.concatenate(seen), np.concatenate(done)


def visited(
    plant: Plant, controller: Controller, routes: Sequence[Route], noise: float, seed: int | Sequence[int]
) -> tuple[Seen, NDArray[np.float64]]:
    """Let a controller steer, and return all that the plant was asked, and the total costs ``[R]``.

    A quarter of the routes each is steered with no noise on top, with a third, with two thirds and with all of it: what
    is only ever steered well says nothing of what another steer would do.

    Args:
        plant: how the car answers.
        controller: made for R episodes.
        routes: R.
        noise: greatest deviation of what is added to the steer; white, or slower by route.
        seed: of draws and noise.
    """
    rng, recorder = np.random.default_rng(seed), Recorder(plant)
    count = len(routes)
    simulation = Simulation(recorder, count)
    simulation.start(range(count), routes, rng.random((count, DRAWS)))
    deviations = noise * (np.arange(count) % LEVELS) / (LEVELS - 1)
    kept = np.array(_KEPT)[rng.integers(len(_KEPT), size=count)]
    added, total = np.zeros(count), np.zeros(count)
    for step in range(int(simulation.steps.max())):
        added = kept * added + np.sqrt(1.0 - kept**2) * deviations * rng.standard_normal(count)
        costs = simulation.step(controller(simulation.signals()) + added).costs.total
        total += np.where(step < simulation.steps, costs, 0.0)
    return recorder.seen, total


def _logged_signals(route: Route, steps: NDArray[np.int64]) -> Signals:
    """Return what a controller would be told at steps ``[K]`` of a log, from 40 on."""
    target, steer = route.target, route.steer
    columns = np.stack([target, route.roll_lataccel, route.speed, route.acceleration], axis=1)
    past = steps[:, None] + np.arange(-CONTEXT, 0)
    future = columns[np.minimum(steps[:, None] + np.arange(PLAN + 1), len(target) - 1)]
    lataccels, before = target[past], target[steps - 1] - target[steps - 2]
    error, integral = target[steps] - lataccels[:, -1], target[steps] - target[CONTEXT - 1]
    return Signals(
        target[steps], lataccels[:, -1], error, integral, clamped(integral), before, before, future,
        np.clip(steer[past], -MAX_STEER, MAX_STEER), lataccels,
    )  # fmt: skip
