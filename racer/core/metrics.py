"""Where a run's numbers go: a JSON-lines file and TensorBoard always, Weights & Biases when it is configured.

The local file is the complete record; what a full disk refuses is kept and written as soon as there is room. Trackers
work on threads of their own: one that is slow, unreachable or broken neither holds up nor ends training.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from racer.core.errors import UsageError
from racer.core.files import open_regular, parse_json, read_bytes, replace_file, strict

__all__ = ["DAMAGED_FILE", "METRICS_FILE", "MetricsLogger", "read_metrics", "wandb_mode"]

METRICS_FILE = "metrics.jsonl"
DAMAGED_FILE = "metrics.damaged.jsonl"

log = logging.getLogger(__name__)

_FILE_BYTES = 1 << 29
_LINE_BYTES = 1 << 20
_WAITING_LINES = 10_000
_CLOSE_SECONDS = 30.0
_CONNECT_SECONDS = 30.0


class _Tracker(Protocol):
    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class MetricsLogger:
    """Writes named numbers under a step (transitions so far).

    Attributes:
        latest: of each finite number that this logger has written, its last step and value.

    Args:
        run_dir: the run's folder; ``metrics.jsonl`` and ``tensorboard/`` are made in it.
        config: the run's configuration, for trackers that show it.
        wandb_project: Weights & Biases project.
        tensorboard: folder of TensorBoard's files, instead of the one in the run's folder.
        tags: a number's name there, from its name here; the same where not given.
        truncate_after: on resume, lines beyond this step are dropped, so that none appears twice, and damaged ones
            moved to ``metrics.damaged.jsonl``.
    """

    def __init__(
        self,
        run_dir: Path,
        config: Mapping[str, Any] | None = None,
        *,
        wandb_project: str = "racer",
        tensorboard: Path | None = None,
        tags: Callable[[str], str] = lambda name: name,
        truncate_after: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self.latest: dict[str, tuple[int, float]] = {}
        path = run_dir / METRICS_FILE
        if truncate_after is not None and os.path.lexists(path):
            _drop_after(path, truncate_after)
        self._path = path
        self._file = path.open("a+b", buffering=0)
        self._unwritten = bytearray()
        folder = run_dir / "tensorboard" if tensorboard is None else tensorboard
        self._trackers: list[_Tracker] = [_Background("TensorBoard", lambda: _TensorBoard(folder, tags))]
        if wandb_mode() is not None:
            # Here, on the main thread: imported on another one while JAX and the workers start, it lost whole runs.
            with contextlib.suppress(ImportError):
                import wandb  # noqa: F401
            self._trackers.append(_Background("Weights & Biases", lambda: _WandB(run_dir, config or {}, wandb_project)))

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Write one line and hand the same numbers to the trackers."""
        numbers = {name: strict(value) for name, value in values.items()}
        line = {"step": int(step), "time": self._clock(), **numbers}
        self._write((json.dumps(line, allow_nan=False) + "\n").encode())
        finite = {name: value for name, value in numbers.items() if isinstance(value, int | float)}
        self.latest.update({name: (int(step), value) for name, value in finite.items()})
        for tracker in list(self._trackers):
            try:
                tracker.log(step, finite)
            except Exception as error:  # noqa: BLE001 - a tracker may raise anything and must not stop a run
                log.warning("%s stopped taking metrics and is left out from here: %s", type(tracker).__name__, error)
                self._trackers.remove(tracker)

    def lost(self) -> bool:
        """Whether somebody deleted the file."""
        return os.fstat(self._file.fileno()).st_nlink == 0

    def restore(self) -> None:
        """Write a deleted file again: what was in it can be read for as long as it is open.

        Raises:
            OSError: it cannot be written.
        """
        self._file.seek(0)
        replace_file(self._path, self._file.read())
        self._file.close()
        self._file = self._path.open("a+b", buffering=0)

    def close(self) -> None:
        """Flush and close everything; a tracker gets half a minute for it."""
        self._write(b"")
        if self._unwritten:
            log.warning("the last %d bytes of %s could not be written", len(self._unwritten), METRICS_FILE)
        self._file.close()
        for tracker in self._trackers:
            tracker.close()

    def _write(self, line: bytes) -> None:
        """Append a line, after what the disk refused before."""
        waiting = bool(self._unwritten)
        self._unwritten += line
        try:
            while self._unwritten:
                del self._unwritten[: self._file.write(self._unwritten)]
        except OSError as error:
            if not waiting:
                log.warning("%s was not written, to be tried again: %s", METRICS_FILE, error.strerror or error)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics file: every line that is whole, with a warning of how many are not.

    A last line cut short by a kill is left out.

    Raises:
        UsageError: the file is missing, no regular file or too large.
    """
    found, damaged = _scan(path)
    if damaged:
        log.warning("%d damaged lines of %s are left out", len(damaged), path)
    return [line for _, line in found]


def wandb_mode() -> str | None:
    """Return "online" or "offline" if Weights & Biases is configured in the environment, else None.

    It is when ``WANDB_MODE`` says so, or when a project or a key is set; the mode is offline unless ``WANDB_MODE``
    is ``online``.

    Raises:
        UsageError: if the mode is unknown, or online without a key: nobody is ever asked to log in.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode is None:
        return "offline" if os.environ.get("WANDB_PROJECT") or os.environ.get("WANDB_API_KEY") else None
    if mode in ("disabled", "dryrun"):
        return None if mode == "disabled" else "offline"
    if mode not in ("online", "offline"):
        raise UsageError(f"WANDB_MODE is {mode!r}; choose online, offline or disabled")
    if mode == "online" and not os.environ.get("WANDB_API_KEY"):
        raise UsageError("WANDB_MODE=online needs WANDB_API_KEY; use WANDB_MODE=offline and sync later")
    return mode


class _Background:
    """A tracker on a thread of its own, from its first connection to its end.

    Args:
        name: for the one warning that it gets.
        make: builds the tracker; may block or raise.
    """

    def __init__(self, name: str, make: Callable[[], _Tracker]) -> None:
        self._name, self._make = name, make
        self._lines: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(_WAITING_LINES)
        self._left_out = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._left_out.is_set():
            return
        try:
            self._lines.put_nowait((step, values))
        except queue.Full:
            self._leave_out(f"{_WAITING_LINES} lines wait for it")

    def close(self) -> None:
        if self._left_out.is_set():
            return
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_CLOSE_SECONDS)
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            self._leave_out(f"it did not finish within {_CLOSE_SECONDS:g} s")

    def _leave_out(self, reason: object) -> None:
        if not self._left_out.is_set():
            self._left_out.set()
            reason = " ".join(str(reason).split())
            log.warning("%s takes no metrics and is left out from here: %s", self._name, reason)

    def _run(self) -> None:
        try:
            tracker = self._make()
            while (line := self._lines.get()) is not None and not self._left_out.is_set():
                tracker.log(*line)
            tracker.close()
        except Exception as error:  # noqa: BLE001 - a tracker may raise anything and must not stop a run
            self._leave_out(error)


class _TensorBoard:
    """Event files, written here: tensorboardX's own writer thread dies of a full disk and then blocks its callers."""

    def __init__(self, folder: Path, tags: Callable[[str], str]) -> None:
        self._folder, self._tags = folder, tags
        self._writer: Any = None
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        """Make folder and file; where somebody deletes them at this moment, the next line tries again."""
        from tensorboardX.event_file_writer import EventsWriter

        with contextlib.suppress(FileNotFoundError):
            self._folder.mkdir(exist_ok=True)
            self._writer = EventsWriter(str(self._folder / "events"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        if self._writer is None or not self._folder.is_dir():
            # Deleted with the run's folder, which may be back.
            self.close()
            self._open()
        if self._writer is None:
            return
        for name, value in values.items():
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(self._tags(name), value)))
        self._writer.flush()

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


class _WandB:
    def __init__(self, run_dir: Path, config: Mapping[str, Any], project: str) -> None:
        import wandb

        id_file = run_dir / "wandb_id"
        kept = read_bytes(id_file, 64).decode("ascii", "replace").strip() if os.path.lexists(id_file) else ""
        run_id = kept if kept.isalnum() else secrets.token_hex(4)
        self._id_file, self._id = id_file, run_id
        id_file.write_text(run_id + "\n")
        self._run = wandb.init(
            dir=str(run_dir),
            project=os.environ.get("WANDB_PROJECT", project),
            name=run_dir.name,
            id=run_id,
            resume="allow",
            mode=wandb_mode(),  # type: ignore[arg-type]
            config=strict(dict(config)),
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, x_disable_stats=True, init_timeout=_CONNECT_SECONDS
            ),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)
        if not self._id_file.exists() and self._id_file.parent.is_dir():
            # Deleted with the run's folder, which is back.
            self._id_file.write_text(self._id + "\n")

    def close(self) -> None:
        self._run.finish()


def _scan(path: Path) -> tuple[list[tuple[bytes, dict[str, Any]]], list[bytes]]:
    """Return the lines that can be read, each as it stands and parsed, and those that cannot."""
    found, damaged = [], []
    with open_regular(path, _FILE_BYTES) as (file, _):
        for raw in file:
            line = _parsed(raw)
            if line is not None:
                found.append((raw.rstrip(b"\n") + b"\n", line))
            elif raw.endswith(b"\n") and raw.strip():
                damaged.append(raw)
    return found, damaged


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """Return what a line says, or None where no logger wrote it so."""
    if len(raw) > _LINE_BYTES:
        return None
    try:
        line = parse_json(raw)
    except ValueError:
        return None
    step = line.get("step") if isinstance(line, dict) else None
    return line if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None


def _drop_after(path: Path, step: int) -> None:
    found, damaged = _scan(path)
    if damaged:
        aside = path.with_name(DAMAGED_FILE)
        before = read_bytes(aside, _FILE_BYTES) if os.path.lexists(aside) else b""
        replace_file(aside, before + b"".join(damaged))
        log.warning("%d damaged lines of %s were moved to %s", len(damaged), path, DAMAGED_FILE)
    replace_file(path, b"".join(raw for raw, line in found if line["step"] <= step))
