"""What the rest of the house may ask of a learner.

The verbs are those of the jaxrl family. A learner is immutable to its user: every call that changes something returns
the changed learner. ``update`` *donates* the old one's arrays, so the old object must not be used after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

__all__ = ["BATCH_FIELDS", "REPLAY", "ROLLOUT", "ROW_FLAGS", "Learner"]

REPLAY = "replay"
"""A learner that wants minibatches of past transitions."""

ROLLOUT = "rollout"
"""A learner that wants whole rollouts of its own recent policies."""

BATCH_FIELDS = ("observations", "actions", "rewards", "masks", "dones", "next_observations")
"""Fields of a batch of transitions, ``[R, ...]`` each, in the order in which replay stores them."""

ROW_FLAGS = ("bootstrap", "cut", "forget", "valid")
"""Flags of a rollout's rows, ``[T, N]`` each; see :class:`racer.replay.experience.Experience`."""


@runtime_checkable
class Learner(Protocol):
    """What a training loop needs.

    A ROLLOUT learner also has ``rollout_length``, steps of every environment in a rollout, and ``check_num_envs(n)``,
    which raises UsageError unless it can learn from rollouts of so many environments.

    Attributes:
        wants: :data:`REPLAY` or :data:`ROLLOUT`.
    """

    wants: ClassVar[str]

    @property
    def policy(self) -> Any:
        """What acts: a :class:`racer.networks.policy.Policy`, or something with its verbs."""
        ...

    @property
    def policy_params(self) -> dict[str, np.ndarray]:
        """Float32 arrays that ``policy.act`` takes (copies)."""
        ...

    def update(self, data: Mapping[str, np.ndarray], utd_ratio: int = 1) -> tuple[Learner, dict[str, Any]]:
        """Learn from ``data``; returns the next learner and scalars to log.

        Args:
            data: of a REPLAY learner :data:`BATCH_FIELDS` ``[U * B, ...]``, consecutive minibatches; of a ROLLOUT
                learner what :func:`racer.replay.sequence.join_rollouts` gives.
            utd_ratio: U, gradient steps; a ROLLOUT learner has its own number and ignores it.

        Raises:
            UsageError: a field is missing or misshapen.
        """
        ...

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Return everything a continuation needs, flat ``a/b/c`` names (copies)."""
        ...

    def with_state_arrays(self, arrays: Mapping[str, np.ndarray]) -> Learner:
        """Return a learner in exactly the state of ``arrays``.

        Raises:
            UsageError: a field is missing, is not known, or differs in shape or dtype; all are listed.
        """
        ...
