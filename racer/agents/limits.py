"""The action range of a policy, with a learnable limit on one action that is addressed by name.

RACER (Stachowicz & Levine 2024, section "adaptive action limits") starts cautiously and lets the critic widen
the range: ``symmetric`` keeps the action in ``[-limit, limit]`` (steering), ``upper`` in ``[low, limit]``
(acceleration: braking is never limited).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from racer.agents.validation import Interfaces
from racer.core.errors import UsageError, unknown_name

__all__ = ["LIMIT_KINDS", "ActionRange", "make_action_range"]

LIMIT_KINDS = ("symmetric", "upper")
# The narrowest range a limit may leave, as a share of the whole: an empty range has no density.
_NARROWEST = 0.05


@dataclass(frozen=True)
class ActionRange:
    """The box the policy acts in.

    Attributes:
        low: lower end of each action, ``[A]``.
        high: upper end of each action, ``[A]``.
        index: which action has a learned limit, or None.
        kind: one of ``LIMIT_KINDS``.
        initial: the limit's first value, in the action's own unit.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    index: int | None = None
    kind: str = "symmetric"
    initial: float = 1.0

    @property
    def valid(self) -> tuple[float, float]:
        """Least and greatest value the learned limit may take."""
        if self.index is None:
            return 1.0, 1.0
        low, high = self.low[self.index], self.high[self.index]
        if self.kind == "symmetric":
            return _NARROWEST * high, high
        return low + _NARROWEST * (high - low), high

    def clamp(self, limit: jax.Array) -> jax.Array:
        """Bring the limit back into its valid range."""
        return jnp.clip(limit, *self.valid)

    def bounds(self, limit: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the box ``(low [A], high [A])`` under ``limit`` (a scalar)."""
        low, high = jnp.array(self.low, jnp.float32), jnp.array(self.high, jnp.float32)
        if self.index is None:
            return low, high
        limited = self.clamp(limit)
        if self.kind == "symmetric":
            low = low.at[self.index].set(-limited)
        return low, high.at[self.index].set(limited)

    def numpy_bounds(self, limit: np.ndarray | np.floating) -> dict[str, np.ndarray]:
        """Return the box as the policy parameters ``action_low`` and ``action_high``."""
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        if self.index is not None:
            limited = np.clip(np.float32(limit), *np.array(self.valid, np.float32))
            high[self.index] = limited
            if self.kind == "symmetric":
                low[self.index] = -limited
        return {"action_low": low, "action_high": high}


def make_action_range(
    interfaces: Interfaces, learned_action: str | None, kind: str | None, initial: float
) -> ActionRange:
    """Find the learned action by its name and check its limit against the action's range.

    Args:
        interfaces: the environment's action range and names.
        learned_action: name of the action to limit, or None.
        kind: one of ``LIMIT_KINDS``; None takes ``symmetric`` for steering and ``upper`` for anything else.
        initial: first value of the limit.

    Raises:
        UsageError: no names are known, the name or kind is unknown, a symmetric limit is asked for a range
            that is not symmetric, or the initial value lies outside the valid range.
    """
    if learned_action is None:
        return ActionRange(interfaces.action_low, interfaces.action_high)
    if not interfaces.action_names:
        raise UsageError(
            f"learned_action {learned_action!r} addresses an action by name, but this environment names none; "
            "set learned_action to None"
        )
    if learned_action not in interfaces.action_names:
        raise unknown_name("action (learned_action)", learned_action, interfaces.action_names)
    index = interfaces.action_names.index(learned_action)
    if kind is None:
        kind = "symmetric" if learned_action == "steering" else "upper"
    if kind not in LIMIT_KINDS:
        raise unknown_name("learned_action_limit_kind", kind, LIMIT_KINDS)
    if kind == "symmetric" and interfaces.action_low[index] != -interfaces.action_high[index]:
        raise UsageError(
            f"a symmetric limit needs a symmetric range, but {learned_action!r} lies in "
            f"[{interfaces.action_low[index]}, {interfaces.action_high[index]}]"
        )
    found = ActionRange(interfaces.action_low, interfaces.action_high, index, kind, float(initial))
    least, greatest = found.valid
    if not least <= initial <= greatest:
        raise UsageError(
            f"learned_action_initial_limit of {learned_action!r} must lie in [{least:g}, {greatest:g}], got {initial!r}"
        )
    return found
