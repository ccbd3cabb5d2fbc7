"""A job as one line of a shell: what follows ``python -m racer sweep job``, and back."""

from __future__ import annotations

import ast
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from racer.core.errors import UsageError
from racer.sweeps.expand import Expanded, expand
from racer.sweeps.reader import Arguments, HyperFile, Marked

__all__ = ["OWN_ENTRY", "command_lines", "file_from_words", "study_of"]

OWN_ENTRY = "-m racer sweep job"

_EXCLUDE = "exclude"


def command_lines(file: HyperFile, study: str | None = None, entry: str | None = None) -> list[str]:
    """Return a command for each job: flags for True, nothing for False and None, joined values side by side.

    Args:
        file: the hyperparameter file.
        study: its name; the file's own where None.
        entry: what follows ``python``; the file's own where None.
    """
    entry = file.entry if entry is None else entry
    lines = []
    for job in expand(file):
        words = _words(job, own="env" not in job.fixed)
        if entry.startswith(OWN_ENTRY):
            words += _excluded(file, job)
        if "study_name" not in job.fixed:
            words += ["--study_name", study or file.study]
        lines.append(" ".join(["python", entry, *(_quoted(word) for word in words)]))
    return lines


def _quoted(word: str) -> str:
    return word if word.startswith("--") and word[2:].replace(".", "_").isidentifier() else shlex.quote(word)


def _words(job: Expanded, *, own: bool) -> list[str]:
    """Return the words of a job; with the keys of this house, False and None are said, as a default may differ."""
    values: dict[str, Any] = {key: (value,) for key, value in job.fixed.items()}
    for key in job.swept:
        values[key] = tuple(dict.fromkeys(setting[key] for setting in job.settings))
    if job.seeds is not None:
        values["seed"] = job.seeds
    words: list[str] = []
    for key, items in values.items():
        flag = len(items) == 1 and (items[0] is None or isinstance(items[0], bool))
        if not flag or own:
            words += [f"--{key}", *map(_word, items)]
        elif items[0] is True:
            words.append(f"--{key}")
    return words


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return json.dumps(value) if isinstance(value, dict | list | tuple) else str(value)


def _excluded(file: HyperFile, job: Expanded) -> list[str]:
    rules = [rule for rule in file.exclude if any(key in job.swept for key in rule)]
    return ["--exclude", json.dumps(rules)] if rules else []


def study_of(words: Sequence[str]) -> str:
    """Return the study that a job's words name, "sweep" where they name none."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--study_name":
            return following
    return "sweep"


def file_from_words(words: Sequence[str], entry: str = OWN_ENTRY) -> HyperFile:
    """Read a job's words, as a hyperparameter file of one job.

    Raises:
        UsageError: a value without a key, or a key twice.
    """
    values: dict[str, list[str]] = {}
    key = None
    for word in words:
        if word.startswith("--") and not _is_number(word):
            key, equals, value = word[2:].partition("=")
            if not key or key in values:
                raise UsageError(f"{word!r}: every key is given once, as --key value ...")
            values[key] = [value] if equals else []
        elif key is None:
            raise UsageError(f"unexpected argument {word!r}; every key begins with --")
        else:
            values[key].append(word)
    rules = _rules(values.pop(_EXCLUDE, []))
    found: dict[str, Any] = {}
    for key, items in values.items():
        read = [_value(item) for item in items]
        found[key] = True if not read else read[0] if len(read) == 1 else Marked("vmapped", tuple(read))
    memory = found.pop("memory", None) if "env" in found else None
    return HyperFile(Path("command line"), "", f"{entry} {memory or ''}".strip(), (Arguments(found),), rules, 1)


def _rules(given: Sequence[str]) -> tuple[dict[str, tuple[Any, ...]], ...]:
    if not given:
        return ()
    try:
        rules = json.loads(given[0])
        good = len(given) == 1 and isinstance(rules, list) and all(isinstance(rule, Mapping) for rule in rules)
    except (ValueError, RecursionError):
        good = False
    if not good:
        raise UsageError("--exclude takes a JSON list of mappings from keys to lists of values")
    return tuple({str(k): tuple(v) if isinstance(v, list) else (v,) for k, v in rule.items()} for rule in rules)


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if text in words:
        return words[text]
    try:
        value = json.loads(text) if text[:1] in "{[" else ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    if isinstance(value, bytes | complex | set):
        return text
    return tuple(value) if isinstance(value, list) else value


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
