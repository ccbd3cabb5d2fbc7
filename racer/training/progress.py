"""The line that shows how far a run is."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

__all__ = ["ProgressBar"]


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
