"""The action range of a policy, with a learnable limit on one action that is addressed by name.

RACER (Stachowicz & Levine 2024, section "adaptive action limits") starts cautiously and lets the critic widen
the range: ``symmetric`` keeps the action in ``[-limit, limit]``, ``upper`` in ``[low, limit]`` (of an acceleration:
braking is never limited).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from racer.agents.interfaces import Interfaces
from racer.agents.named_actions import named_index
from racer.core.errors import UsageError

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

    def bounds(self, limit: float | jax.Array = 1.0) -> tuple[jax.Array, jax.Array]:
        """Return the box ``(low [A], high [A])`` under ``limit`` (a scalar)."""
        low, high = jnp.array(self.low, jnp.float32), jnp.array(self.high, jnp.float32)
        if self.index is None:
            return low, high
        limited = self.clamp(jnp.asarray(limit, jnp.float32))
        if self.kind == "symmetric":
            low = low.at[self.index].set(-limited)
        return low, high.at[self.index].set(limited)


def make_action_range(
    interfaces: Interfaces, learned_action: str | None, kind: str | None, initial: float
) -> ActionRange:
    """Find the learned action by its name and check its limit against the action's range.

    Args:
        interfaces: the actions' range and names.
        learned_action: name of the action to limit, or None.
        kind: one of ``LIMIT_KINDS``; None takes ``symmetric`` where the action's range is, else ``upper``.
        initial: first value of the limit.

    Raises:
        UsageError: no names are known, the name is unknown, a symmetric limit is asked for a range that is not
            symmetric, or the initial value lies outside the valid range.
    """
    if learned_action is None:
        return ActionRange(interfaces.low, interfaces.high)
    index = named_index("learned_action", learned_action, interfaces.names)
    low, high = interfaces.low[index], interfaces.high[index]
    if kind is None:
        kind = "symmetric" if low == -high else "upper"
    if kind == "symmetric" and low != -high:
        raise UsageError(f"a symmetric limit needs a symmetric range, but {learned_action!r} lies in [{low}, {high}]")
    found = ActionRange(interfaces.low, interfaces.high, index, kind, float(initial))
    least, greatest = found.valid
    if not least <= initial <= greatest:
        raise UsageError(
            f"learned_action_initial_limit of {learned_action!r} must lie in [{least:g}, {greatest:g}], got {initial!r}"
        )
    return found
