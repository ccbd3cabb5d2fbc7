"""A world: all that training, evaluation and plotting may ask of one.

Nothing outside :mod:`racer.envs` knows a world's keys: it completes a configuration with :attr:`World.resolve`, builds
environments with :attr:`World.make`, and reads :attr:`World.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from racer.core.errors import UsageError, unknown_name
from racer.envs.metric import BASE_METRICS, Metric

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.spaces import Space
    from gymnasium.vector import VectorEnv
    from PIL.Image import Image

    from racer.core.drawing import Canvas, Color
    from racer.envs.replay import Replay

__all__ = ["Controller", "Film", "Functional", "FunctionalStep", "Step", "View", "World"]

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One step of a single environment, as a film shows it.

    Attributes:
        index: 1 for the first step.
        observation: the one that the action answers.
        action: ``[A]``, or a choice.
        reward: of the step.
        episode_return: sum of the rewards so far.
        info: the environment's info.
    """

    index: int
    observation: np.ndarray
    action: np.ndarray
    reward: float
    episode_return: float
    info: Mapping[str, Any]


@dataclass(frozen=True)
class Film:
    """How episodes of a world are drawn.

    Attributes:
        make: builds one environment from a whole configuration; its ``render()`` returns all frames ``[H, W, 3]``
            uint8 since the last call, and ``metadata["render_fps"]`` is their rate in real time.
        clock: seconds of a step and steps of a full episode (0 where nothing limits it), from a whole configuration.
        video: keys put over the configuration for a video; they change no dynamics.
        still: the same for single pictures.
        panel: draws the numbers of the steps so far below a frame, from the canvas, the steps, the steps of a full
            episode and the configuration; the return's curve where None.
        mark: draws into a frame what the panel speaks of, from the frame, the step that it belongs to, the share of the
            step that has passed in it, and the configuration.
        ends: words and colour for an episode's end, by its reason.
    """

    make: Callable[[Config], gymnasium.Env]
    clock: Callable[[Config], tuple[float, int]]
    video: Config = field(default_factory=dict)
    still: Config = field(default_factory=dict)
    panel: Callable[[Canvas, Sequence[Step], int, Config], None] | None = None
    mark: Callable[[Image, Step, float, Config], None] = lambda frame, step, share, config: None
    ends: Mapping[str, tuple[str, Color]] = field(default_factory=dict)


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

    names: tuple[str, ...]
    """What the policy chooses, a number in [-1, 1] each."""

    def __call__(self, observations: Any, actions: Any) -> Any:
        """Map ``[..., *observation shape]`` and ``[..., len(names)]`` to the world's own actions ``[..., A]``."""
        ...


class FunctionalStep(NamedTuple):
    """What a step of a functional world leads to.

    Attributes:
        state: of the world, after the automatic reset where the episode ended.
        observation: of that state.
        reward: of the step.
        terminated: whether the episode ended.
        truncated: whether it was cut off.
        final_observation: what the step itself led to, the successor of the transition.
        metrics: by :attr:`Metric.key`, numbers of the episode so far; those of an episode where it ends.
    """

    state: Any
    observation: Any
    reward: Any
    terminated: Any
    truncated: Any
    final_observation: Any
    metrics: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Functional:
    """One environment as pure functions of JAX arrays, for ``jit``, ``vmap`` and ``scan``.

    Each is itself and equal to no other, so that compilations can be kept by it.

    Attributes:
        observation_space: of one environment.
        action_space: of one environment.
        reset: maps a random key to the first state and observation.
        step: maps state, action and random key to a :class:`FunctionalStep`.
    """

    observation_space: Space
    action_space: Space
    reset: Callable[[Any], tuple[Any, Any]]
    step: Callable[[Any, Any, Any], FunctionalStep]


@dataclass(frozen=True)
class World:
    """A world, as the rest of the house sees it.

    Attributes:
        name: by which it is found.
        resolve: completes overrides to a whole configuration and checks it.
        make: builds ``num_envs`` environments, which reset within the step, from a whole configuration; where an
            environment has several egos, rows, each an ego.
        egos_for: the egos of one environment, from a whole configuration; those of an environment stand side by side
            in ``make``'s rows, and their episodes end together.
        egos: the same, in the world that :meth:`fitted` gives.
        sentences: what each key of the configuration means, by name.
        metrics: what ``episode_metrics`` holds, :data:`BASE_METRICS` first, in the order of tables.
        metrics_for: the same for a whole configuration, where it depends on it; see :meth:`fitted`.
        title: heading of its tables; made of its name where empty.
        success_log: what an evaluation's ``per_agent_success_log`` says of an ego's episode, from its metrics.
        action_names: names of the components of an action, empty where they have none.
        end_reason: why an episode ended, from its metrics and whether it terminated.
        base_keys: keys that the defaults of the others depend on.
        trade_offs: pairs of aggregates that are at odds, as a picture shows them: the first a rate.
        aliases: keys of an agent's configuration file that belong to the world, with their names there.
        views: named observation transforms.
        controllers: named action transforms.
        drivers: named policies that nobody trained; each is made for a single or a vector environment, whose state it
            may read, and acts as :class:`racer.networks.policy.Policy` does, without parameters.
        driver_config: keys put over the default configuration where a driver is evaluated.
        held_out: the configuration in which a policy trained in a given one is evaluated, where seeds alone do not keep
            what it was trained on apart from what it is judged by.
        forgetful: the configuration in which the first observation of each trial of an episode could begin an episode:
            nothing but a memory tells what was before.
        film: how episodes are drawn, or None where the world cannot be filmed.
        replay: how episodes are drawn again from recorded numbers, or None.
        functional: builds reset and step as pure functions from a whole configuration, or None.
        number_key: the key that the number in a short name sets, as in ``tmaze_10``; None where there are none.
        variants: overrides of the configuration, by the name under which other programs know them.
        row_layout: which column of an observation's rows is what, from a whole configuration, as the fields of
            ``racer.networks.encodings.Placement``; None where observations have no rows.
        reference: keys put over a configuration for the program that the world stands for and should equal; empty where
            there is none.
        names_code: a text in a configuration that could name code to run, or None.
        memory_use: what a memory of earlier steps is for, from a whole configuration: "needed" and how to train
            without one all the same; "useless" and why; empty where the world does not say.
        remembered_steps: steps that a memory is to hold, from a whole configuration; 0 where the world does not say.
    """

    name: str
    resolve: Callable[[Config | None], dict[str, Any]]
    make: Callable[[Config, int], VectorEnv]
    sentences: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = BASE_METRICS
    metrics_for: Callable[[Config], tuple[Metric, ...]] | None = None
    egos_for: Callable[[Config], int] = lambda config: 1
    egos: int = 1
    title: str = ""
    success_log: Callable[[Mapping[str, float]], Mapping[str, Any]] | None = None
    action_names: Callable[[Config], tuple[str, ...]] = lambda config: ()
    end_reason: Callable[[Mapping[str, float], bool], str] = lambda metrics, terminated: (
        "terminated" if terminated else "time_limit"
    )
    base_keys: tuple[str, ...] = ()
    trade_offs: tuple[tuple[str, str], ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)
    controllers: Mapping[str, Controller] = field(default_factory=dict)
    drivers: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    driver_config: Config = field(default_factory=dict)
    held_out: Callable[[Config], Config] = lambda config: config
    forgetful: Callable[[Config], Config] = lambda config: config
    film: Film | None = None
    replay: Replay | None = None
    functional: Callable[[Config], Functional] | None = None
    number_key: str | None = None
    variants: Mapping[str, Config] = field(default_factory=dict)
    row_layout: Callable[[Config], dict[str, Any]] | None = None
    reference: Config = field(default_factory=dict)
    names_code: Callable[[Config], str | None] = lambda config: None
    memory_use: Callable[[Config], tuple[str, str]] = lambda config: ("", "")
    remembered_steps: Callable[[Config], int] = lambda config: 0

    @property
    def file_name(self) -> str:
        """The world's name, fit for a file's."""
        return self.name.replace(":", "-").replace("/", "-")

    def fitted(self, config: Config) -> World:
        """Return the world with the metrics and the egos that a whole configuration has."""
        metrics = self.metrics if self.metrics_for is None else self.metrics_for(config)
        egos = self.egos_for(config)
        return self if metrics is self.metrics and egos == self.egos else replace(self, metrics=metrics, egos=egos)

    def make_one(self, config: Config) -> VectorEnv:
        """Build one environment with all its egos."""
        return self.make(config, self.egos_for(config))

    def defaults(self, config: Config) -> dict[str, Any]:
        """Return the whole default configuration that ``config`` differs from."""
        return self.resolve({key: config[key] for key in self.base_keys if key in config})

    def with_defaults(self, config: Config, keys: Iterable[str]) -> dict[str, Any]:
        """Return a whole configuration with ``keys`` set back to their defaults.

        Raises:
            UsageError: an unknown key.
        """
        usual = self.defaults(config)
        for key in keys:
            if key not in usual:
                raise unknown_name("environment config key", key, usual)
        return {**config, **{key: usual[key] for key in keys}}

    def get_film(self) -> Film:
        """Return how episodes are drawn.

        Raises:
            UsageError: they cannot be.
        """
        if self.film is None:
            raise UsageError(f"world {self.name!r} cannot be filmed: it draws no pictures; pass --render=false")
        return self.film

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

    def driver(self, name: str) -> Callable[[Any], Any]:
        """Return what makes the driver called ``name`` for an environment.

        Raises:
            UsageError: there is none; the message names the nearest one.
        """
        return _named("driver", self.name, name, self.drivers)


def _named(kind: str, world: str, name: str, known: Mapping[str, Any]) -> Any:
    if not known:
        raise UsageError(f"world {world!r} has no {kind}s, so {kind} {name!r} cannot be used")
    if name not in known:
        raise unknown_name(f"{kind} of world {world!r}", name, known)
    return known[name]
