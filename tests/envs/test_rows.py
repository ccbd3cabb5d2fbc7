"""Rows in an order that tells nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from racer.core.errors import UsageError
from racer.envs.registry import get_world
from racer.envs.rows import permuted_rows


def test_row_zero_stays_and_the_others_are_the_same_rows() -> None:
    observations = np.random.default_rng(0).normal(size=(50, 7, 4)).astype(np.float32)
    shuffled = permuted_rows(observations)
    np.testing.assert_array_equal(shuffled[:, 0], observations[:, 0])
    assert (shuffled != observations).any(axis=(1, 2)).mean() > 0.9
    for before, after in zip(observations, shuffled, strict=True):
        assert sorted(map(bytes, before)) == sorted(map(bytes, after))
    # The same observation is shuffled alike, however many are looked at.
    np.testing.assert_array_equal(permuted_rows(observations[3]), shuffled[3])
    some = permuted_rows(observations[10:20].reshape(2, 5, 7, 4)).reshape(10, 7, 4)
    np.testing.assert_array_equal(some, shuffled[10:20])


def test_every_order_is_equally_likely() -> None:
    observations = np.random.default_rng(1).normal(size=(24_000, 5, 2)).astype(np.float32)
    # A column that tells the row's first place; observations differ in the other.
    observations[..., 0] = np.arange(5)
    orders = permuted_rows(observations)[:, 1:, 0] @ np.array([1000, 100, 10, 1])
    _, counts = np.unique(orders, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("flat", [False, True])
def test_the_highway_shows_the_same_vehicles_in_another_order(flat: bool) -> None:
    world = get_world("highway")
    base = {"observation": {"vehicles_count": 8}, "flatten_observation": flat}
    usual, shuffled = (world.make(world.resolve({**base, "row_order": order}), 3) for order in ("sorted", "shuffled"))
    try:
        seen, mixed = usual.reset(seed=5)[0], shuffled.reset(seed=5)[0]
        differing = 0
        for _ in range(30):
            rows, other = seen.reshape(3, 8, 6), mixed.reshape(3, 8, 6)
            np.testing.assert_array_equal(rows[:, 0], other[:, 0])
            np.testing.assert_array_equal(np.sort(rows.view("u4"), axis=1), np.sort(other.view("u4"), axis=1))
            differing += int((rows != other).any())
            actions = np.full((3, 2), 0.1, np.float32)
            seen, reward, *_ = usual.step(actions)
            mixed, reward_mixed, *_ = shuffled.step(actions)
            np.testing.assert_array_equal(reward, reward_mixed)
        assert differing > 25
        state = shuffled.get_state()
        want = shuffled.step(actions)[0]
        shuffled.set_state(state)
        np.testing.assert_array_equal(shuffled.step(actions)[0], want)
    finally:
        usual.close()
        shuffled.close()
    with pytest.raises(UsageError, match="row_order"):
        world.resolve({"row_order": "random"})
