"""What the rest of the house may ask of an agent.

The verbs are those of the jaxrl family, so that a learner written for it is plugged in by naming its class.
An agent is immutable to its user: every call that changes something returns the changed agent. ``update``
*donates* the old agent's arrays, so the old object must not be used after it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

__all__ = ["BATCH_FIELDS", "Agent", "OnPolicyAgent"]

BATCH_FIELDS = ("observations", "actions", "rewards", "masks", "dones", "next_observations")


@runtime_checkable
class Agent(Protocol):
    """An off-policy learner."""

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        action_names: Sequence[str] | None = None,
        **config: Any,
    ) -> Agent:
        """Build a fresh agent.

        Args:
            seed: non-negative; equal seeds give equal agents.
            observation_space: one-dimensional Box ``[D]``.
            action_space: bounded one-dimensional Box ``[A]``.
            action_names: name of each action, needed where a key of ``config`` addresses one by name.
            config: keys of the agent's configuration class.

        Raises:
            UsageError: an unknown key, a value out of range, or a space the agent cannot serve.
        """
        ...

    def update(self, batch: Mapping[str, np.ndarray], utd_ratio: int) -> tuple[Agent, dict[str, Any]]:
        """Take ``utd_ratio`` gradient steps on consecutive slices of ``batch`` (fields ``BATCH_FIELDS``)."""
        ...

    def sample_actions(self, observations: np.ndarray) -> tuple[np.ndarray, Agent]:
        """Draw actions ``[N, A]`` for ``[N, D]`` (or ``[A]`` for ``[D]``)."""
        ...

    def eval_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the policy's most likely squashed actions, inside the action range and learned limits."""
        ...

    @property
    def policy_spec(self) -> dict[str, Any]:
        """JSON-able description for :func:`racer.agents.policy.build_policy`."""
        ...

    @property
    def policy_params(self) -> dict[str, np.ndarray]:
        """Float32 arrays that ``Policy.act`` takes (copies)."""
        ...

    def reset(self, exclude: Collection[str] = ()) -> Agent:
        """Draw fresh parameters and optimizer states for every component not named in ``exclude``."""
        ...

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Return everything a continuation needs, flat ``a/b/c`` names (copies)."""
        ...

    def with_state_arrays(self, arrays: Mapping[str, np.ndarray]) -> Agent:
        """Return an agent in exactly the state of ``arrays``.

        Raises:
            UsageError: a field is missing, is not known, or differs in shape or dtype; all are listed.
        """
        ...

    def with_components(self, arrays: Mapping[str, np.ndarray]) -> Agent:
        """Return an agent with what another one of its kind learnt: every component that :meth:`reset` would redraw.

        Random key and counts, and with them schedules, stay this agent's own.

        Raises:
            UsageError: as :meth:`with_state_arrays`.
        """
        ...


@runtime_checkable
class OnPolicyAgent(Protocol):
    """A learner that wants whole rollouts of its own recent policies.

    Its verbs are those of :class:`Agent`, except that ``update`` takes rollouts. Programs choose their loop by the
    class attribute ``on_policy``, which off-policy agents need not have.
    """

    on_policy: ClassVar[bool]

    @property
    def rollout_length(self) -> int:
        """Steps of every environment in a rollout."""
        ...

    def check_num_envs(self, num_envs: int) -> None:
        """Raise UsageError unless the agent can learn from rollouts of ``num_envs`` environments."""
        ...

    def update(self, rollouts: Mapping[str, np.ndarray]) -> tuple[OnPolicyAgent, dict[str, Any]]:
        """Learn from rollouts ``[T, N, ...]``: ``BATCH_FIELDS``, ``valid`` and the policy's extras by name."""
        ...

    def sample_actions(self, observations: np.ndarray) -> tuple[np.ndarray, OnPolicyAgent]:
        """See :meth:`Agent.sample_actions`."""
        ...

    def eval_actions(self, observations: np.ndarray) -> np.ndarray:
        """See :meth:`Agent.eval_actions`."""
        ...

    @property
    def policy_spec(self) -> dict[str, Any]:
        """See :attr:`Agent.policy_spec`."""
        ...

    @property
    def policy_params(self) -> dict[str, np.ndarray]:
        """See :attr:`Agent.policy_params`."""
        ...

    def reset(self, exclude: Collection[str] = ()) -> OnPolicyAgent:
        """See :meth:`Agent.reset`."""
        ...

    def state_arrays(self) -> dict[str, np.ndarray]:
        """See :meth:`Agent.state_arrays`."""
        ...

    def with_state_arrays(self, arrays: Mapping[str, np.ndarray]) -> OnPolicyAgent:
        """See :meth:`Agent.with_state_arrays`."""
        ...

    def with_components(self, arrays: Mapping[str, np.ndarray]) -> OnPolicyAgent:
        """See :meth:`Agent.with_components`."""
        ...
