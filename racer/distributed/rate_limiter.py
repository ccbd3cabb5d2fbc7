"""Keeps the update-to-data ratio, by counting.

Definitions, used in every metric and document:

- *transition*: one valid step of one environment, counted when it is inserted at the learner;
- *update() call*: one call of ``agent.update(batch, utd_ratio)``;
- *gradient step*: one of the ``utd_ratio`` minibatch steps inside such a call;
- *update-to-data ratio (UTD)*: gradient steps per transition inserted after warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass

from racer.distributed.config import OffPolicyConfig

__all__ = ["RateLimiter"]


@dataclass
class RateLimiter:
    """Says how many update() calls the inserted transitions pay for.

    It holds both ways: while calls are due nothing more is inserted (so queues fill and workers block), and where
    none is due the learner waits for transitions. After ``k`` transitions beyond warm-up exactly
    ``floor(k / experience_batch_size) * learner_update_ratio`` calls are made.

    Attributes:
        config: the ratios.
        transitions: inserted so far, warm-up included.
        updates: update() calls made so far.
    """

    config: OffPolicyConfig
    transitions: int = 0
    updates: int = 0

    @property
    def warming_up(self) -> bool:
        """Whether fewer transitions than ``start_training`` have been inserted."""
        return self.transitions < self.config.start_training

    @property
    def paying(self) -> int:
        """Transitions inserted after warm-up."""
        return max(0, self.transitions - self.config.start_training)

    @property
    def updates_due(self) -> int:
        """Calls that are paid for and not yet made."""
        bought = self.paying // self.config.experience_batch_size * self.config.learner_update_ratio
        return bought - self.updates

    @property
    def gradient_steps(self) -> int:
        """Gradient steps made so far."""
        return self.updates * self.config.utd_ratio

    @property
    def achieved(self) -> float:
        """Gradient steps per transition after warm-up, so far."""
        return self.gradient_steps / self.paying if self.paying else 0.0
