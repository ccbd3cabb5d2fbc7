"""The worlds by name, and all that training, evaluation and plotting may ask of one.

Nothing outside :mod:`racer.envs` knows a world's keys: it completes a configuration with :attr:`World.resolve`, builds
environments with :attr:`World.make`, and reads :attr:`World.metrics`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from racer.core.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

__all__ = ["BASE_METRICS", "DEFAULT_WORLD", "Controller", "Metric", "View", "World", "get_world", "world_names"]

DEFAULT_WORLD = "highway"
"""The world of a run that names none."""

_WORLDS: dict[str, str] = {
    "highway": "racer.envs.highway.entry",
}
"""Name to the module that holds ``WORLD``; imported on demand."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """One number that an environment reports of every episode that ends.

    Attributes:
        key: its name in ``episode_metrics``.
        name: its name in logs and aggregates ("collision_rate" of the key "crashed").
        kind: "mean" (over episodes), "rate" (share of episodes in which it is above 0), or "share" (of steps:
            pooled over all steps).
        label: its row in a table, with its unit.
        unit: of its axis in a picture.
        better: "high", "low", or "" where neither is.
        total: name under which training counts how often it happened, for rates that matter so; empty for none.
        exploit: whether it is a share of steps that a policy gains by what nobody wants.
    """

    key: str
    name: str
    kind: str = "mean"
    label: str = ""
    unit: str = ""
    better: str = ""
    total: str = ""
    exploit: bool = False


BASE_METRICS: tuple[Metric, ...] = (
    Metric("return", "return", label="Mean return", unit="reward", better="high"),
    Metric("length", "length", label="Mean episode length [steps]", unit="steps"),
)
"""What every world reports; a world's own metrics follow."""


class View(Protocol):
    """A transform of observations, on NumPy or JAX arrays."""

    def __call__(self, observations: Any) -> Any:
        """Map ``[..., *observation shape]`` to ``[..., *shape]``."""
        ...

    def shape(self, observation_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that an observation has after the transform.

        Raises:
            UsageError: the view is not made for such observations.
        """
        ...


class Controller(Protocol):
    """A transform of actions: what a policy chooses becomes what the world takes, on NumPy or JAX arrays."""

    size: int
    """Numbers that the policy chooses, each in [-1, 1]."""

    def __call__(self, observations: Any, actions: Any) -> Any:
        """Map ``[..., *observation shape]`` and ``[..., size]`` to the world's own actions ``[..., A]``."""
        ...


@dataclass(frozen=True)
class World:
    """A world, as the rest of the house sees it.

    Attributes:
        name: by which it is found.
        resolve: completes overrides to a whole configuration and checks it.
        make: builds ``num_envs`` environments, which reset within the step, from a whole configuration.
        metrics: what ``episode_metrics`` holds, :data:`BASE_METRICS` included, in the order of tables.
        action_names: names of the components of an action, empty where they have none.
        end_reason: why an episode ended, from its metrics and whether it terminated.
        aliases: keys of an agent's configuration file that belong to the world, with their names there.
        views: named observation transforms.
        controllers: named action transforms.
        film: how episodes are drawn, or None where the world cannot be filmed.
        functional: reset and step as pure functions of arrays, or None.
    """

    name: str
    resolve: Callable[[Config | None], dict[str, Any]]
    make: Callable[[Config, int], VectorEnv]
    metrics: tuple[Metric, ...] = BASE_METRICS
    action_names: Callable[[Config], tuple[str, ...]] = lambda config: ()
    end_reason: Callable[[Mapping[str, float], bool], str] = lambda metrics, terminated: (
        "terminated" if terminated else "time_limit"
    )
    aliases: Mapping[str, str] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)
    controllers: Mapping[str, Controller] = field(default_factory=dict)
    film: Any = None
    functional: Any = None

    def view(self, name: str) -> View:
        """Return the observation transform called ``name``.

        Raises:
            UsageError: there is none; the message names the nearest one.
        """
        return _named("view", self.name, name, self.views)

    def controller(self, name: str) -> Controller:
        """Return the action transform called ``name``.

        Raises:
            UsageError: there is none; the message names the nearest one.
        """
        return _named("controller", self.name, name, self.controllers)


def world_names() -> tuple[str, ...]:
    """Return the names of the worlds that come along, sorted."""
    return tuple(sorted(_WORLDS))


def get_world(name: str) -> World:
    """Return the world called ``name``: one of :func:`world_names`, or ``gym:<id>`` for any gymnasium id.

    Raises:
        UsageError: there is no such world; the message names the nearest one.
    """
    if name.startswith("gym:"):
        from racer.envs.gym import gym_world

        return gym_world(name)
    if name not in _WORLDS:
        raise unknown_name("world", name, [*_WORLDS, "gym:<id>"])
    world: World = importlib.import_module(_WORLDS[name]).WORLD
    return world


def _named(kind: str, world: str, name: str, known: Mapping[str, Any]) -> Any:
    if not known:
        raise UsageError(f"world {world!r} has no {kind}s, so {kind} {name!r} cannot be used")
    if name not in known:
        raise unknown_name(f"{kind} of world {world!r}", name, known)
    return known[name]
