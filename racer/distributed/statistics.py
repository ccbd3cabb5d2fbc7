"""Running statistics between two log lines."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping

__all__ = ["MeanOfDicts", "Throughput"]


class MeanOfDicts:
    """Means, key by key, of dicts of numbers. Values that are not finite are left out."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Add one dict."""
        for name, value in values.items():
            if math.isfinite(value):
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1

    def take(self, prefix: str) -> dict[str, float]:
        """Return the means with ``prefix`` before each key, and start over."""
        means = {f"{prefix}{name}": total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


class Throughput:
    """A counter's rate over several windows.

    Args:
        windows: their lengths (s).
        clock: monotonic seconds.
    """

    def __init__(self, windows: tuple[int, ...] = (10, 60, 300), clock: Callable[[], float] = time.monotonic) -> None:
        self._windows = windows
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> None:
        """Note the counter's value now; at most ten marks a second are kept."""
        now = self._clock()
        if len(self._marks) > 1 and now - self._marks[-2][0] < 0.1:
            self._marks.pop()
        self._marks.append((now, count))
        while len(self._marks) > 2 and now - self._marks[1][0] > max(self._windows):
            self._marks.popleft()

    def rates(self, prefix: str) -> dict[str, float]:
        """Return counts per second over each window, or over the time since the start where that is shorter."""
        rates = {}
        for window in self._windows:
            rate = 0.0
            if self._marks:
                now, last = self._clock(), self._marks[-1][1]
                start, first = self._marks[0]
                for when, count in self._marks:
                    if when > now - window:
                        break
                    start, first = when, count
                rate = (last - first) / (now - start) if now > start else 0.0
            rates[f"{prefix}_{window}s"] = rate
        return rates
