"""Any order of insertions, draws, saves and restores: the ring holds the last rows, and draws the same ones again."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_ring_buffer import batch_of

from racer.replay import RingReplayBuffer


class Ring(RuleBasedStateMachine):
    """``rows`` is every row ever inserted, as pairs of its id and its policy's version."""

    @initialize(capacity=st.integers(1, 9))
    def begin(self, capacity):
        self.buffer = RingReplayBuffer(capacity, (2,), (1,), seed=3)
        self.rows: list[tuple[int, int]] = []
        self.saved = None

    @rule(count=st.integers(0, 20), version=st.integers(0, 99))
    def insert(self, count, version):
        ids = np.arange(len(self.rows), len(self.rows) + count)
        assert self.buffer.insert(batch_of(ids), version) == count
        self.rows += [(int(number), version) for number in ids]

    @precondition(lambda self: self.rows)
    @rule(size=st.integers(1, 12))
    def sample(self, size):
        drawn = self.buffer.sample(size)
        ids = drawn["rewards"].astype(int)
        assert set(ids) <= {number for number, _ in self.kept()}
        for name, values in batch_of(ids).items():
            np.testing.assert_array_equal(drawn[name], values)

    @rule()
    def save(self):
        self.saved = self.buffer.state_arrays(), list(self.rows)

    @precondition(lambda self: self.saved is not None)
    @rule(size=st.integers(1, 12))
    def restore(self, size):
        """Into another buffer, of another seed: two of them draw alike."""
        state, self.rows = self.saved[0], list(self.saved[1])
        twin, self.buffer = (RingReplayBuffer(self.buffer.capacity, (2,), (1,), seed=seed) for seed in (1, 2))
        for each in (twin, self.buffer):
            each.load_state_arrays(state)
        if self.rows:
            np.testing.assert_array_equal(twin.sample(size)["rewards"], self.buffer.sample(size)["rewards"])

    def kept(self):
        return self.rows[-self.buffer.capacity :]

    @invariant()
    def the_last_rows_are_there_in_their_places(self):
        state, kept = self.buffer.state_arrays(), self.kept()
        assert len(self.buffer) == len(kept)
        assert self.buffer.total_inserted == len(self.rows)
        order = sorted(kept, key=lambda row: row[0] % self.buffer.capacity)
        assert state["rewards"].astype(int).tolist() == [number for number, _ in order]
        assert state["policy_versions"].tolist() == [version for _, version in order]


Ring.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestRing = Ring.TestCase
