"""Training of many members side by side, in one process and one compilation.

A population is every setting times every seed of one on-policy agent, on a world that offers itself as pure functions.
Acting, stepping the world, learning and counting episodes happen inside ``jit``, and ``vmap`` runs over the members:
each learns from environments of its own, as if it were alone. Settings may differ in numbers only (step sizes,
coefficients, the discount): what changes shapes or the program's structure needs a population of its own.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from racer.agents.learner import QUICK_TO_COMPILE, BaseLearner, acting_params
from racer.agents.protocol import ROLLOUT
from racer.agents.state import flatten_state, restore_state, strong
from racer.core.errors import UsageError
from racer.envs.world import Functional
from racer.sweeps.rollout import Episodes, Scene, begin, collect

__all__ = ["Member", "PopulationResult", "SavedPopulation", "train_population"]


_ONE_PASS: dict[str, Any] = {"xla_backend_optimization_level": 1}
"""Compiles in 12 s of a core instead of 19 s where a GRU is trained, and what it compiles is as fast."""


@dataclass(frozen=True)
class Member:
    """One training of a population: which setting, and the seed of all its random numbers."""

    setting: int
    seed: int


class _Sizes(NamedTuple):
    """What shapes follow from: members M, environments of each N, steps of a rollout T, updates in a chunk."""

    members: int
    envs: int
    steps: int
    chunk: int


class _Run(NamedTuple):
    """A member between two updates."""

    learner: Any
    scene: Scene
    key: jax.Array


@dataclass(frozen=True)
class SavedPopulation:
    """A population between two chunks, as named arrays.

    Attributes:
        chunks: trained so far.
        run: learners, environments and keys of all members.
        history: episodes so far: ``ended`` and by metric ``sums/<metric>``, ``[M, U]``.
    """

    chunks: int
    run: dict[str, NDArray[Any]]
    history: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class PopulationResult:
    """What a population has been through.

    Attributes:
        members: M of them, settings outside, seeds inside.
        transitions: ``[U]``, transitions of a member after each update.
        episodes: ``[M, U]``, episodes that ended in each rollout.
        sums: by metric ``[M, U]``, of those episodes.
        states: final states of the learners, every array ``[M, ...]``.
        compile_seconds: of compiling, none where an equal population was trained before.
        train_seconds: after that.
    """

    members: tuple[Member, ...]
    transitions: NDArray[np.int64]
    episodes: NDArray[np.float64]
    sums: Mapping[str, NDArray[np.float64]]
    states: Any
    compile_seconds: float
    train_seconds: float

    def mean(self, metric: str, updates: slice = slice(None)) -> NDArray[np.float64]:
        """Return the mean of a metric over the episodes that ended in ``updates``, ``[M]``; NaN without any."""
        total = self.episodes[:, updates].sum(axis=1)
        with np.errstate(invalid="ignore"):
            return self.sums[metric][:, updates].sum(axis=1) / total

    def curve(self, metric: str, points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return transitions ``[P]`` and the metric's means in ``points`` equal stretches of training, ``[M, P]``."""
        edges = np.linspace(0, len(self.transitions), min(points, len(self.transitions)) + 1).astype(int)
        stretches = [slice(a, b) for a, b in itertools.pairwise(edges)]
        middle = [self.transitions[s].mean() for s in stretches]
        return np.array(middle), np.stack([self.mean(metric, s) for s in stretches], axis=1)


def train_population(
    agent: type[BaseLearner],
    functional: Functional,
    settings: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    *,
    num_envs: int,
    num_transitions: int,
    chunk: int = 10,
    on_chunk: Callable[[int, float, Mapping[str, NDArray[np.float64]]], None] | None = None,
    saved: SavedPopulation | None = None,
    on_state: Callable[[int, Callable[[], SavedPopulation]], None] | None = None,
) -> PopulationResult:
    """Train every setting with every seed.

    Args:
        agent: the class of an agent that learns from rollouts.
        functional: one environment.
        settings: configurations of the agent, which differ in swept numbers only.
        seeds: of the members of every setting.
        num_envs: environments of every member, N.
        num_transitions: of every member, rounded up to whole chunks.
        chunk: updates between two returns to Python, where progress is told and an interrupt is heard.
        on_chunk: called after every chunk with the transitions of a member so far, the seconds since the start, and
            the members' means of every metric over the chunk's episodes, ``[M]``.
        saved: where to go on; the result is that of a population that was never interrupted.
        on_state: called after every chunk with the transitions of a member so far and a function that copies the
            population as it is, to be saved.

    Raises:
        UsageError: ``saved`` is of another population, there is nothing to train, the agent does not learn from
            rollouts or not from so many environments, or settings need compilations of their own.
    """
    if not settings or not seeds or min(num_envs, num_transitions, chunk) < 1:
        raise UsageError("a population needs a setting, a seed, an environment and a transition at least")
    static, hypers, length = _prepared(agent, functional, settings, num_envs)
    members = tuple(Member(s, int(seed)) for s, seed in itertools.product(range(len(settings)), seeds))
    hyper = jax.tree.map(lambda *rows: jnp.stack(rows), *(hypers[member.setting] for member in members))
    keys = jnp.stack([jax.random.PRNGKey(member.seed) for member in members])
    rows = length * num_envs
    num_chunks = -(-num_transitions // (rows * chunk))

    started = time.monotonic()
    sizes = _Sizes(len(members), num_envs, length, chunk)
    start, advance = _compiled(cast(Any, agent), static, functional, sizes, jax.tree.structure(hyper))
    compiled = time.monotonic()
    done, run, history = _begun(start(hyper, keys), saved)
    while done < num_chunks:
        run, episodes = advance(hyper, run)
        history.append(jax.tree.map(lambda value: np.asarray(value, np.float64), episodes))
        done += 1
        if on_chunk is not None:
            on_chunk(done * chunk * rows, time.monotonic() - started, _means(history[-1]))
        if on_state is not None:
            on_state(done * chunk * rows, partial(_saved, done, run, history))
    ended = time.monotonic()
    joined = _joined(history)
    transitions = np.arange(1, num_chunks * chunk + 1) * rows
    return PopulationResult(
        members, transitions, joined.ended, joined.sums, run.learner,
        compile_seconds=compiled - started, train_seconds=ended - compiled,
    )  # fmt: skip


def _begun(run: _Run, saved: SavedPopulation | None) -> tuple[int, _Run, list[Any]]:
    """Return the chunks that are trained, the population after them and its episodes so far."""
    if saved is None:
        return 0, run, []
    return saved.chunks, restore_state(run, saved.run), [_history(saved.history)]


def _saved(chunks: int, run: _Run, history: Sequence[Any]) -> SavedPopulation:
    return SavedPopulation(chunks, flatten_state(run), _named(_joined(history)))


def _prepared(
    agent: type[BaseLearner], functional: Functional, settings: Sequence[Mapping[str, Any]], num_envs: int
) -> tuple[Any, list[Any], int]:
    """Check the settings; return what they share, the hyperparameters of each, and the steps of a rollout."""
    if getattr(agent, "wants", None) != ROLLOUT:
        raise UsageError(f"{agent.__name__} does not learn from rollouts: a population needs an on-policy agent")
    learners: list[Any] = [
        agent.create(0, functional.observation_space, functional.action_space, **setting) for setting in settings
    ]
    first = learners[0]
    first.check_num_envs(num_envs)
    for number, (setting, learner) in enumerate(zip(settings, learners, strict=True)):
        same: Any = jax.tree.structure(learner.hyper)
        if learner.static != first.static or same != jax.tree.structure(first.hyper):
            names = {**settings[0], **setting}
            changed = sorted(name for name in names if settings[0].get(name) != setting.get(name))
            raise UsageError(
                f"setting {number} cannot share a compilation with setting 0: they differ in {', '.join(changed)}, of "
                "which something decides shapes or the structure of the program; train it as a population of its own"
            )
    return first.static, [learner.hyper for learner in learners], int(first.rollout_length)


@lru_cache(maxsize=16)
def _compiled(agent: type[BaseLearner], static: Any, functional: Functional, sizes: _Sizes, hypers: Any) -> Any:
    """Return the functions that start members and take a chunk of updates, over ``[M, ...]``."""

    def start(hyper: Any, key: jax.Array) -> _Run:
        learner_key, scene_key, key = jax.random.split(key, 3)
        scene = begin(functional, static.policy, sizes.envs, scene_key)
        return _Run(strong(agent.initial_state(static, hyper, learner_key)), scene, key)

    def advance(hyper: Any, run: _Run) -> tuple[_Run, Episodes]:
        def update(run: _Run, _: Any) -> tuple[_Run, Episodes]:
            key, collect_key = jax.random.split(run.key)
            params = acting_params(agent, static, run.learner)
            scene, rollout, episodes = collect(functional, static.policy, params, run.scene, collect_key, sizes.steps)
            learner = agent.pure_update(static, hyper, run.learner, rollout, 1)[0]
            return _Run(learner, scene, key), episodes

        return jax.lax.scan(update, run, None, length=sizes.chunk)

    number = jax.ShapeDtypeStruct((sizes.members,), jnp.float32)
    hyper = jax.tree.unflatten(hypers, [number] * hypers.num_leaves)
    keys = jax.ShapeDtypeStruct((sizes.members, 2), jnp.uint32)
    starts = jax.jit(jax.vmap(start), compiler_options=QUICK_TO_COMPILE)
    run = jax.eval_shape(starts, hyper, keys)
    advances = jax.jit(jax.vmap(advance), donate_argnums=1).lower(hyper, run)
    return starts.lower(hyper, keys).compile(), advances.compile(_ONE_PASS if jax.default_backend() == "cpu" else None)


def _joined(history: Sequence[Any]) -> Any:
    """Put chunks one after another, ``[M, U]`` each."""
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *history)


def _named(episodes: Any) -> dict[str, NDArray[np.float64]]:
    return {"ended": episodes.ended, **{f"sums/{name}": values for name, values in episodes.sums.items()}}


def _history(arrays: Mapping[str, NDArray[np.float64]]) -> Episodes:
    sums = {name.removeprefix("sums/"): value for name, value in arrays.items() if name != "ended"}
    shapes = {value.shape for value in arrays.values()}
    if "ended" not in arrays or len(shapes) != 1:
        raise UsageError("the saved population's episodes do not fit together")
    return Episodes(cast(Any, arrays["ended"]), cast(Any, sums))


def _means(episodes: Any) -> dict[str, NDArray[np.float64]]:
    """Return every metric's mean over a chunk, ``[M]``."""
    total = episodes.ended.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: values.sum(axis=1) / total for name, values in episodes.sums.items()}
