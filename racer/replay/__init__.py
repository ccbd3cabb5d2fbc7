"""Rows on their way from environments to learning. NumPy only: workers load this room."""

from racer.agents.protocol import BATCH_FIELDS
from racer.replay.collector import Collector, NonFiniteData
from racer.replay.experience import Batch, Experience
from racer.replay.ring_buffer import RingReplayBuffer
from racer.replay.sequence import join_rollouts

__all__ = [
    "BATCH_FIELDS",
    "Batch",
    "Collector",
    "Experience",
    "NonFiniteData",
    "RingReplayBuffer",
    "join_rollouts",
]
