"""What a program shows: lines on standard output and error that may be lost without ending it.

A run outlives its display. Where a stream is closed, its disk full or its reader gone, the stream's file descriptor is
turned to the null device, so that everything that writes there afterwards (a progress bar, a logger, a child process)
is ignored rather than stopped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO, cast

__all__ = ["OutlivedStream", "outlived_streams", "said_if_slow", "write_line"]


class OutlivedStream:
    """A text stream whose failures are kept to itself; everything but writing is the wrapped stream's.

    Args:
        stream: the text stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: str | None = None

    def write(self, text: str) -> int:
        """Write a text, or as much of it as the stream's encoding has; returns its length in any case."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:
            self._turn_away(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._turn_away(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _turn_away(self, error: Exception) -> None:
        """Turn the stream's descriptor to the null device; what it holds back would fail again at exit otherwise."""
        if self.failure is not None:
            return
        self.failure = getattr(error, "strerror", None) or str(error)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, self._stream.fileno())
            finally:
                os.close(null)
            self._stream.flush()


@contextlib.contextmanager
def outlived_streams() -> Iterator[None]:
    """Make standard output and error harmless while a program runs.

    A program that was started with one of them closed gets the null device there; otherwise the next file that it
    opens would take the descriptor, and with it whatever a library prints. That standard output was lost is said on
    standard error at the end, unless its reader left, as ``head`` does.
    """
    _open_missing()
    before = sys.stdout, sys.stderr
    out, err = (s if isinstance(s, OutlivedStream) else OutlivedStream(s) for s in before)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield
    finally:
        out.flush()
        if out.failure not in (None, os.strerror(errno.EPIPE)):
            write_line(f"warning: standard output was lost: {out.failure}", error=True)
        err.flush()
        sys.stdout, sys.stderr = before


def write_line(text: str, *, error: bool = False) -> None:
    """Write one line (or several, joined) to standard output, or to standard error; never fails."""
    stream = sys.stderr if error else sys.stdout
    if stream is None:
        return
    safe = stream if isinstance(stream, OutlivedStream) else OutlivedStream(stream)
    safe.write(text + "\n")
    safe.flush()


@contextlib.contextmanager
def said_if_slow(text: str, seconds: float) -> Iterator[None]:
    """Write a line to standard error if what is within takes longer than some seconds."""
    timer = threading.Timer(seconds, write_line, [text], {"error": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _open_missing() -> None:
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is the one that is missing.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
