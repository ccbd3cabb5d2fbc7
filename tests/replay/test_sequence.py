"""Rollouts side by side: time-major, final observations where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from toy_envs import toy_vector

from racer.core.errors import UsageError
from racer.replay import Collector, join_rollouts


def collect(envs: int, length: int, steps: int = 6, seed: int = 0, **extras):
    def act(observations, memory):
        return np.full((len(observations), 1), 0.5, np.float32), memory, extras

    start = {"core": np.zeros((envs, 3), np.float32)}
    return Collector(toy_vector(envs, length=length), seed=seed, memory=start).collect(steps, act)


def test_successors_of_joined_rollouts_are_those_of_the_parts():
    parts = [collect(2, 4), collect(3, 2, seed=50)]
    joined = join_rollouts(parts)
    assert joined["observations"].shape == (7, 5, 4)
    assert joined["memory/core"].shape == (5, 3)
    for name in ("bootstrap", "cut", "forget", "valid", "rewards"):
        np.testing.assert_array_equal(joined[name], np.concatenate([getattr(p, name) for p in parts], axis=1))
    # Two ends of four steps, and nine of two steps, filled up.
    assert len(joined["final_index"]) == len(joined["final_observations"]) == 32
    inside = joined["final_index"][:, 0] < 6
    assert inside.sum() == 2 + 9
    np.testing.assert_array_equal(joined["final_index"][~inside], [[6, 0]] * 21)
    following = joined["observations"][1:].copy()
    following[tuple(joined["final_index"][inside].T)] = joined["final_observations"][inside]
    np.testing.assert_array_equal(following, np.concatenate([p.next_observations for p in parts], axis=1))


def test_a_single_rollout_is_not_copied():
    part = collect(2, 100)
    assert join_rollouts([part])["observations"] is part.observations
    assert join_rollouts([part])["final_index"].tolist() == [[6, 0]] * 4


def test_few_shapes_for_any_number_of_ends():
    sizes = {len(join_rollouts([collect(3, length, steps=100)])["final_index"]) for length in (1, 2, 3, 5, 9, 20, 99)}
    assert sizes == {128, 512}


def test_rollouts_that_do_not_go_together_are_refused():
    with pytest.raises(UsageError, match="no rollouts"):
        join_rollouts([])
    with pytest.raises(UsageError, match="5 steps"):
        join_rollouts([collect(2, 4), collect(2, 4, steps=5)])
    with pytest.raises(UsageError, match="log_probs"):
        join_rollouts([collect(2, 4), collect(2, 4, log_probs=np.zeros(2))])
