"""Tables of a study's members by any of its keys, and comparisons of its arms."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import unknown_name
from racer.core.statistics import (
    Estimate,
    bootstrap,
    improvement,
    interquartile_mean,
    paired_difference,
)

__all__ = ["arms_of", "by_key", "comparison", "overall", "paired_arms", "varying_keys"]

Rows = Sequence[Mapping[str, Any]]

_COLUMNS = ("std", "min", "25%", "50%", "75%", "max", "IQM")
_HEADER = f"{'count':>6}{'mean':>10}" + "".join(f"{name:>9}" for name in _COLUMNS) + "  95 % of the mean"


def overall(rows: Rows, value: str, title: str = "Overall") -> str:
    """Return a table of all rows' values."""
    return "\n".join([title, f"{'':<26}{_HEADER}", _line("all", _values(rows, value))])


def by_key(rows: Rows, key: str, value: str, title: str | None = None) -> str:
    """Return a table with a line for each value of a key, in the order of values.

    Raises:
        UsageError: no row has such a key.
    """
    groups = _groups(rows, key)
    lines = [_line(label, _values(group, value)) for label, group in groups.items()]
    name = key.removeprefix("arg.")
    return "\n".join([title or f"By {name}", f"{name[:25]:<26}{_HEADER}", *lines])


def varying_keys(rows: Rows) -> list[str]:
    """Return the keys of the hyperparameter file ("arg.") that differ between rows, without the seed."""
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("arg."))
    return [key for key in keys if key not in ("arg.seed", "arg.n_seeds") and len(_groups(rows, key)) > 1]


def arms_of(rows: Rows, key: str, value: str, paired_by: Sequence[str]) -> dict[str, dict[tuple[str, ...], float]]:
    """Return, for each value of a key, the finite results by what they are paired by."""
    arms: dict[str, dict[tuple[str, ...], float]] = {}
    for label, group in _groups(rows, key).items():
        arm = arms.setdefault(label, {})
        for row in group:
            number = row.get(value)
            if isinstance(number, int | float) and math.isfinite(number):
                arm[tuple(_text(row.get(name)) for name in paired_by)] = float(number)
    return arms


def paired_arms(
    first: Mapping[tuple[str, ...], float], second: Mapping[tuple[str, ...], float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the results of pairs that both arms have, ``[N]`` each."""
    shared = sorted(set(first) & set(second))
    return np.array([first[pair] for pair in shared]), np.array([second[pair] for pair in shared])


def comparison(rows: Rows, key: str, value: str, paired_by: Sequence[str]) -> str:
    """Return arms with means and IQMs, and every two of them with paired differences and chances to be better."""
    arms = arms_of(rows, key, value, paired_by)
    digits = _digits(arms)
    shared = ", ".join(name.removeprefix("arg.") for name in paired_by)
    lines = [f"Arms by {key.removeprefix('arg.')}, {value}; pairs share {shared}; 95 % bootstrap intervals",
             f"{'arm':<34}{'runs':>6}{'mean':>26}{'IQM':>26}"]  # fmt: skip
    for label, arm in arms.items():
        data = np.array(list(arm.values()))
        if data.size == 0:
            lines.append(f"{label[:33]:<34}{0:>6}")
            continue
        estimates = bootstrap(data), bootstrap(data, interquartile_mean)
        lines.append(f"{label[:33]:<34}{data.size:>6}" + "".join(f"{_interval(e, digits):>26}" for e in estimates))
    columns = f"{'pairs':>6}{'mean difference':>26}{'IQM difference':>26}{'P(first better)':>22}"
    lines.append(f"{'first less second':<34}{columns}")
    pairs = list(itertools.combinations(arms, 2))
    for first, second in pairs:
        a, b = paired_arms(arms[first], arms[second])
        label = f"{first} - {second}"[:33]
        if a.size == 0:
            lines.append(f"{label:<34}{0:>6}")
            continue
        by_mean, by_iqm = paired_difference(a, b), paired_difference(a, b, interquartile_mean)
        chance = improvement(a, b)
        cells = f"{_interval(by_mean, digits):>26}{_interval(by_iqm, digits):>26}{_interval(chance, 2):>22}"
        lines.append(f"{label:<34}{a.size:>6}{cells}  {_verdict(a, b, by_mean, len(pairs))}")
    return "\n".join(lines)


def _verdict(a: NDArray[np.float64], b: NDArray[np.float64], alone: Estimate, comparisons: int) -> str:
    """Say whether arms differ, by an interval for this comparison alone and by one for all of them (Bonferroni)."""
    if not alone.separates:
        return "not separable"
    together = comparisons > 1 and paired_difference(a, b, confidence=1.0 - 0.05 / comparisons).separates
    return f"separable, also at 95 % for all {comparisons}" if together else "separable"


def _digits(arms: Mapping[str, Mapping[tuple[str, ...], float]]) -> int:
    """Return decimal places that show four figures of the largest result, from 1 to 4."""
    largest = max((abs(number) for arm in arms.values() for number in arm.values()), default=0.0)
    return 1 if largest == 0.0 else min(max(3 - math.floor(math.log10(largest)), 1), 4)


def _interval(estimate: Estimate, digits: int) -> str:
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _groups(rows: Rows, key: str) -> dict[str, list[Mapping[str, Any]]]:
    if not any(key in row for row in rows):
        raise unknown_name("column", key, {name for row in rows for name in row})
    found: dict[str, tuple[Any, list[Mapping[str, Any]]]] = {}
    for row in rows:
        found.setdefault(_text(row.get(key)), (row.get(key), []))[1].append(row)
    number = all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in found.values())
    ordered = sorted(found, key=(lambda label: float(found[label][0])) if number else None)
    return {label: found[label][1] for label in ordered} if number else {k: v[1] for k, v in found.items()}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list | tuple) else str(value)


def _values(rows: Rows, value: str) -> NDArray[np.float64]:
    if not any(value in row for row in rows):
        raise unknown_name("metric", value, {name for row in rows for name in row if "/" in name or "_" in name})
    given = [row.get(value) for row in rows]
    data = np.array([math.nan if v is None or isinstance(v, str) else float(v) for v in given], np.float64)
    return data[np.isfinite(data)]


def _line(label: str, data: NDArray[np.float64]) -> str:
    if data.size == 0:
        return f"{label[:25]:<26}{0:>6}"
    std = data.std(ddof=1) if data.size > 1 else math.nan
    numbers = (data.min(), *np.quantile(data, [0.25, 0.5, 0.75]), data.max(), float(interquartile_mean(data)))
    estimate = bootstrap(data)
    cells = "".join(f"{number:>9.2f}" for number in numbers)
    ends = f"  [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{label[:25]:<26}{data.size:>6}{data.mean():>10.2f}{std:>9.2f}{cells}{ends}"
