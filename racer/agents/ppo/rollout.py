"""Checks on rollouts at the agent's door."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from racer.agents.ppo.config import PPOConfig
from racer.agents.ppo.spaces import ActionHead
from racer.agents.protocol import BATCH_FIELDS
from racer.agents.validation import Interfaces
from racer.core.errors import UsageError

__all__ = ["checked_rollout"]


def checked_rollout(
    rollouts: Mapping[str, np.ndarray], interfaces: Interfaces, head: ActionHead, config: PPOConfig
) -> dict[str, np.ndarray]:
    """Return the fields the update reads, float32 (choices int32), after checking names, shapes and divisibility.

    Raises:
        UsageError: a field is missing or misshapen, a choice is none, or the rows do not divide into minibatches.
    """
    extras = ("log_probs",) if head.discrete else ("log_probs", "draws")
    names = (*BATCH_FIELDS, "valid", *extras)
    missing = [name for name in names if name not in rollouts]
    if missing:
        raise UsageError(
            f"rollout lacks: {', '.join(missing)} (the policy's act_with_extras gives log_probs and draws)"
        )
    arrays = {name: np.asarray(rollouts[name]) for name in names}
    lead = arrays["rewards"].shape
    if len(lead) != 2:
        raise UsageError(f"rollout field 'rewards' must be time-major [T, N], got {list(lead)}")
    tails: dict[str, tuple[int, ...]] = {
        "observations": (interfaces.observation_dim,),
        "next_observations": (interfaces.observation_dim,),
        "actions": head.action_shape,
        "draws": head.action_shape,
    }
    for name, array in arrays.items():
        expected = (*lead, *tails.get(name, ()))
        if array.shape != expected:
            raise UsageError(f"rollout field {name!r} must have shape {list(expected)}, got {list(array.shape)}")
    config.check_rows(*lead)
    if head.discrete:
        chosen = arrays["actions"].astype(np.int32) - head.start
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < head.size):
            raise UsageError(f"actions must lie in [{head.start}, {head.start + head.size}), as the action space says")
        arrays["draws"] = chosen
    del arrays["actions"]
    kinds = {"draws": np.int32} if head.discrete else {}
    return {name: np.asarray(array, dtype=kinds.get(name, np.float32)) for name, array in arrays.items()}
