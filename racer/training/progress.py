"""The line that shows how far a run is."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from racer.envs.metric import Metric

__all__ = ["ProgressBar", "bar_values", "last_words"]


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


def last_words(
    folder: Path,
    step: int,
    began: int,
    latest: Mapping[str, tuple[int, float]],
    *,
    stopped: bool,
    evaluable: bool = True,
) -> str:
    """Return what a run says last: how far it came, what it reached, and what to do next.

    Args:
        folder: of the run.
        step: transitions taken in.
        began: transitions when the program began.
        latest: of each number logged, its last step and value.
        stopped: whether a signal ended it.
        evaluable: whether its policy can be loaded to be evaluated.
    """
    if step == 0:
        return f"stopped before its first step: {folder} holds nothing to go on with; begin it anew"
    if step == began and not stopped:
        return (
            f"already at step {step}, so there was nothing to do: max_steps counts from the run's beginning; "
            f"give a larger one, as --resume {folder} --max_steps {2 * step}"
        )
    reached = []
    if "training/return" in latest:
        reached.append(f"return {_short(latest['training/return'][1])} in training")
    if "evaluation/return" in latest:
        at, value = latest["evaluation/return"]
        reached.append(f"{_short(value)} in the evaluation of step {at}")
    first = f"{'stopped' if stopped else 'finished'} at step {step}" + (f": {', '.join(reached)}" if reached else "")
    onward = f"go on with --resume {folder}" + ("" if stopped else " and a larger --max_steps")
    return f"{first}\n" + (f"python -m racer evaluate {folder} measures it; {onward}" if evaluable else onward)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
