"""The line that shows how far a run is."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from tqdm import tqdm

from racer.envs.metric import Metric

__all__ = ["ProgressBar", "bar_values"]


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


def bar_values(values: Mapping[str, float], metrics: Sequence[Metric]) -> dict[str, Any]:
    """Return what a progress bar shows of a line of metrics, by short names."""
    rates = {m.name: values.get(f"training/{m.name}", 0.0) for m in metrics if m.total}
    if "training/update_to_data_target" in values:
        learning = {"utd": values["training/update_to_data"]}
    else:
        # Missing where no update was made since the last line.
        learning = {"kl": values["agent/kl"]} if "agent/kl" in values else {}
    shown = {
        "steps/s": values.get("speed/steps_per_second_10s", 0.0),
        "return": values.get("training/return", 0.0),
        **rates,
        **learning,
    }
    if "training/queue_depth" in values:
        shown |= {"queue": int(values["training/queue_depth"]), "lag": values["training/policy_lag_mean"]}
    return shown


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
