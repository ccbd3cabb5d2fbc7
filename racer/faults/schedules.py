"""What is broken when: drawn from a seed and a number, so that a schedule is the same in every session."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from racer.faults.kit import Kit

__all__ = ["CALM", "Schedule", "calm", "draw"]

CALM = "calm"
"""The kind of a run that nothing happens to: it shows that the kit fits the program."""

_EARLY = 0.15
_LATEST = 0.85


@dataclass(frozen=True)
class Schedule:
    """One fault.

    Attributes:
        number: of the schedule, from 1; 0 is the calm one.
        kind: one of :data:`racer.faults.kit.KINDS`.
        at: share of the goal after which it is due; None for a fault while the program starts.
        delay: s that it comes after that, so that it also falls between two lines of the log.
        target: which of the processes or bytes that are there, in [0, 1).
        pause: s for which something is stopped or full.
    """

    number: int
    kind: str
    at: float | None
    delay: float
    target: float
    pause: float

    def as_json(self) -> dict[str, Any]:
        """Return the fields, as the results hold them."""
        return asdict(self)


def calm() -> Schedule:
    """Return the schedule without a fault."""
    return Schedule(0, CALM, None, 0.0, 0.0, 0.0)


def draw(kit: Kit, seed: int, number: int) -> Schedule:
    """Draw a schedule of a kit; it does not depend on how many are drawn.

    Each kind comes once in every block of as many schedules as there are kinds.
    """
    block, place = divmod(number - 1, len(kit.faults))
    kinds = random.Random(f"{seed}/block {block}").sample(kit.faults, len(kit.faults))
    rng, kind = random.Random(f"{seed}/{number}"), kinds[place]
    early, at = rng.random() < _EARLY, rng.uniform(0.0, _LATEST)
    share, target, pause = rng.random(), rng.random(), rng.uniform(0.2, 1.0)
    # There must be a checkpoint before it can be damaged, or a worker before it can be stopped.
    early = early and kind in ("kill_learner", "full_disk")
    delay = share * kit.limits.startup if early else share
    return Schedule(
        number, kind, None if early else round(at, 4), round(delay, 3), round(target, 4),
        round(pause * kit.limits.pause, 2),
    )  # fmt: skip
