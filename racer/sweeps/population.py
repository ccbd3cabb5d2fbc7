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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.envs.registry import Functional
from racer.networks.policy import Policy
from racer.sweeps.rollout import Episodes, Scene, begin, collect

__all__ = ["Algorithm", "Member", "PopulationResult", "train_population"]


@dataclass(frozen=True)
class Algorithm:
    """An on-policy agent as pure functions.

    Attributes:
        policy: how it acts.
        rollout_length: steps of every environment between two updates.
        initial_state: maps hyperparameters and a random key to the state of a fresh learner.
        update: maps hyperparameters, state and rollout to the next state and numbers for the log.
        acting_params: maps a state to what the policy acts with.
    """

    policy: Policy
    rollout_length: int
    initial_state: Callable[[Any, jax.Array], Any]
    update: Callable[[Any, Any, Mapping[str, jax.Array]], tuple[Any, Mapping[str, jax.Array]]]
    acting_params: Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True)
class Member:
    """One training of a population: which setting, and the seed of all its random numbers."""

    setting: int
    seed: int


class _Run(NamedTuple):
    """A member between two updates."""

    learner: Any
    scene: Scene
    key: jax.Array


@dataclass(frozen=True)
class PopulationResult:
    """What a population has been through.

    Attributes:
        members: M of them, settings outside, seeds inside.
        transitions: ``[U]``, transitions of a member after each update.
        episodes: ``[M, U]``, episodes that ended in each rollout.
        sums: by metric ``[M, U]``, of those episodes.
        learners: final states, every array ``[M, ...]``.
        compile_seconds: until the first chunk of updates was compiled.
        train_seconds: after that.
    """

    members: tuple[Member, ...]
    transitions: NDArray[np.int64]
    episodes: NDArray[np.float64]
    sums: Mapping[str, NDArray[np.float64]]
    learners: Any
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
    algorithm: Algorithm,
    hypers: Sequence[Any],
    functional: Functional,
    seeds: Sequence[int],
    *,
    num_envs: int,
    num_transitions: int,
    chunk: int = 10,
    on_chunk: Callable[[int, float, Mapping[str, NDArray[np.float64]]], None] | None = None,
) -> PopulationResult:
    """Train every setting with every seed.

    Args:
        algorithm: what all members share.
        hypers: hyperparameters of each setting, pytrees of one structure.
        functional: one environment.
        seeds: of the members of every setting.
        num_envs: environments of every member, N.
        num_transitions: of every member, rounded up to whole chunks.
        chunk: updates between two returns to Python, where progress is told and an interrupt is heard.
        on_chunk: called after every chunk with the transitions of a member so far, the seconds since the start, and
            the members' means of every metric over the chunk's episodes, ``[M]``.

    Raises:
        UsageError: there is nothing to train.
    """
    if not hypers or not seeds or min(num_envs, num_transitions, chunk) < 1:
        raise UsageError("a population needs a setting, a seed, an environment and a transition at least")
    members = tuple(Member(s, int(seed)) for s, seed in itertools.product(range(len(hypers)), seeds))
    hyper = jax.tree.map(lambda *rows: jnp.stack(rows), *(hypers[member.setting] for member in members))
    keys = jnp.stack([jax.random.key(member.seed) for member in members])
    rows = algorithm.rollout_length * num_envs
    num_chunks = -(-num_transitions // (rows * chunk))

    started = time.monotonic()
    start, advance = _compiled(algorithm, functional, num_envs, chunk)
    run = start(hyper, keys)
    advance = advance.lower(hyper, run).compile()
    compiled = time.monotonic()
    history: list[Episodes] = []
    for index in range(num_chunks):
        run, episodes = advance(hyper, run)
        history.append(jax.tree.map(lambda value: np.asarray(value, np.float64), episodes))
        if on_chunk is not None:
            on_chunk((index + 1) * chunk * rows, time.monotonic() - started, _means(history[-1]))
    ended = time.monotonic()
    joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *history)
    return PopulationResult(
        members=members,
        transitions=np.arange(1, num_chunks * chunk + 1) * rows,
        episodes=joined.count,
        sums=joined.sums,
        learners=run.learner,
        compile_seconds=compiled - started,
        train_seconds=ended - compiled,
    )


def _compiled(algorithm: Algorithm, functional: Functional, num_envs: int, chunk: int) -> tuple[Any, Any]:
    """Return the functions that start members and take ``chunk`` updates, over ``[M, ...]``."""

    def start(hyper: Any, key: jax.Array) -> _Run:
        learner_key, scene_key, key = jax.random.split(key, 3)
        scene = begin(functional, algorithm.policy, num_envs, scene_key)
        return _Run(algorithm.initial_state(hyper, learner_key), scene, key)

    def advance(hyper: Any, run: _Run) -> tuple[_Run, Episodes]:
        def update(run: _Run, _: None) -> tuple[_Run, Episodes]:
            key, collect_key = jax.random.split(run.key)
            params = algorithm.acting_params(run.learner)
            scene, rollout, episodes = collect(
                functional, algorithm.policy, params, run.scene, collect_key, algorithm.rollout_length
            )
            learner, _ = algorithm.update(hyper, run.learner, rollout)
            return _Run(learner, scene, key), episodes

        return jax.lax.scan(update, run, None, length=chunk)

    return jax.jit(jax.vmap(start)), jax.jit(jax.vmap(advance), donate_argnums=1)


def _means(episodes: Episodes) -> dict[str, NDArray[np.float64]]:
    """Return every metric's mean over a chunk, ``[M]``."""
    total = episodes.count.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: values.sum(axis=1) / total for name, values in episodes.sums.items()}
