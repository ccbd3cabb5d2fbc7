"""Ring buffer: what comes out is what went in, in any batch size, and state is exact."""

from __future__ import annotations

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.replay import BATCH_FIELDS, RingReplayBuffer


def batch_of(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Rows whose every field tells their id."""
    ids = np.asarray(ids, np.float32)
    return {
        "observations": ids[:, None] + np.array([0.0, 0.25], np.float32),
        "actions": ids[:, None] + 0.5,
        "rewards": ids,
        "masks": ids % 2,
        "dones": ids % 3,
        "next_observations": ids[:, None] + np.array([1.0, 1.25], np.float32),
    }


def stored_ids(buffer: RingReplayBuffer) -> np.ndarray:
    return buffer.state_arrays()["rewards"]


@pytest.mark.parametrize("sizes", [[1] * 25, [3] * 9, [10, 10, 7], [4, 25], [23, 1, 40, 2]])
def test_holds_the_last_capacity_rows_whatever_the_batch_sizes(sizes):
    buffer = RingReplayBuffer(10, (2,), (1,))
    total = 0
    for number, size in enumerate(sizes):
        buffer.insert(batch_of(np.arange(total, total + size)), policy_versions=number)
        total += size
    expected = np.arange(total)[-10:]
    assert sorted(stored_ids(buffer)) == expected.tolist()
    # Row i of the stream stands at i modulo the capacity, with every field and version of the same row.
    ids = stored_ids(buffer).astype(int)
    assert (ids % 10 == np.arange(len(ids))).all()
    for name, value in batch_of(ids).items():
        np.testing.assert_array_equal(buffer.state_arrays()[name], value)
    versions = np.repeat(np.arange(len(sizes)), sizes)
    np.testing.assert_array_equal(buffer.policy_versions, versions[ids])
    assert buffer.total_inserted == total


def test_sample_is_uniform_and_rows_stay_together():
    buffer = RingReplayBuffer(8, (2,), (1,), seed=1)
    buffer.insert(batch_of(np.arange(13)))
    drawn = buffer.sample(8000)
    for name, value in batch_of(drawn["rewards"]).items():
        np.testing.assert_array_equal(drawn[name], value)
    counts = np.bincount(drawn["rewards"].astype(int), minlength=13)
    assert (counts[:5] == 0).all()
    assert (np.abs(counts[5:] - 1000) < 6 * np.sqrt(1000)).all()


def test_sample_into_given_arrays_equals_sample():
    first, second = (RingReplayBuffer(8, (2,), (1,), seed=3) for _ in range(2))
    for buffer in (first, second):
        buffer.insert(batch_of(np.arange(6)))
    out = second.sample(32)
    expected = first.sample(32)
    for name in BATCH_FIELDS:
        np.testing.assert_array_equal(out[name], expected[name])
    again = second.sample(32, out=out)
    assert again["observations"] is out["observations"]
    np.testing.assert_array_equal(again["rewards"], first.sample(32)["rewards"])


def test_state_continues_bit_for_bit_through_wraparound():
    original = RingReplayBuffer(10, (2,), (1,), seed=7)
    original.insert(batch_of(np.arange(17)), policy_versions=np.arange(17))
    original.sample(5)
    copy = RingReplayBuffer(10, (2,), (1,), seed=99)
    copy.load_state_arrays(original.state_arrays())
    for buffer in (original, copy):
        buffer.insert(batch_of(np.arange(17, 24)))
    a, b = original.state_arrays(), copy.state_arrays()
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    np.testing.assert_array_equal(original.sample(64)["observations"], copy.sample(64)["observations"])


def test_saved_state_does_not_change_with_later_inserts():
    buffer = RingReplayBuffer(4, (2,), (1,))
    buffer.insert(batch_of(np.arange(4)))
    state = buffer.state_arrays()
    buffer.insert(batch_of(np.arange(10, 14)))
    np.testing.assert_array_equal(state["rewards"], np.arange(4))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"position": np.array([11, 4, 4, 4], np.int64)}, "capacity 11"),
        ({"position": np.array([10, 4, 5, 4], np.int64)}, "contradicts"),
        ({"position": np.array([10, 3, 3, 3], np.int64)}, "rows"),
        ({"rng": np.zeros(5, np.uint64)}, "random state"),
        ({"rewards": np.zeros((4, 2), np.float32)}, "rewards"),
        ({"actions": None}, "actions"),
    ],
)
def test_state_that_does_not_fit_is_refused_and_leaves_the_buffer(change, named):
    buffer = RingReplayBuffer(10, (2,), (1,))
    buffer.insert(batch_of(np.arange(4)))
    state = {k: v for k, v in {**buffer.state_arrays(), **change}.items() if v is not None}
    with pytest.raises(UsageError, match=named):
        buffer.load_state_arrays(state)
    np.testing.assert_array_equal(stored_ids(buffer), np.arange(4))


def test_wrong_input_is_named():
    with pytest.raises(UsageError, match="capacity"):
        RingReplayBuffer(0, (2,), (1,))
    buffer = RingReplayBuffer(4, (2,), (1,))
    with pytest.raises(UsageError, match="empty"):
        buffer.sample(1)
    with pytest.raises(UsageError, match="next_observations"):
        buffer.insert({k: v for k, v in batch_of(np.arange(2)).items() if k != "next_observations"})
    with pytest.raises(UsageError, match="actions"):
        buffer.insert({**batch_of(np.arange(2)), "actions": np.zeros((2, 3), np.float32)})
    with pytest.raises(UsageError, match="rewards"):
        buffer.insert({**batch_of(np.arange(2)), "rewards": np.zeros(3, np.float32)})
