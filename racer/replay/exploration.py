"""The random stream of a collecting policy as arrays, for exact resume."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from racer.agents.policy.noise import CorrelatedGenerator, exploration_generator
from racer.replay.ring_buffer import generator_from_array, generator_to_array

__all__ = ["exploration_state", "restore_exploration"]


def exploration_state(rng: np.random.Generator, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the stream as ``{prefix}rng``, and ``{prefix}noise`` where its noise has a memory."""
    state = {f"{prefix}rng": generator_to_array(rng)}
    if isinstance(rng, CorrelatedGenerator) and rng.noise is not None:
        state[f"{prefix}noise"] = rng.noise.copy()
    return state


def restore_exploration(
    policy_spec: Mapping[str, Any], state: MutableMapping[str, np.ndarray], prefix: str = ""
) -> np.random.Generator:
    """Take what :func:`exploration_state` wrote out of ``state`` and return the stream.

    Raises:
        UsageError: the state is not a random stream's.
    """
    rng = generator_from_array(state.pop(f"{prefix}rng"))
    return exploration_generator(policy_spec, rng, state.pop(f"{prefix}noise", None))
