"""Running statistics between log lines, and of the episodes that ended last."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from racer.envs.metric import BASE_METRICS, Metric

__all__ = ["EpisodeWindow", "MeanOfDicts", "Throughput"]


class EpisodeWindow:
    """Means over the episodes that ended last, and totals over all.

    Args:
        metrics: how each number of an episode is called in logs and put together; others keep their key and are
            averaged.
        size: episodes that the means are taken over.
    """

    def __init__(self, metrics: Sequence[Metric] = BASE_METRICS, size: int = 100) -> None:
        self._metrics = {metric.key: metric for metric in metrics}
        self._episodes: deque[dict[str, float]] = deque(maxlen=size)
        self.total = 0
        self._totals = {metric.total: 0 for metric in metrics if metric.total}

    def extend(self, episodes: Iterable[Mapping[str, float]]) -> None:
        """Add ended episodes."""
        for episode in episodes:
            self._episodes.append(dict(episode))
            self.total += 1
            for key, metric in self._metrics.items():
                if metric.total:
                    self._totals[metric.total] += int(episode.get(key, 0.0) > 0)

    def means(self) -> dict[str, float]:
        """Return every metric by its name in logs, and the totals."""
        values: dict[str, float] = {"episodes": self.total, **self._totals}
        for key in self._episodes[-1] if self._episodes else ():
            metric = self._metrics.get(key, Metric(key, key))
            values[metric.name] = self._mean(key, metric.kind)
        return values

    def get_state(self) -> dict[str, Any]:
        """Return the window as JSON values."""
        return {"episodes": list(self._episodes), "total": self.total, "totals": dict(self._totals)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Return to :meth:`get_state`."""
        self._episodes.clear()
        # None stands for a number that is not finite.
        self._episodes.extend(
            {str(k): math.nan if v is None else float(v) for k, v in episode.items()} for episode in state["episodes"]
        )
        self.total = int(state["total"])
        self._totals |= {name: int(value) for name, value in state["totals"].items()}

    def _mean(self, key: str, kind: str) -> float:
        episodes = [episode for episode in self._episodes if key in episode]
        values = np.array([episode[key] for episode in episodes])
        if kind == "rate":
            return float(np.mean(values > 0))
        if kind == "share":
            return float(np.average(values, weights=[max(episode["length"], 1.0) for episode in episodes]))
        return float(np.mean(values))


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

    def get_state(self) -> dict[str, Any]:
        """Return sums and counts as JSON values."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Return to :meth:`get_state`."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])


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
