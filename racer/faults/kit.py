"""A kit: what one program's command is, how its processes are recognised, and where it keeps its numbers.

A YAML file holds the fields of :class:`Kit`. In commands and in the environment's values ``{python}`` stands for this
interpreter, ``{folder}`` for the folder that a schedule may write to, ``{kit}`` for the folder of the YAML file,
``{cache}`` for a folder that all schedules of one call share, and ``{seed}`` for the schedule's number.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from racer.core.config import check_fields, from_mapping, option
from racer.core.errors import UsageError, shown, unknown_name
from racer.core.yaml_file import read_yaml

__all__ = ["KINDS", "VERDICTS", "Checkpoints", "Counters", "Kit", "Limits", "load_kit"]

KINDS = {
    "kill_worker": "SIGKILL of a worker",
    "kill_all_workers": "SIGKILL of every worker at once",
    "kill_learner": "SIGKILL of the learner, then a resume",
    "stop_worker": "SIGSTOP of a worker, SIGCONT some seconds later",
    "slow_worker": "a worker stopped and continued in short turns",
    "full_disk": "the disk is full for some seconds",
    "truncated_checkpoint": "SIGKILL of the learner, the newest checkpoint cut short, then a resume",
    "flipped_checkpoint": "SIGKILL of the learner, a bit of the newest checkpoint flipped, then a resume",
    "half_open_connection": "SIGKILL of a worker whose TCP connections stay open",
    "two_resumes": "SIGKILL of the learner, then two resumes at once",
}
VERDICTS = ("lost", "duplicated", "orphaned", "stuck")


@dataclass(frozen=True)
class Counters:
    """Where a program logs what it has counted: JSON lines."""

    files: str = option("", "Files below the folder, a glob; read in the order in which they were begun.")
    step: str = option("step", "Key of the number that no two lines may share.")
    keys: tuple[str, ...] = option((), "Keys of numbers that must never fall from one line to the next.")

    def __post_init__(self) -> None:
        check_fields(self, "counters' key")
        _needed(self, "counters' key", "files")


@dataclass(frozen=True)
class Checkpoints:
    """Where a program keeps its checkpoints, files or folders."""

    glob: str = option("", "Checkpoints below the folder.")
    step: str = option(r"(\d+)", "Pattern whose first group is the step in a checkpoint's name.")
    damage: str = option("*", "Files of a checkpoint that may be damaged, a glob; of one that is a file, itself.")

    def __post_init__(self) -> None:
        check_fields(self, "checkpoints' key")
        _needed(self, "checkpoints' key", "glob")
        if _pattern(self.step, "checkpoints' key 'step'").groups < 1:
            raise UsageError(f"checkpoints' key 'step' must have a group for the number, as (\\d+), not {self.step!r}")


@dataclass(frozen=True)
class Limits:
    """How long a schedule may take."""

    schedule: float = option(180.0, "Seconds for all of it; what is not over by then is stuck.", above=0.0)
    startup: float = option(10.0, "Seconds from the start within which early faults are drawn.", above=0.0)
    pause: float = option(5.0, "Seconds that a worker is stopped, or the disk full, at most.", above=0.0)
    grace: float = option(5.0, "Seconds that processes may live after the learner's death.", above=0.0)

    def __post_init__(self) -> None:
        check_fields(self, "limits' key")


@dataclass(frozen=True)
class Kit:
    """A program to break, and how to tell what became of it."""

    name: str = option("", "Its name in the results.")
    about: str = option("", "A sentence.")
    command: tuple[str, ...] = option((), "Words of the command that begins a run.")
    resume: tuple[str, ...] = option((), "Words of the command that goes on with it.")
    directory: str = option(".", "Where both are called, from the YAML file's folder.")
    environment: Mapping[str, Any] = option({}, "Variables to set, text by name.")
    workers: str = option("", "Pattern found in a worker's command line, among what the command started.")
    learner: str | None = option(None, "Pattern found in the learner's; None for the process of the command itself.")
    num_workers: int = option(2, "Workers that must be alive before a fault.", low=1)
    goal: int = option(0, "Value of the counters' step at which a run is finished.", low=1)
    exit_code: int = option(0, "Exit code of a finished run.", low=0, high=255)
    counters: Counters = option(None, "See Counters.")
    checkpoints: Checkpoints = option(None, "See Checkpoints.")
    limits: Limits = option(Limits(), "See Limits.")
    locks: str | None = option(None, "Files that may be locked by nobody once a run is over, a glob.")
    leftovers: str | None = option(None, "Files that may not be there once a run is over, a glob.")
    disk_mb: int = option(16, "Megabytes of the disk that is filled.", low=1, high=4096)
    faults: tuple[str, ...] = option(tuple(KINDS), "Kinds to inject.", empty=False)
    not_claimed: Mapping[str, Any] = option({}, "Kinds or verdicts that the program does not promise: the reason.")
    folder: Path = Path()
    """Of the YAML file."""

    def __post_init__(self) -> None:
        _needed(self, "kit key", "name", "command", "resume", "workers", "goal", "counters", "checkpoints")
        check_fields(self, "kit key")
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", self.name):
            raise UsageError(f"kit key 'name' may hold letters, digits, '.', '_' and '-', not {shown(self.name)}")
        for key in ("workers", "learner"):
            _pattern(getattr(self, key) or "", f"kit key {key!r}")
        for kind in self.faults:
            if kind not in KINDS:
                raise unknown_name("kind of fault", kind, KINDS)
        for kind in self.not_claimed:
            if kind not in (*KINDS, *VERDICTS):
                raise unknown_name("kind or verdict in 'not_claimed':", kind, (*KINDS, *VERDICTS))
        for key in ("environment", "not_claimed"):
            for name, value in getattr(self, key).items():
                if not isinstance(value, str):
                    raise UsageError(f"kit key {key!r}: {shown(name)} must be text, not {shown(value)}")

    def place(self) -> Path:
        """Return the folder in which the commands are called."""
        return (self.folder / self.directory).resolve()

    def words(self, command: tuple[str, ...], folder: Path, cache: Path, seed: int) -> list[str]:
        """Return a command with its placeholders filled in."""
        return [self._filled(word, folder, cache, seed) for word in command]

    def variables(self, folder: Path, cache: Path, seed: int) -> dict[str, str]:
        """Return the environment of the commands."""
        own = {name: self._filled(str(text), folder, cache, seed) for name, text in self.environment.items()}
        return {**os.environ, **own}

    def _filled(self, text: str, folder: Path, cache: Path, seed: int) -> str:
        names = {"python": sys.executable, "folder": folder, "kit": self.folder, "cache": cache, "seed": seed}
        # Braces of other words, as in a Python dictionary, stay as they are.
        return re.sub(r"\{(python|folder|kit|cache|seed)\}", lambda found: str(names[found[1]]), text)


_PARTS: dict[str, type] = {"counters": Counters, "checkpoints": Checkpoints, "limits": Limits}


def load_kit(path: Path) -> Kit:
    """Read a kit and see that what it names is there.

    Raises:
        UsageError: naming the file and the key.
    """
    values = read_yaml(path)
    if "folder" in values:
        raise UsageError(f"{shown(str(path))}: unknown kit key 'folder'; it is where the file lies")
    try:
        parts: dict[str, Any] = {
            key: from_mapping(part, values[key], f"{key}' key") for key, part in _PARTS.items() if key in values
        }
        kit = from_mapping(Kit, {**values, **parts, "folder": path.resolve().parent}, "kit key")
    except UsageError as error:
        raise UsageError(f"{shown(str(path))}: {error}") from error
    if not kit.place().is_dir():
        raise UsageError(f"{shown(str(path))}: kit key 'directory': there is no folder {str(kit.place())!r}")
    for key in ("command", "resume"):
        _check_command(kit, key, path)
    return kit


def _check_command(kit: Kit, key: str, path: Path) -> None:
    nowhere, command = Path("/nonexistent"), getattr(kit, key)
    # What lies in a schedule's folder is not there yet.
    first, *rest = kit.words(tuple(word for word in command if "{folder}" not in word), nowhere, nowhere, 0)
    search = kit.environment.get("PATH", os.environ.get("PATH"))
    found = shutil.which(kit.place() / first if os.sep in first else first, path=search)
    if found is None:
        raise UsageError(f"{shown(str(path))}: kit key {key!r}: command {shown(first)} was not found")
    script = next((word for word in rest if word.endswith((".py", ".sh")) and not word.startswith("-")), None)
    if script is not None and not (kit.place() / script).is_file():
        raise UsageError(f"{shown(str(path))}: kit key {key!r}: there is no file {shown(script)}")


def _needed(config: Any, where: str, *names: str) -> None:
    for name in names:
        if not getattr(config, name):
            raise UsageError(f"{where} {name!r} is missing")


def _pattern(text: str, what: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"{what}: {shown(text)} is no pattern: {error}") from error
