"""Jobs whose world is part of the compilation: all members are one array program."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from racer.agents.registry import agent_class
from racer.core.checkpoint import (
    latest_valid_checkpoint,
    list_checkpoints,
    prune_checkpoints,
    read_checkpoint,
    recover_checkpoints,
    write_checkpoint,
)
from racer.core.errors import UsageError
from racer.core.files import replace_file, strict
from racer.envs.registry import get_world
from racer.envs.world import World
from racer.evaluation.episodes import evaluate_policy, evaluation_seeds
from racer.sweeps.job import Job
from racer.sweeps.population import PopulationResult, SavedPopulation, train_population
from racer.sweeps.results import Row, member_folder
from racer.training.run_spec import write_run
from racer.training.saving import policy_metadata

__all__ = ["Stopped", "train_compiled"]

TAIL = 20
"""The last of so many equal parts of training is what "final" means."""

_CHUNKS_A_SAVE = 60.0
"""Seconds of training between two saves, at least."""


class Stopped(Exception):
    """A stop was asked for; what was trained is saved."""


def train_compiled(job: Job, folder: Path, stop: threading.Event, tell: Callable[[float, str], None]) -> list[Row]:
    """Train a job to its end, from where an earlier process left it.

    Args:
        job: what to train.
        folder: of the job.
        stop: set to end early.
        tell: takes the share of training that is done, and a line about it.

    Raises:
        Stopped: ``stop`` was set; the population is saved.
        UsageError: settings that cannot share a compilation.
    """
    config, world = job.config, get_world(job.config["world"])
    agent = agent_class(config["agent"])
    settings = [_settings({**config["agent_config"], **setting}) for setting in config["settings"]]
    steps, store = job.schedule.max_steps, folder / "population"
    store.mkdir(exist_ok=True)
    recover_checkpoints(store)
    saved = _restore(store) if list_checkpoints(store) else None
    last = time.monotonic()

    def on_state(transitions: int, state: Callable[[], SavedPopulation]) -> None:
        nonlocal last
        due = stop.is_set() or time.monotonic() - last > _CHUNKS_A_SAVE
        if due and transitions < steps:
            last = time.monotonic()
            _save(store, transitions, state())
        if stop.is_set():
            raise Stopped

    def on_chunk(transitions: int, seconds: float, means: Any) -> None:
        values = means.get("return", np.array([math.nan]))
        mean = np.nanmean(values) if np.isfinite(values).any() else math.nan
        tell(min(transitions / steps, 1.0), f"{transitions:,} transitions, return {mean:.3f}")

    assert world.functional is not None
    result = train_population(
        agent, world.functional(config["env"]), settings, config["seeds"], num_envs=job.num_envs,
        num_transitions=steps, chunk=_chunk(job, settings[0]), on_chunk=on_chunk, saved=saved, on_state=on_state,
    )  # fmt: skip
    return _harvest(job, folder, world, agent, result)


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}


def _chunk(job: Job, setting: dict[str, Any]) -> int:
    """Return updates between two looks at the clock: ten, or fewer where training has not many."""
    updates = job.schedule.max_steps // (int(setting["rollout_length"]) * job.num_envs)
    return max(1, min(10, updates // 5))


def _save(store: Path, step: int, state: SavedPopulation) -> None:
    groups = {"population": state.run, "history": state.history}
    write_checkpoint(store, step, groups, {"chunks": state.chunks})
    prune_checkpoints(store, 1)


def _restore(store: Path) -> SavedPopulation:
    checkpoint = read_checkpoint(latest_valid_checkpoint(store), groups=["population", "history"])
    chunks = checkpoint.metadata.get("chunks")
    if isinstance(chunks, bool) or not isinstance(chunks, int) or chunks < 1:
        raise UsageError(f"{str(checkpoint.path)!r} does not say how far its population is")
    return SavedPopulation(chunks, checkpoint.groups["population"], checkpoint.groups["history"])


def _harvest(job: Job, folder: Path, world: World, agent: Any, result: PopulationResult) -> list[Row]:
    """Write every member as a run, evaluate it, and return the rows of the table."""
    states = [jax.tree.map(lambda leaf, k=m.index: np.asarray(leaf)[k], result.states) for m in job.members]
    seeds = evaluation_seeds(int(job.options.get("eval_episodes", 10)))
    env = world.make_one(job.config["env"])
    spaces = env.single_observation_space, env.single_action_space
    env.close()
    curves = _curves(job, world, result)
    rows: list[Row] = []
    for member, state in zip(job.members, states, strict=True):
        spec = job.spec(member)
        learner = agent.create(
            member.seed, *spaces, action_names=world.action_names(spec.env_config), world=spec.world,
            **_settings(spec.agent_config),
        )  # fmt: skip
        learner = dataclasses.replace(learner, state=state)
        step = int(result.transitions[-1])
        scores = evaluate_policy(learner.policy, learner.policy_params, world, spec.env_config, seeds, num_envs=64)
        lines = curves[member.index] + [(step, scores.scalars())]
        run = member_folder(folder, member)
        run.mkdir(parents=True, exist_ok=True)
        write_run(run, spec, {"program": "racer sweep", "sweep": job.id})
        text = "".join(json.dumps(strict({"step": at, "time": 0.0, **values})) + "\n" for at, values in lines)
        replace_file(run / "metrics.jsonl", text.encode())
        groups = {"policy": learner.policy_params, "agent": learner.state_arrays()}
        write_checkpoint(run, step, groups, policy_metadata(spec, learner))
        rows += [Row(member, at, name, value) for at, values in lines for name, value in values.items()]
    return rows


def _curves(job: Job, world: World, result: PopulationResult) -> list[list[tuple[int, dict[str, float]]]]:
    """Return for every member its training metrics by step, and at the end those of the last twentieth."""
    names = {metric.key: metric.name for metric in world.metrics}
    every, updates = int(job.options.get("updates_per_point", 1)), len(result.transitions)
    stretches = [slice(a, min(a + every, updates)) for a in range(0, updates, every)]
    tail = slice(-max(1, updates // TAIL), None)
    found: list[list[tuple[int, dict[str, float]]]] = [[] for _ in job.members]
    means = {key: np.stack([result.mean(key, s) for s in stretches], axis=1) for key in result.sums}
    ends = {key: result.mean(key, tail) for key in result.sums}
    last = int(result.transitions[-1])
    for index, lines in enumerate(found):
        for place, stretch in enumerate(stretches):
            step = int(result.transitions[stretch.stop - 1])
            values = {f"training/{names.get(key, key)}": float(means[key][index, place]) for key in means}
            lines.append((step, values))
        lines.append((last, {f"final/{names.get(key, key)}": float(ends[key][index]) for key in ends}))
    return found
