"""From a hyperparameter file to jobs: products outside, settings that are trained side by side inside."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from racer.core.errors import UsageError, unknown_name
from racer.sweeps.reader import Arguments, HyperFile, Marked

__all__ = ["Expanded", "expand"]


@dataclass(frozen=True)
class Expanded:
    """One job before its keys are understood.

    Attributes:
        fixed: keys with one value.
        swept: keys with several, trained side by side.
        settings: their combinations that are not excluded, in order, each ``{key: value}``.
        seeds: where the file lists them side by side, else None.
        lines: of the file, by key.
    """

    fixed: dict[str, Any]
    swept: tuple[str, ...]
    settings: tuple[dict[str, Any], ...]
    seeds: tuple[Any, ...] | None
    lines: dict[str, int]


def expand(file: HyperFile) -> list[Expanded]:
    """Return the jobs of a file, in order and without repetitions.

    Raises:
        UsageError: conditions on keys that nobody has, or nothing is left after the exclusions.
    """
    _check_exclusions(file)
    found: list[Expanded] = []
    for arguments in file.args:
        for job in _jobs(file, arguments):
            same = [other for other in found if _same(other, job)]
            if job.settings and not same:
                found.append(job)
    if not found:
        raise UsageError(f"{file.where(file.line)}: every combination is excluded: this sweep is empty")
    return found


def _same(first: Expanded, second: Expanded) -> bool:
    """Compare values with their kinds: True is not 1."""
    return repr((first.fixed, first.settings, first.seeds)) == repr((second.fixed, second.settings, second.seeds))


def _jobs(file: HyperFile, arguments: Arguments) -> Iterator[Expanded]:
    marked = {key: _marked(value) for key, value in arguments.values.items()}
    for key, mark in marked.items():
        for other in (name for name, _ in mark.only_if if name not in marked):
            place = file.where(arguments.lines.get(key, file.line))
            raise UsageError(f"{place}: only_if of {key!r}: {unknown_name('key', other, marked)}")
    outer = {key: mark.values for key, mark in marked.items() if mark.kind == "jobs"}
    for combination in itertools.product(*outer.values()):
        values = dict(zip(outer, combination, strict=True))
        # One by one: a condition may hang on a key that hangs on a condition itself.
        present = {key: mark for key, mark in marked.items() if _holds(mark, values, marked)}
        fixed = {key: values[key] for key in present if key in values}
        inner = {key: mark.values for key, mark in present.items() if mark.kind == "vmapped"}
        fixed |= {key: items[0] for key, items in inner.items() if len(items) == 1}
        ordered = {key: fixed[key] for key in present if key in fixed}
        seeds = inner.pop("seed", None)
        swept = {key: items for key, items in inner.items() if len(items) > 1}
        settings = [dict(zip(swept, items, strict=True)) for items in itertools.product(*swept.values())]
        kept = [setting for setting in settings if not _is_excluded(file, {**ordered, **setting})]
        if seeds is not None and len(seeds) == 1:
            seeds = None
        yield Expanded(ordered, tuple(swept), tuple(kept), seeds, arguments.lines)


def _marked(value: Any) -> Marked:
    if isinstance(value, Marked):
        return value
    numbers = _joined_numbers(value)
    if numbers is not None:
        return Marked("vmapped", numbers)
    return Marked("jobs", (value,))


def _joined_numbers(value: Any) -> tuple[Any, ...] | None:
    """Return the numbers of a joined text such as ``'2.5e-3 2.5e-4'``; None for any other value."""
    if not isinstance(value, str) or not value.split():
        return None
    found = []
    for word in value.split():
        try:
            found.append(int(word))
        except ValueError:
            try:
                found.append(float(word))  # type: ignore[arg-type]
            except ValueError:
                return None
    return tuple(found)


def _holds(mark: Marked, values: Mapping[str, Any], marked: Mapping[str, Marked]) -> bool:
    for other, wanted in mark.only_if:
        if other in values:
            there = [values[other]] if _holds(marked[other], values, marked) else []
        else:
            there = list(marked[other].values)
        if not any(_equal(value, want) for value in there for want in wanted):
            return False
    return True


def _is_excluded(file: HyperFile, values: Mapping[str, Any]) -> bool:
    return any(
        all(key in values and any(_equal(values[key], item) for item in items) for key, items in rule.items())
        for rule in file.exclude
        if rule
    )


def _equal(first: Any, second: Any) -> bool:
    """Compare values; a joined text equals its one number, True is no 1."""
    numbers = _joined_numbers(second)
    second = numbers[0] if numbers is not None and len(numbers) == 1 else second
    return bool(first == second and isinstance(first, bool) == isinstance(second, bool))


def _check_exclusions(file: HyperFile) -> None:
    keys = {key for arguments in file.args for key in arguments.values}
    for rule in file.exclude:
        for key in rule:
            if key not in keys:
                raise UsageError(f"{file.where(file.line)}: {unknown_name('key in exclude', key, keys)}")
