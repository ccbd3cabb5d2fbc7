"""The rules of the environments, single and batched: routes, episodes, rewards, metrics, exact states."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.envs.lateral.actions import ActionMap
from racer.envs.lateral.config import GENERATED, LateralConfig
from racer.envs.lateral.generator import GeneratedRoutes
from racer.envs.lateral.observation import SIZE, observe
from racer.envs.lateral.plants import make_plant
from racer.envs.lateral.routes import Route, RouteFolder, Routes
from racer.envs.lateral.rules import DRAWS, Costs
from racer.envs.lateral.simulation import Signals, Simulation

__all__ = ["LateralWorld", "WorldStep", "lateral_spaces", "make_routes"]


class WorldStep(NamedTuple):
    """What a step led to; ``[N]`` each. The episodes that ended are yet to be begun anew."""

    observations: NDArray[np.float32]
    rewards: NDArray[np.float64]
    ended: NDArray[np.bool_]
    info: dict[str, NDArray[np.float64]]
    metrics: dict[str, NDArray[np.float64]]


def lateral_spaces() -> tuple[spaces.Box, spaces.Box]:
    """Return the spaces of one environment's observations and actions."""
    return spaces.Box(-5.0, 5.0, (SIZE,), np.float32), spaces.Box(-1.0, 1.0, (1,), np.float32)


def make_routes(config: LateralConfig) -> Routes:
    """Return the routes of a configuration.

    Raises:
        UsageError: a folder without routes of the split, or a malformed file.
    """
    if config.routes == GENERATED:
        return GeneratedRoutes(config.route_seed, config.split)
    return RouteFolder(config.routes, config.split)


class LateralWorld:
    """N environments.

    Args:
        config: checked.
        num_envs: N.

    Raises:
        UsageError: the plant or the routes cannot be read.
    """

    def __init__(self, config: LateralConfig, num_envs: int) -> None:
        self.config, self.num_envs = config, num_envs
        self.routes = make_routes(config)
        self.simulation = Simulation(make_plant(config.plant), num_envs, config.max_steps)
        self._actions = ActionMap.of(config)
        self._numbers = np.zeros(num_envs, np.int64)
        self._sums = np.zeros((num_envs, 3))
        self._signals: Signals | None = None

    @property
    def signals(self) -> Signals:
        """What controllers are told now."""
        if self._signals is None:
            self._signals = self.simulation.signals()
        return self._signals

    @property
    def action_map(self) -> ActionMap:
        """What actions mean."""
        return self._actions

    def route(self, index: int) -> Route:
        """Return the route that environment ``index`` follows."""
        return self.routes[int(self._numbers[index])]

    def begin(self, indices: Sequence[int] | NDArray[np.int64], generators: Sequence[np.random.Generator]) -> None:
        """Begin episodes at ``indices`` ``[K]``; route and draws come from each one's generator ``[K]``."""
        indices = np.asarray(indices, np.int64)
        numbers = [int(generator.integers(len(self.routes))) for generator in generators]
        draws = np.stack([generator.random(DRAWS) for generator in generators])
        self._numbers[indices], self._sums[indices] = numbers, 0.0
        self.simulation.start(indices, [self.routes[number] for number in numbers], draws)
        self._signals = None

    def observe(self) -> NDArray[np.float32]:
        """Return observations ``[N, 256]``."""
        return observe(self.signals)

    def step(self, actions: NDArray[Any]) -> WorldStep:
        """Take one step with actions ``[N, 1]``.

        Raises:
            UsageError: actions of another shape, or one that is no finite number.
        """
        given = np.asarray(actions, np.float64)
        if given.shape != (self.num_envs, 1) or not np.isfinite(given).all():
            raise UsageError(f"actions must be finite numbers [{self.num_envs}, 1], got shape {list(given.shape)}")
        signals = self.signals
        after = self.simulation.step(self._actions.steers(signals, given[:, 0]))
        self._signals = None
        self._sums += np.stack(after.costs, axis=1)
        total, lataccel, jerk = self._sums.T
        info = {
            "target": signals.target,
            "lataccel": after.lataccels,
            "steer": after.steers,
            **{f"{name}_cost": value for name, value in after.costs._asdict().items()},
        }
        metrics = {
            "return": -total,
            "length": self.simulation.taken.astype(np.float64),
            "total_cost": total.copy(),
            "lataccel_cost": lataccel.copy(),
            "jerk_cost": jerk.copy(),
        }
        return WorldStep(self.observe(), -after.costs.total, after.ended, info, metrics)

    def costs(self) -> Costs:
        """Return the costs of the episodes so far, ``[N]`` each."""
        return Costs(*self._sums.T.copy())

    def get_state(self, generators: Sequence[np.random.Generator]) -> dict[str, NDArray[Any]]:
        """Return everything that decides how the environments go on, as flat named arrays."""
        text = json.dumps([generator.bit_generator.state for generator in generators])
        return {
            **self.simulation.get_state(),
            "route_numbers": self._numbers.copy(),
            "cost_sums": self._sums.copy(),
            "generators": np.frombuffer(text.encode(), dtype=np.uint8).copy(),
        }

    def set_state(self, state: Mapping[str, NDArray[Any]], generators: Sequence[np.random.Generator]) -> None:
        """Return to :meth:`get_state` exactly."""
        numbers = np.array(state["route_numbers"], np.int64)
        if numbers.shape != (self.num_envs,) or not ((numbers >= 0) & (numbers < len(self.routes))).all():
            raise UsageError(f"the state is of other environments: it has routes that are not among {len(self.routes)}")
        self._numbers, self._sums = numbers, np.array(state["cost_sums"], np.float64)
        self.simulation.set_state(state, [self.routes[int(number)] for number in numbers])
        for generator, saved in zip(generators, json.loads(bytes(state["generators"]).decode()), strict=True):
            generator.bit_generator.state = saved
        self._signals = None
