"""Episodes imagined in a differentiable plant, so that a policy can follow the gradient of the cost itself.

The rules are those of :class:`racer.envs.lateral.simulation.Simulation`, in JAX and float32, except that the next
lateral acceleration is ``mean + deviation * noise`` and not a token (reparametrisation: Kingma & Welling 2014; value
gradients through a learnt model: Heess et al. 2015, arXiv 1510.09142). Both depend on the steers: that a restless hand
makes the car rougher is part of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.envs.lateral.actions import ActionMap
from racer.envs.lateral.config import LateralConfig
from racer.envs.lateral.controllers import PolicyController
from racer.envs.lateral.demonstrations import LEVELS, visited
from racer.envs.lateral.generator import steady_gain
from racer.envs.lateral.observation import observe
from racer.envs.lateral.plants import Plant, make_plant
from racer.envs.lateral.plants.distilled import errors, fit, initial, predict
from racer.envs.lateral.plants.recorder import Seen
from racer.envs.lateral.routes import Route, Routes
from racer.envs.lateral.rules import (
    CONTEXT,
    DRAWS,
    FIRST_STEP,
    LAST_STEP,
    LATACCEL_WEIGHT,
    MAX_CHANGE,
    MAX_LATACCEL,
    PLAN,
    STEP,
    STEPS,
)
from racer.envs.lateral.simulation import Signals, Simulation, clamped
from racer.envs.lateral.world import make_routes

__all__ = ["Imaginer", "Lanes", "Roads", "begin", "hardest_first", "hardness", "imagined_cost", "places_drawn", "roads"]

_ROADS = 1500
"""Routes that episodes are imagined on."""

_POOL = 8192
"""Routes that are told apart by their hardness."""

_SOON = 5
"""Steps over which a change is a sharp one."""


class Roads(NamedTuple):
    """Routes and how episodes on them begin; K of them.

    Attributes:
        columns: target, roll (m/s^2 each), speed (m/s), acceleration (m/s^2), ``[K, 550, 4]``.
        actions: the 20 steers before the first controlled step, ``[K, 20]``.
        integral: clamped sum of the errors until then, ``[K]``.
        last_error: the latest of them, ``[K]``.
        weights: of their costs, so that the mean is that of routes which are drawn alike, ``[K]``.
    """

    columns: Any
    actions: Any
    integral: Any
    last_error: Any
    weights: Any


class Lanes(NamedTuple):
    """Episodes side by side; N of them.

    Attributes:
        road: which of the roads, ``[N]``.
        index: of the step to come, ``[N]``.
        end: step at which the episode is begun anew, ``[N]``.
        actions: last 20 steers, ``[N, 20]``.
        lataccels: last 20 lateral accelerations, ``[N, 20]``.
        integral: clamped sum of the errors so far, ``[N]``.
        previous_error: of the last step, ``[N]``.
        change: of the lateral acceleration in the last step, ``[N]``.
    """

    road: Any
    index: Any
    end: Any
    actions: Any
    lataccels: Any
    integral: Any
    previous_error: Any
    change: Any


class Imaginer:
    """Learns a model of a plant where a policy takes it, round by round.

    Args:
        config: of the world.
        settings: ``routes``, ``hardness``, ``noise`` and ``epochs`` of the learning, ``lanes`` and ``horizon`` of what
            is imagined.
        seed: of everything random.

    Raises:
        UsageError: the plant or the routes cannot be read, or a horizon that does not
            divide an episode.
    """

    def __init__(self, config: LateralConfig, settings: Any, seed: int) -> None:
        if STEPS % settings.horizon:
            raise UsageError(f"config key 'imagination': 'horizon' {settings.horizon} does not divide {STEPS} steps")
        self._settings, self._seed = settings, seed
        self._plant, self._actions = make_plant(config.plant), ActionMap.of(config)
        self._routes = make_routes(config)
        self._numbers = np.random.default_rng(seed)
        self._pool = hardest_first(self._routes, _POOL, self._numbers)
        routes, weights = self._drawn(_ROADS)
        self._roads = roads(self._plant, routes, weights)
        self._model = initial(jax.random.PRNGKey(seed))
        self._seen: Seen | None = None

    def learn(self, policy: Any, params: Any, number: int) -> str:
        """Let a policy act on the plant, learn from all that was seen so far, and say how it went.

        Args:
            policy: as :class:`racer.networks.policy.Policy`.
            params: its arrays.
            number: of the round.
        """
        settings, seed = self._settings, [self._seed, number]
        routes, weights = self._drawn(settings.routes)
        controller = PolicyController(policy, params, self._actions.steers, len(routes))
        seen, costs = visited(self._plant, controller, routes, settings.noise, seed)
        new = errors(self._model, seen)
        known = seen if self._seen is None else Seen(*map(np.concatenate, zip(self._seen, seen, strict=True)))
        key = jax.random.PRNGKey(int(np.random.default_rng(seed).integers(1 << 31)))
        self._seen, self._model = known, fit(self._model, known, key, epochs=settings.epochs)
        # The first of every four are steered without noise.
        cost = np.average(costs[::LEVELS], weights=weights[::LEVELS])
        return (
            f"cost {cost:.1f} on {len(costs[::LEVELS])} routes, {len(known.means)} steps seen; error of the mean "
            f"{new[0]:.4f} m/s^2 where new, {errors(self._model, seen)[0]:.4f} learnt"
        )

    def lanes(self, number: int) -> Lanes:
        """Return episodes that begin, for a round."""
        return begin(self._roads, self._settings.lanes, self._settings.horizon, jax.random.PRNGKey(number))

    def cost(self, act: Callable[[Any, Any], Any]) -> Callable[[Any, Lanes, Any], tuple[Any, Lanes]]:
        """Return the cost of a policy as :func:`racer.agents.descent.descend` takes it."""

        def steers(params: Any, signals: Signals) -> Any:
            return self._actions.steers(signals, act(params, observe(signals))[:, 0])

        return partial(imagined_cost, steers, self._model, self._roads, self._settings.horizon)

    def _drawn(self, count: int) -> tuple[list[Route], NDArray[np.float64]]:
        places, weights = places_drawn(len(self._pool), count, self._settings.hardness, self._numbers)
        return [self._routes[int(number)] for number in self._pool[places]], weights


def hardness(route: Route) -> float:
    """Return how hard a route is to follow, in steer; -inf if it ends early.

    The sum of the greatest steer that would settle at its target, of the one that it begins with, as the car is not yet
    controlled there, and of the greatest change within half a second.
    """
    if len(route.target) < LAST_STEP:
        return -np.inf
    driven = slice(FIRST_STEP, LAST_STEP)
    settled = (route.target - route.roll_lataccel)[driven] / steady_gain(route.speed[driven])
    steers = np.abs(settled)
    return float(steers.max() + steers[0] + np.abs(settled[_SOON:] - settled[:-_SOON]).max())


def hardest_first(routes: Routes, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the numbers of up to ``count`` routes that last until step 500, sorted by :func:`hardness`.

    Raises:
        UsageError: none lasts.
    """
    size = len(routes)
    numbers = np.arange(size) if size <= count else rng.integers(size, size=count)
    known = np.array([hardness(routes[int(number)]) for number in numbers])
    lasting: NDArray[np.int64] = numbers[np.argsort(-known)][: np.count_nonzero(known > -np.inf)]
    if not len(lasting):
        raise UsageError(f"none of the {size} routes lasts {LAST_STEP} rows: there is nothing to imagine")
    return lasting


def places_drawn(
    size: int, count: int, power: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw places with repetition: the first share q of them has probability ``q ** (1/power)``.

    Where the hardest come first, those are drawn more often than they occur: they are rare, and weigh in the mean cost.

    Returns:
        ``count`` of ``size`` places, and what each is to weigh, so that a weighted mean is one over all places
        (importance sampling).
    """
    shares = rng.random(count) ** power
    return (size * shares).astype(np.int64), power * shares ** (1.0 - 1.0 / power)


def roads(plant: Plant, routes: Sequence[Route], weights: NDArray[np.float64] | None = None) -> Roads:
    """Return routes as :func:`imagined_cost` takes them; all must last until step 500, and weigh alike if not told."""
    simulation = Simulation(plant, len(routes))
    simulation.start(range(len(routes)), routes, np.zeros((len(routes), DRAWS)))
    state = simulation.get_state()
    given = np.ones(len(routes)) if weights is None else weights
    arrays = (simulation.columns(), state["actions"], state["clamped_integral"], state["previous_error"], given)
    return Roads(*(jnp.asarray(array, jnp.float32) for array in arrays))


def begin(known: Roads, num: int, horizon: int, key: Any) -> Lanes:
    """Begin ``num`` episodes. Their first ends differ, so that later they are not all in the same part of a route."""
    first, second = jax.random.split(key)
    ends = FIRST_STEP + horizon * jax.random.randint(second, (num,), 1, STEPS // horizon + 1)
    return _fresh(known, num, first)._replace(end=ends)


def imagined_cost(
    act: Callable[[Any, Signals], Any], model: Any, known: Roads, horizon: int, params: Any, lanes: Lanes, key: Any
) -> tuple[Any, Lanes]:
    """Run every episode on for some steps; return what a whole episode would cost at that rate, and where they are.

    Args:
        act: maps the policy's parameters and signals to steers ``[N]`` within their limits.
        model: parameters of :mod:`racer.envs.lateral.plants.distilled`.
        known: roads of the lanes.
        horizon: steps; a divisor of 400.
        params: of the policy.
        lanes: where the episodes are; no gradient flows into what was before.
        key: of noise, and of the roads of episodes that begin.
    """
    noise_key, road_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (horizon, len(lanes.index)))

    def step(lanes: Lanes, noise: Any) -> tuple[Lanes, Any]:
        signals, states = _told(known, lanes)
        steers = act(params, signals)
        actions = jnp.concatenate([lanes.actions[:, 1:], steers[:, None]], axis=1)
        mean, deviation = predict(model, jnp.concatenate([actions[..., None], states], axis=-1), lanes.lataccels)
        drawn = jnp.clip(mean + deviation * noise, -MAX_LATACCEL, MAX_LATACCEL)
        change = jnp.clip(drawn - signals.lataccel, -MAX_CHANGE, MAX_CHANGE)
        after = signals.lataccel + change
        lataccel = 100.0 * jnp.square(signals.target - after) / STEPS
        jerk = 100.0 * jnp.square(change / STEP) / (STEPS - 1)
        cost = LATACCEL_WEIGHT * lataccel + jnp.where(lanes.index > FIRST_STEP, jerk, 0.0)
        lataccels = jnp.concatenate([lanes.lataccels[:, 1:], after[:, None]], axis=1)
        moved = Lanes(
            lanes.road, lanes.index + 1, lanes.end, actions, lataccels, signals.clamped_integral, signals.error, change
        )
        return moved, cost

    weights = known.weights[lanes.road]
    lanes, costs = jax.lax.scan(step, lanes, noise)
    fresh, over = _fresh(known, len(lanes.index), road_key), lanes.index >= lanes.end
    lanes = jax.tree.map(lambda new, old: jnp.where(over.reshape(-1, *[1] * (old.ndim - 1)), new, old), fresh, lanes)
    return (weights * costs.sum(axis=0)).mean() * (STEPS / horizon), jax.lax.stop_gradient(lanes)


def _fresh(known: Roads, num: int, key: Any) -> Lanes:
    road = jax.random.randint(key, (num,), 0, len(known.integral))
    lataccels = known.columns[road, FIRST_STEP - CONTEXT : FIRST_STEP, 0]
    first, last = jnp.full(num, FIRST_STEP), jnp.full(num, LAST_STEP)
    error = known.last_error[road]
    return Lanes(road, first, last, known.actions[road], lataccels, known.integral[road], error, error)


def _told(known: Roads, lanes: Lanes) -> tuple[Signals, Any]:
    """Return what a controller is told, and what a plant reads beside the steers, ``[N, 20, 3]``."""
    places = lanes.index[:, None] + jnp.arange(1 - CONTEXT, PLAN + 1)
    window = known.columns[lanes.road[:, None], places]
    future, lataccel = window[:, CONTEXT - 1 :], lanes.lataccels[:, -1]
    error = future[:, 0, 0] - lataccel
    integral = clamped(lanes.integral + error)
    signals = Signals(
        future[:, 0, 0], lataccel, error, integral, integral, lanes.previous_error, lanes.change,
        future, lanes.actions, lanes.lataccels,
    )  # fmt: skip
    return signals, window[:, :CONTEXT, 1:]
