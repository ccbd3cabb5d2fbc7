"""Scores: the costs of a controller on routes, exactly as the official scorer counts them.

The official random stream of a route follows from the path of its file. A score that is to say something about a
controller is taken under salted streams as well, which nothing in the file gives away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.envs.lateral.controllers import Controller
from racer.envs.lateral.plants import Plant
from racer.envs.lateral.routes import Route
from racer.envs.lateral.rules import DRAWS, STEPS, Costs, episode_costs, official_seed, official_uniforms
from racer.envs.lateral.simulation import Simulation

__all__ = ["Scores", "official_draws", "salted_draws", "score"]


class Scores(NamedTuple):
    """Scores of R routes.

    Attributes:
        costs: ``[R]`` each.
        lataccels: after each controlled step (m/s^2), ``[R, 400]``; NaN after a route's end.
        targets: the same.
        steers: the same.
    """

    costs: Costs
    lataccels: NDArray[np.float64]
    targets: NDArray[np.float64]
    steers: NDArray[np.float64]


def official_draws(paths: Sequence[str]) -> NDArray[np.float64]:
    """Return the draws ``[R, DRAWS]`` that the official scorer makes for files given by these paths."""
    return np.stack([official_uniforms(official_seed(path)) for path in paths])


def salted_draws(num: int, salt: int) -> NDArray[np.float64]:
    """Return draws ``[R, DRAWS]`` that depend on the salt and a route's place alone."""
    return np.stack([np.random.default_rng([salt, place]).random(DRAWS) for place in range(num)])


def score(
    plant: Plant,
    make_controller: Callable[[Simulation], Controller],
    routes: Sequence[Route],
    draws: NDArray[np.float64],
    *,
    batch: int = 64,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Scores:
    """Run a controller over routes.

    Args:
        plant: how the car answers.
        make_controller: makes the controller for a batch of episodes.
        routes: R.
        draws: ``[R, DRAWS]``, from :func:`official_draws` or :func:`salted_draws`.
        batch: routes side by side; a matter of speed.
        on_batch: called with the number of routes that are done.

    Raises:
        UsageError: there is no route.
    """
    if not routes:
        raise UsageError("a score needs at least one route")
    parts = []
    for first in range(0, len(routes), batch):
        chosen = slice(first, min(first + batch, len(routes)))
        parts.append(_scored(plant, make_controller, routes[chosen], draws[chosen]))
        on_batch(chosen.stop)
    costs = Costs(*(np.concatenate(columns) for columns in zip(*(part.costs for part in parts), strict=True)))
    return Scores(costs, *(np.concatenate([part[k] for part in parts]) for k in (1, 2, 3)))


def _scored(
    plant: Plant,
    make_controller: Callable[[Simulation], Controller],
    routes: Sequence[Route],
    draws: NDArray[np.float64],
) -> Scores:
    simulation = Simulation(plant, len(routes))
    simulation.start(range(len(routes)), routes, draws)
    controller = make_controller(simulation)
    traces = np.full((3, len(routes), STEPS), np.nan)
    for step in range(int(simulation.steps.max())):
        signals = simulation.signals()
        after = simulation.step(controller(signals))
        running = step < simulation.steps
        for trace, values in zip(traces, (after.lataccels, signals.target, after.steers), strict=True):
            trace[running, step] = values[running]
    lataccels, targets, steers = traces
    steps = simulation.steps
    rows = [episode_costs(targets[i, :n], lataccels[i, :n]) for i, n in enumerate(steps)]
    return Scores(Costs(*(np.array(column) for column in zip(*rows, strict=True))), lataccels, targets, steers)
