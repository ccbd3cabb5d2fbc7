"""Controls that cannot lie: what an agent scores when its memory of earlier trials is taken away or another's.

Both act where a trial ends and the episode goes on. "wiped" clears the memory; "swapped" puts in the memory that the
policy had at the end of the same trial of another episode, of another type where the world tells ``trial_type``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from racer.core.errors import RacerError, UsageError
from racer.networks.memory import Memory, cleared

__all__ = ["MemoryControl", "Recorder", "Swapped", "Wiped"]

Name = tuple[int, int]
"""An episode's seed and the number of an ego in it."""


class MemoryControl(Protocol):
    """Changes memories between trials."""

    def between(
        self, names: Sequence[Name | None], memory: Memory, ends: np.ndarray, infos: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the memory ``[N, ...]`` with which the next trials begin.

        Args:
            names: what each runs, seed and ego; None for one that idles.
            memory: after the step.
            ends: bool ``[N]``, where a trial ended and its episode goes on.
            infos: of the step.
        """
        ...

    def finish(self) -> None:
        """Raise UsageError where the control had nothing to act on."""
        ...


class Wiped:
    """Clears the memory, and makes sure that it is empty."""

    def __init__(self) -> None:
        self.times = 0

    def between(
        self, names: Sequence[Name | None], memory: Memory, ends: np.ndarray, infos: Mapping[str, Any]
    ) -> dict[str, Any]:
        wiped = cleared(memory, ends)
        self.times += int(ends.sum())
        if any(np.any(np.asarray(value)[ends]) for value in wiped.values()):
            raise RacerError("a memory that was wiped is not empty")
        return wiped

    def finish(self) -> None:
        _need(self.times)


class Recorder:
    """Changes nothing, and keeps every memory at the end of a trial, with the trial's type."""

    def __init__(self) -> None:
        self.memories: dict[tuple[Name, int], dict[str, np.ndarray]] = {}
        self.types: dict[Name, Any] = {}
        self._trials: dict[Name, int] = {}

    def between(
        self, names: Sequence[Name | None], memory: Memory, ends: np.ndarray, infos: Mapping[str, Any]
    ) -> dict[str, Any]:
        for i in np.flatnonzero(ends):
            row = names[int(i)]
            if row is None:
                continue
            self._trials[row] = trial = self._trials.get(row, -1) + 1
            self.memories[row, trial] = {name: np.array(value[i]) for name, value in memory.items()}
            self.types[row] = infos["trial_type"][i].item() if "trial_type" in infos else row[0]
        return dict(memory)

    def finish(self) -> None:
        _need(len(self.memories))


class Swapped:
    """Puts in another episode's memory.

    Args:
        recorded: of the same seeds.

    Raises:
        UsageError: an episode has no other one of another type beside it.
    """

    def __init__(self, recorded: Recorder) -> None:
        self._recorded = recorded
        self._trials: dict[Name, int] = {}
        order = sorted(recorded.types)
        self.donors = {row: self._donor(order, place) for place, row in enumerate(order)}

    def _donor(self, order: Sequence[Name], place: int) -> Name:
        """Return the next one in order whose type is another one."""
        types = self._recorded.types
        for step in range(1, len(order)):
            other = order[(place + step) % len(order)]
            if types[other] != types[order[place]]:
                return other
        raise UsageError("no two episodes are of different types, so no memory can be swapped: run more episodes")

    def between(
        self, names: Sequence[Name | None], memory: Memory, ends: np.ndarray, infos: Mapping[str, Any]
    ) -> dict[str, Any]:
        swapped = {name: np.array(value) for name, value in memory.items()}
        for i in np.flatnonzero(ends):
            row = names[int(i)]
            if row is None:
                continue
            trial = self._trials[row] = self._trials.get(row, -1) + 1
            for name, value in self._recorded.memories[self.donors[row], trial].items():
                swapped[name][i] = value
        return swapped

    def finish(self) -> None:
        _need(sum(self._trials.values()) + len(self._trials))


def _need(times: int) -> None:
    if not times:
        raise UsageError("the world has no trials within an episode, between which a memory could be changed")
