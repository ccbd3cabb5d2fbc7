"""A batch of episodes on one plant, stepped by the rules of the official scorer. NumPy, float64.

An episode begins at the first controlled step, as nothing before it depends on the controller: until then the lateral
acceleration is the target and the steer is the logged one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from racer.envs.lateral.plants import Memory, Plant
from racer.envs.lateral.routes import Route
from racer.envs.lateral.rules import (
    CONTEXT,
    DRAWS,
    FIRST_STEP,
    LAST_STEP,
    MAX_CHANGE,
    MAX_INTEGRAL,
    MAX_STEER,
    PLAN,
    Costs,
    step_costs,
)

__all__ = ["Signals", "Simulation", "StepResult", "clamped"]

_COLUMNS = ("target", "roll", "speed", "acceleration")
_HISTORY = ("actions", "lataccels")
_NUMBERS = ("index", "last", "integral", "clamped_integral", "previous_error", "change")


class Signals(NamedTuple):
    """What a controller is told before a step, a row an episode.

    Attributes:
        target: lateral acceleration asked for in this step (m/s^2), ``[N]``.
        lataccel: the one after the last step (m/s^2), ``[N]``.
        error: target minus lataccel, ``[N]``.
        integral: sum of the errors from step 20 on, this one included (m/s^2), ``[N]``.
        clamped_integral: the same, kept within :data:`racer.envs.lateral.rules.MAX_INTEGRAL` at every step, so that it
            does not wind up while the target is out of reach, ``[N]``.
        previous_error: of the step before, ``[N]``.
        change: of the lateral acceleration in the last step (m/s^2), ``[N]``.
        future: ``[N, 50, 4]``, this step and the 49 after it: target, lateral acceleration of the road's roll
            (m/s^2 each), forward speed (m/s) and acceleration (m/s^2); a route's last row stands for what comes after.
        actions: the last 20 steers, ``[N, 20]``.
        lataccels: the last 20 lateral accelerations, ``[N, 20]``.
    """

    target: NDArray[np.float64]
    lataccel: NDArray[np.float64]
    error: NDArray[np.float64]
    integral: NDArray[np.float64]
    clamped_integral: NDArray[np.float64]
    previous_error: NDArray[np.float64]
    change: NDArray[np.float64]
    future: NDArray[np.float64]
    actions: NDArray[np.float64]
    lataccels: NDArray[np.float64]


class StepResult(NamedTuple):
    """What a step led to, ``[N]`` each.

    Attributes:
        costs: what the step adds to the costs of its episode.
        ended: whether it was the episode's last step.
        lataccels: lateral acceleration after the step (m/s^2).
        steers: as the plant got them.
    """

    costs: Costs
    ended: NDArray[np.bool_]
    lataccels: NDArray[np.float64]
    steers: NDArray[np.float64]


def clamped(integral: Any) -> Any:
    """Return sums of errors within their limits, on NumPy or JAX arrays."""
    return integral.clip(-MAX_INTEGRAL, MAX_INTEGRAL)


class Simulation:
    """N episodes side by side. An episode that has ended may be stepped on and is ignored.

    Args:
        plant: how the car answers.
        num: N.
        max_steps: controlled steps of an episode, at most 400; a route that ends earlier has fewer.
    """

    def __init__(self, plant: Plant, num: int, max_steps: int = LAST_STEP - FIRST_STEP) -> None:
        self.plant, self.num, self.max_steps = plant, num, max_steps
        self._room = LAST_STEP + PLAN + 1
        self._route = {name: np.zeros((num, self._room)) for name in _COLUMNS}
        self._owner = np.arange(num)
        self._state: dict[str, Any] = {name: np.zeros((num, CONTEXT)) for name in _HISTORY}
        self._state |= {name: np.zeros(num) for name in _NUMBERS}
        self._state |= {name: np.zeros(num, np.int64) for name in ("index", "last")}
        self._uniforms = np.zeros((num, DRAWS))
        self._memory: Memory = plant.start(self._uniforms)

    @property
    def steps(self) -> NDArray[np.int64]:
        """Controlled steps of each full episode, ``[N]``."""
        return self._state["last"] - FIRST_STEP

    @property
    def taken(self) -> NDArray[np.int64]:
        """Steps taken in each episode, ``[N]``."""
        return self._state["index"] - FIRST_STEP

    def start(self, places: Sequence[int] | NDArray[np.int64], routes: Sequence[Route], uniforms: NDArray[Any]) -> None:
        """Begin episodes.

        Args:
            places: which of the N, K of them.
            routes: K.
            uniforms: ``[K, DRAWS]``, all randomness of the episodes.
        """
        places = np.asarray(places, np.int64)
        for place, route in zip(places, routes, strict=True):
            self._place(int(place), route)
        self._uniforms[places] = uniforms
        for name, value in self.plant.start(np.asarray(uniforms)).items():
            self._memory[name][places] = value

    def signals(self) -> Signals:
        """Return what a controller is told now."""
        state, rows, index = self._state, np.arange(self.num), self._state["index"]
        future = self._window(np.arange(PLAN + 1))
        target, lataccel = future[:, 0, 0], state["lataccels"][rows, -1]
        error = target - lataccel
        return Signals(
            target, lataccel, error, state["integral"] + error, clamped(state["clamped_integral"] + error),
            state["previous_error"].copy(),
            np.where(index > FIRST_STEP, state["change"], lataccel - state["lataccels"][rows, -2]),
            future, state["actions"].copy(), state["lataccels"].copy(),
        )  # fmt: skip

    def step(self, steers: NDArray[Any]) -> StepResult:
        """Take one step of every episode with these steers, ``[N]``."""
        state, index = self._state, self._state["index"]
        steers = np.clip(np.asarray(steers, np.float64), -MAX_STEER, MAX_STEER)
        current = state["lataccels"][:, -1]
        target = self._route["target"][self._owner, index]
        error = target - current
        state["actions"] = np.concatenate([state["actions"][:, 1:], steers[:, None]], axis=1)
        states = np.concatenate([state["actions"][..., None], self._window(np.arange(1 - CONTEXT, 1))[..., 1:]], axis=2)
        draws = self._uniforms[np.arange(self.num), np.minimum(index - CONTEXT, DRAWS - 1)]
        predicted, self._memory = self.plant.step(states, state["lataccels"], draws, self._memory)
        after = np.clip(predicted, current - MAX_CHANGE, current + MAX_CHANGE)
        state["lataccels"] = np.concatenate([state["lataccels"][:, 1:], after[:, None]], axis=1)
        state["integral"] = state["integral"] + error
        state["clamped_integral"] = clamped(state["clamped_integral"] + error)
        state["previous_error"], state["change"] = error, after - current
        costs = step_costs(target - after, after - current, self.steps, index == FIRST_STEP)
        # An episode that idles stands at its end.
        state["index"] = np.minimum(index + 1, state["last"])
        return StepResult(costs, index + 1 >= state["last"], after, steers)

    def columns(self) -> NDArray[np.float64]:
        """Return the routes: target, roll (m/s^2 each), speed (m/s) and acceleration (m/s^2), ``[N, 550, 4]``."""
        return np.stack([self._route[name][self._owner] for name in _COLUMNS], axis=-1)

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Return all that changes within episodes, as copies by name; the routes themselves are not among it."""
        memory = {f"plant/{name}": value.copy() for name, value in self._memory.items()}
        state = {name: value.copy() for name, value in self._state.items()}
        return {**state, "uniforms": self._uniforms.copy(), **memory}

    def set_state(self, state: Mapping[str, NDArray[Any]], routes: Sequence[Route]) -> None:
        """Return to :meth:`get_state`, with the routes of the N episodes then.

        A state without a clamped sum of errors, as runs of earlier versions hold it, gets the limits of the plain one.
        """
        state = {"clamped_integral": clamped(np.asarray(state["integral"])), **state}
        for place, route in enumerate(routes):
            self._place(place, route)
        self._state = {name: np.array(state[name], value.dtype) for name, value in self._state.items()}
        self._uniforms = np.array(state["uniforms"], np.float64)
        self._memory = {name: np.array(state[f"plant/{name}"], np.float64) for name in self._memory}

    def copies(self, places: NDArray[np.int64]) -> Simulation:
        """Return a simulation whose episodes are copies of those at ``places`` ``[K]``, which may repeat.

        Both share the routes: no episode may begin in either while the copy is in use.
        """
        copy = Simulation.__new__(Simulation)
        copy.plant, copy.num, copy.max_steps, copy._room = self.plant, len(places), self.max_steps, self._room
        copy._route, copy._owner = self._route, self._owner[places]
        copy._state = {name: value[places] for name, value in self._state.items()}
        copy._uniforms = self._uniforms[places]
        copy._memory = {name: value[places] for name, value in self._memory.items()}
        return copy

    def redraw(self, uniforms: NDArray[np.float64]) -> None:
        """Replace the draws of the steps to come, ``[N, DRAWS]``: what a planner may not know."""
        self._uniforms = np.array(uniforms, np.float64)

    def _place(self, place: int, route: Route) -> None:
        target, steer = route.target, route.steer
        for name, column in zip(
            _COLUMNS, (target, route.roll_lataccel, route.speed, route.acceleration), strict=True
        ):
            column = column[: self._room]
            self._route[name][place, : len(column)] = column
            self._route[name][place, len(column) :] = column[-1]
        state = self._state
        state["actions"][place] = np.clip(steer[FIRST_STEP - CONTEXT : FIRST_STEP], -MAX_STEER, MAX_STEER)
        state["lataccels"][place] = target[FIRST_STEP - CONTEXT : FIRST_STEP]
        state["index"][place] = FIRST_STEP
        state["last"][place] = min(FIRST_STEP + self.max_steps, LAST_STEP, len(target))
        # Until the first controlled step the lateral acceleration is the target, so the errors are its changes.
        changes = np.diff(target[CONTEXT - 1 : FIRST_STEP])
        state["integral"][place], state["previous_error"][place] = changes.sum(), changes[-1]
        state["clamped_integral"][place] = clamped(changes.sum())

    def _window(self, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return target, roll, speed and acceleration ``[N, K, 4]`` at offsets ``[K]`` from each episode's step."""
        places = self._state["index"][:, None] + offsets
        rows = self._owner[:, None]
        return np.stack([self._route[name][rows, places] for name in _COLUMNS], axis=-1)
