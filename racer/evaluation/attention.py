"""What a policy with a transformer reads of its memory, step by step of an episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.evaluation.checkpoints import TrainedPolicy
from racer.evaluation.episodes import check_spaces, kept, row_seeds
from racer.evaluation.rows import RowGenerators

__all__ = ["AttentionEpisode", "record_attention"]


@dataclass(frozen=True)
class AttentionEpisode:
    """An episode and what each step of it read.

    Attributes:
        name: of the checkpoint.
        seed: of the episode.
        weights: ``[T, layers, heads, T]``, how much of step s (last axis) step t (first axis) read; a row sums to 1, or
            to less where the cache has lost the steps that the rest went to.
        trial: ``[T]``, counted from 0; 0 where the world has no trials.
        removed: bool ``[T]``, whether the ego was off the road.
    """

    name: str
    seed: int
    weights: np.ndarray
    trial: np.ndarray
    removed: np.ndarray

    @property
    def borders(self) -> np.ndarray:
        """Steps before which a trial begins, the first one's left out."""
        return 1 + np.flatnonzero(np.diff(self.trial))


def record_attention(trained: TrainedPolicy, config: Mapping[str, Any], seed: int) -> AttentionEpisode:
    """Drive the episode of ``seed`` and ask every step what it reads.

    Where the world keeps the ego in limbo after the episode, those steps belong to the record. Of several egos it is
    the first one's.

    Args:
        trained: its policy remembers with a transformer.
        config: whole configuration of its world.
        seed: of the episode.

    Raises:
        UsageError: the policy does not fit the world, or has no cache to read.
    """
    policy: Any = trained.policy
    env = trained.world.make_one(config)
    try:
        check_spaces(policy, env.single_observation_space, env.single_action_space)
        egos = trained.world.egos_for(config)
        rng = RowGenerators(row_seeds([seed], egos))
        observations, _ = env.reset(seed=seed)
        memory, ended = policy.initial_memory(egos), False
        steps: list[tuple[np.ndarray, np.ndarray, int, bool]] = []
        # The step that each slot of the cache holds, -1 where it holds none.
        held = np.full(policy.attention(trained.params, observations, memory).shape[-1], -1)
        while True:
            weights = np.asarray(policy.attention(trained.params, observations, memory)[0])
            actions, after, _ = policy.act(trained.params, observations, memory, rng, True)
            slot = int(memory["position"][0]) % len(held)
            observations, _, terminated, truncated, infos = env.step(actions)
            limbo = np.asarray(infos.get("limbo", np.zeros(egos)), bool)
            removed = bool(limbo[0])
            if ended and not removed:
                break
            trial = int(infos["trial"][0]) if "trial" in infos else 0
            own = held.copy()
            own[slot] = len(steps)
            steps.append((weights, own, trial, removed))
            memory, held = kept(memory, after, limbo), held if removed else own
            ended = ended or bool(terminated[0] or truncated[0])
            if bool(terminated[0] or truncated[0]):
                # A finished episode leaves nothing to read.
                memory, held = policy.initial_memory(egos), np.full(len(held), -1)
    finally:
        env.close()
    return _assembled(trained.name, seed, steps)


def _assembled(name: str, seed: int, steps: list[tuple[np.ndarray, np.ndarray, int, bool]]) -> AttentionEpisode:
    layers, heads, _ = steps[0][0].shape
    weights = np.zeros((len(steps), layers, heads, len(steps)), np.float32)
    for t, (read, held, _, _) in enumerate(steps):
        written = held >= 0
        weights[t][..., held[written]] = read[..., written]
    trial, removed = (np.array([step[place] for step in steps]) for place in (2, 3))
    return AttentionEpisode(name, seed, weights, trial, removed)
