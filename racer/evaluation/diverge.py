"""``python -m racer diverge WORLD``: whether a world does, to the last bit, what the program that it stands for does.

Both are reset with the same seeds and take the same random actions. Observations, rewards, end flags and the metrics of
whole episodes are compared; the first difference is printed with its place, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from racer.core.errors import RacerError, UsageError, shown
from racer.envs.registry import get_world
from racer.envs.world import World
from racer.evaluation.episodes import evaluation_seeds

__all__ = ["Comparison", "add_arguments", "compare", "diverge", "world_keys"]

# NumPy's AVX512 routines and OpenBLAS's fused products differ from plain IEEE arithmetic and libm in the last bit
PLAIN_ARITHMETIC = {
    "NPY_DISABLE_CPU_FEATURES": "X86_V4",
    "OPENBLAS_CORETYPE": "Haswell",
    "NUMBA_DISABLE_INTEL_SVML": "1",
    "OMP_NUM_THREADS": "1",
}


# An ended episode's flags say more than the next one's first observation does.
STEP = ("reward", "terminated", "truncated", "observation")


@dataclass(frozen=True)
class Comparison:
    """What stepping both found.

    Attributes:
        episodes: compared, each to its end or to the limit.
        steps: that were equal.
        seconds: spent in steps and resets, by the world and by its reference.
        difference: the first one, in words; None where all was equal.
    """

    episodes: int
    steps: int
    seconds: tuple[float, float]
    difference: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command line of ``diverge``; ``--env.<key>=<value>`` changes the world."""
    parser.add_argument("world", metavar="WORLD", help="its name, as in training")
    parser.add_argument("--num_episodes", type=int, default=3, help="a seed each (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode and of its actions (default: 0)")
    parser.add_argument("--max_steps", type=int, default=100, help="of an episode (default: 100)")
    parser.add_argument(
        "--action_scale", type=float, default=0.05,
        help="share of a continuous action's range that is drawn from, around its middle: wild actions end episodes "
        "early (default: 0.05)",
    )  # fmt: skip
    parser.add_argument(
        "--native", action="store_true",
        help="with the processor's widest vectors, which round sines otherwise; without, both run in plain arithmetic",
    )  # fmt: skip


def world_keys(arguments: argparse.Namespace) -> tuple[str, Collection[str]]:
    """Return the world's name and its keys.

    Raises:
        UsageError: there is no such world.
    """
    world = get_world(arguments.world)
    return world.name, world.resolve({}).keys()


def diverge(arguments: argparse.Namespace) -> list[Path]:
    """Compare as the arguments say and print what was found.

    Raises:
        UsageError: the world stands for no other program, or an argument is wrong.
        RacerError: the two differ.
    """
    world = get_world(arguments.world)
    if not world.reference:
        raise UsageError(f"world {world.name!r} stands for no other program that it could diverge from")
    seeds = evaluation_seeds(arguments.num_episodes, arguments.seed)
    if arguments.max_steps < 1:
        raise UsageError(f"max_steps must be at least 1, got {arguments.max_steps}")
    if not 0 <= arguments.action_scale <= 1:
        raise UsageError(f"action_scale must be at least 0 and at most 1, got {arguments.action_scale}")
    configurations(world, arguments.overrides)
    if arguments.native:
        found = compare(world.name, arguments.overrides, seeds, arguments.max_steps, arguments.action_scale)
    else:
        with plain_arithmetic():
            found = compare_in_child(
                world.name, arguments.overrides, seeds, arguments.max_steps, arguments.action_scale
            )
    ours, theirs = found.seconds
    beside = ", ".join(f"{key}={value}" for key, value in world.reference.items())
    sys.stdout.write(
        f"{found.steps} steps in {found.episodes} episodes equal, {world.name} beside {beside}: "
        f"{ours:.2f} s and {theirs:.2f} s of steps and resets\n"
    )
    if found.difference is not None:
        raise RacerError(found.difference)
    return []


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """Let children that start within compute as plain IEEE arithmetic and libm do."""
    before = {name: os.environ.get(name) for name in PLAIN_ARITHMETIC}
    os.environ.update(PLAIN_ARITHMETIC)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def compare_in_child(
    name: str, overrides: Mapping[str, Any], seeds: list[int], max_steps: int, scale: float
) -> Comparison:
    """Call :func:`compare` in a process of its own: libraries read their settings when they are loaded."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(compare, name, overrides, seeds, max_steps, scale).result()


def configurations(world: World, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the whole configuration of a world, and that of its reference.

    Raises:
        UsageError: the overrides are wrong, or set what the two differ by: nothing would be compared.
    """
    for key, value in world.reference.items():
        if key in overrides:
            raise UsageError(
                f"{key} is what the two sides differ by ({shown(value)} on the reference's): it cannot be set for both"
            )
    return world.resolve(overrides), world.resolve({**overrides, **world.reference})


def compare(name: str, overrides: Mapping[str, Any], seeds: list[int], max_steps: int, scale: float) -> Comparison:
    """Step a world and its reference side by side until the first difference.

    Args:
        name: the world's.
        overrides: of its configuration.
        seeds: one for each episode and its random actions.
        max_steps: where an episode is left.
        scale: share of a continuous action's range that is drawn from.

    Raises:
        UsageError: the overrides are wrong, or set what the two differ by.
    """
    world = get_world(name)
    sides = [world.make(config, 1) for config in configurations(world, overrides)]
    steps, seconds, difference, episodes = 0, np.zeros(2), None, 0
    for side in sides:  # compiling belongs to no episode
        side.reset(seed=seeds[0])
    for seed in seeds:
        taken, difference = _episode(world, sides, seed, max_steps, scale, seconds)
        steps += taken
        if difference is not None:
            break
        episodes += 1
    for side in sides:
        side.close()
    return Comparison(episodes, steps, (float(seconds[0]), float(seconds[1])), difference)


def _episode(
    world: World, sides: list[Any], seed: int, max_steps: int, scale: float, seconds: np.ndarray
) -> tuple[int, str | None]:
    """Return how many steps of an episode were equal, and the first difference; ``seconds [2]`` grows."""
    space, rng = sides[0].single_action_space, np.random.default_rng(seed)
    difference = _difference(("observation",), _both(sides, "reset", seconds, seed=seed), f"seed {seed}, reset")
    if difference is not None:
        return 0, difference
    for step in range(1, max_steps + 1):
        where = f"seed {seed}, step {step}"
        results = _both(sides, "step", seconds, _action(space, scale, rng)[None])
        difference = _difference(STEP, [[*result[1:4], result[0]] for result in results], where)
        ended = bool(results[0][2].any() or results[0][3].any())
        if difference is None and ended:
            difference = _metric_difference(world, [result[4] for result in results], where)
        if difference is not None:
            return step - 1, difference
        if ended:
            return step, None
    return max_steps, None


def _action(space: spaces.Space, scale: float, rng: np.random.Generator) -> np.ndarray:
    if isinstance(space, spaces.Discrete):
        return np.asarray(space.start + rng.integers(space.n))
    assert isinstance(space, spaces.Box)
    middle, half = (space.high + space.low) / 2, (space.high - space.low) / 2
    return (middle + scale * half * rng.uniform(-1, 1, space.shape)).astype(space.dtype)


def _both(sides: list[Any], verb: str, seconds: np.ndarray, *arguments: Any, **options: Any) -> list[Any]:
    results = []
    for i, side in enumerate(sides):
        began = time.perf_counter()
        results.append(getattr(side, verb)(*arguments, **options))
        seconds[i] += time.perf_counter() - began
    return results


def _difference(names: tuple[str, ...], results: list[Any], where: str) -> str | None:
    for name, ours, theirs in zip(names, *results, strict=False):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            of_ours, of_theirs = (f"{array.dtype} of shape {array.shape}" for array in (ours, theirs))
            return f"{where}: {name} is {of_ours}, the reference has {of_theirs}"
        unequal = np.flatnonzero(~((ours == theirs) | ((ours != ours) & (theirs != theirs))))
        if len(unequal):
            at = int(unequal[0])
            return f"{where}: {name}[{at}] is {ours.flat[at]!r}, the reference has {theirs.flat[at]!r}"
    return None


def _metric_difference(world: World, infos: list[Mapping[str, Any]], where: str) -> str | None:
    keys = tuple(metric.key for metric in world.metrics)
    metrics = [info["final_info"]["episode_metrics"] for info in infos]
    return _difference(keys, [[values[key] for key in keys] for values in metrics], where)
