"""The progress bar and the rolling statistics behind it."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

import numpy as np
from tqdm import tqdm

__all__ = ["EpisodeWindow", "ProgressBar", "Throughput"]


class EpisodeWindow:
    """Means over the episodes that ended last."""

    def __init__(self, size: int = 100) -> None:
        self._episodes: deque[dict[str, float]] = deque(maxlen=size)
        self.total = 0
        self.collisions = 0

    def extend(self, episodes: Iterable[Mapping[str, float]]) -> None:
        """Add ended episodes."""
        for episode in episodes:
            self._episodes.append(dict(episode))
            self.total += 1
            self.collisions += int(episode.get("crashed", 0.0))

    def last(self, count: int) -> list[dict[str, float]]:
        """Return the ``count`` episodes that ended last, as far as the window holds them."""
        episodes = list(self._episodes)
        return episodes[max(len(episodes) - count, 0) :]

    def means(self, prefix: str = "training/") -> dict[str, float]:
        """Return the mean of every metric, with rates for what happens or does not, and the totals."""
        values: dict[str, float] = {f"{prefix}episodes": self.total, f"{prefix}collisions": self.collisions}
        names = {"crashed": "collision_rate", "off_road": "off_road_rate", "success": "success_rate"}
        for key in self._episodes[-1] if self._episodes else ():
            values[prefix + names.get(key, key)] = float(np.mean([e[key] for e in self._episodes if key in e]))
        return values

    def get_state(self) -> dict[str, Any]:
        """Return the window as JSON values."""
        return {"episodes": list(self._episodes), "total": self.total, "collisions": self.collisions}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Return to :meth:`get_state`."""
        self._episodes.clear()
        self._episodes.extend(state["episodes"])
        self.total, self.collisions = int(state["total"]), int(state["collisions"])


class Throughput:
    """Rates of growing counters over the last ``window`` seconds."""

    def __init__(self, window: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._window, self._clock = window, clock
        self._samples: deque[tuple[float, dict[str, float]]] = deque()

    def update(self, **counters: float) -> dict[str, float]:
        """Note the counters now; returns the rate of each (1/s), 0 until two samples exist."""
        now = self._clock()
        self._samples.append((now, counters))
        while len(self._samples) > 2 and now - self._samples[0][0] > self._window:
            self._samples.popleft()
        then, first = self._samples[0]
        elapsed = now - then
        return {k: (v - first.get(k, v)) / elapsed if elapsed > 0 else 0.0 for k, v in counters.items()}


class ProgressBar:
    """A line on standard error; where that is no terminal, a plain line every ``plain_seconds``."""

    def __init__(self, total: int, initial: int = 0, *, plain_seconds: float = 10.0, enabled: bool = True) -> None:
        self._plain = not sys.stderr.isatty()
        self._enabled, self._seconds, self._last, self._total = enabled, plain_seconds, 0.0, total
        self._bar = tqdm(
            total=total, initial=initial, unit="step", dynamic_ncols=True, disable=self._plain or not enabled
        )

    def show(self, step: int, values: Mapping[str, Any]) -> None:
        """Move to ``step`` and show named values beside it."""
        text = "  ".join(f"{name} {_short(value)}" for name, value in values.items())
        if not self._plain:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(min(step, self._total) - self._bar.n)
        elif self._enabled and time.monotonic() - self._last >= self._seconds:
            self._last = time.monotonic()
            print(f"step {step}/{self._total}  {text}", file=sys.stderr, flush=True)  # noqa: T201 - the progress line

    def write(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.write(text, file=sys.stderr) if not self._plain else print(text, file=sys.stderr)  # noqa: T201

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
