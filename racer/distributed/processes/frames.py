"""Framed messages on a socket: a kind, a length, and bytes that are arrays behind a JSON header.

The learner's side of every socket is non-blocking. A worker that dies, stops or hangs in the middle of a message
therefore costs the learner nothing but that message: no read and no write of it waits for a worker.
"""

from __future__ import annotations

import enum
import json
import socket
import struct
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from racer.core.errors import RacerError

__all__ = ["BrokenFrame", "Frame", "FrameReader", "FrameWriter", "Kind", "decode_arrays", "encode_arrays"]

_HEADER = struct.Struct("<BxxxxxxxQ")
_PREFIX = struct.Struct("<Q")
_MAX_HEADER = 1 << 26
_ALIGNMENT = 16


class BrokenFrame(RacerError):
    """Bytes that are no message of ours."""


class Kind(enum.IntEnum):
    """What a frame carries."""

    START = 1
    """To a worker, once: cloudpickled :class:`racer.distributed.processes.worker.WorkerStart`."""
    PARAMETERS = 2
    """To a worker: policy parameters with version and round."""
    ACKNOWLEDGE = 3
    """To a worker: one batch was taken from the queue, one more may be sent."""
    STOP = 4
    """To a worker: end now."""
    READY = 5
    """From a worker: the environments are built and have been reset."""
    HEARTBEAT = 6
    """From a worker between environment steps, and while it waits."""
    EXPERIENCE = 7
    """From a worker: one collected batch."""
    ERROR = 8
    """From a worker, its last word: what went wrong."""
    LOG = 9
    """From Ray's driver: a line for the log."""


class Frame(NamedTuple):
    """One message."""

    kind: Kind
    body: bytearray


class FrameReader:
    """Assembles frames from whatever bytes have arrived.

    Args:
        max_bytes: length beyond which a frame is not believed.
    """

    def __init__(self, max_bytes: int = 1 << 32) -> None:
        self._max_bytes = max_bytes
        self._header = bytearray(_HEADER.size)
        self._target = memoryview(self._header)
        self._filled = 0
        self._kind: Kind | None = None
        self._body = bytearray()

    def read(self, sock: socket.socket) -> Frame | None:
        """Take what ``sock`` has; return a frame once it is whole, None where more must come.

        Raises:
            EOFError: the other side is gone.
            BrokenFrame: the header is not one of ours.
        """
        while True:
            while self._filled < len(self._target):
                try:
                    count = sock.recv_into(self._target[self._filled :])
                except (BlockingIOError, InterruptedError):
                    return None
                except ConnectionError as error:
                    raise EOFError(str(error)) from error
                if count == 0:
                    raise EOFError("connection closed")
                self._filled += count
            if self._kind is None:
                kind, length = _HEADER.unpack(self._header)
                if kind not in Kind.__members__.values() or length > self._max_bytes:
                    raise BrokenFrame(f"frame of kind {kind} and {length} bytes")
                self._kind = Kind(kind)
                self._body = bytearray(length)
                self._target, self._filled = memoryview(self._body), 0
                continue
            frame = Frame(self._kind, self._body)
            self._kind, self._body = None, bytearray()
            self._target, self._filled = memoryview(self._header), 0
            return frame


class FrameWriter:
    """Frames waiting to be written. Parameters wait in a slot of one: only the latest is worth sending."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Kind, bytes | bytearray]] = deque()
        self._parameters: bytes | bytearray | None = None
        self._current: deque[memoryview] = deque()

    def push(self, kind: Kind, body: bytes | bytearray = b"") -> None:
        """Queue a frame; parameters replace those that have not begun to be written."""
        if kind == Kind.PARAMETERS:
            self._parameters = body
        else:
            self._queue.append((kind, body))

    @property
    def pending(self) -> bool:
        """Whether anything is left to write."""
        return bool(self._current or self._queue) or self._parameters is not None

    def flush(self, sock: socket.socket) -> None:
        """Write until done or until ``sock`` takes no more.

        Raises:
            EOFError: the other side is gone.
        """
        while self.pending:
            if not self._current:
                self._begin()
            try:
                count = sock.send(self._current[0])
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError as error:
                raise EOFError(str(error)) from error
            if count == len(self._current[0]):
                self._current.popleft()
            else:
                self._current[0] = self._current[0][count:]

    def _begin(self) -> None:
        if self._queue:
            kind, body = self._queue.popleft()
        else:
            assert self._parameters is not None
            kind, body, self._parameters = Kind.PARAMETERS, self._parameters, None
        self._current.append(memoryview(_HEADER.pack(kind, len(body))))
        if body:
            self._current.append(memoryview(body))


def encode_arrays(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytearray:
    """Write a JSON header and raw arrays into one block: each array is copied once.

    Args:
        header: anything JSON can say.
        arrays: of numbers or booleans; no objects.
    """
    layout: list[tuple[str, str, list[int], int]] = []
    offset = 0
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise BrokenFrame(f"array {name!r} holds Python objects")
        offset = -(-offset // _ALIGNMENT) * _ALIGNMENT
        layout.append((name, array.dtype.str, list(array.shape), offset))
        offset += array.nbytes
    text = json.dumps({"header": header, "arrays": layout}, separators=(",", ":")).encode()
    start = -(-(_PREFIX.size + len(text)) // _ALIGNMENT) * _ALIGNMENT
    block = bytearray(start + offset)
    _PREFIX.pack_into(block, 0, len(text))
    block[_PREFIX.size : _PREFIX.size + len(text)] = text
    for (_, _, shape, at), array in zip(layout, arrays.values(), strict=True):
        np.frombuffer(block, array.dtype, array.size, start + at).reshape(shape)[...] = array
    return block


def decode_arrays(block: bytearray | memoryview) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what :func:`encode_arrays` wrote; the arrays are views of ``block``.

    Raises:
        BrokenFrame: the block is not whole or not of this form.
    """
    try:
        (length,) = _PREFIX.unpack_from(block)
        if length > min(len(block), _MAX_HEADER):
            raise BrokenFrame(f"unreadable frame: a header of {length} bytes")
        text = json.loads(bytes(memoryview(block)[_PREFIX.size : _PREFIX.size + length]))
        start = -(-(_PREFIX.size + length) // _ALIGNMENT) * _ALIGNMENT
        arrays = {}
        for name, dtype, shape, at in text["arrays"]:
            kind = np.dtype(dtype)
            if kind.kind not in "biuf" or any(number < 0 for number in (*shape, at)):
                raise BrokenFrame(f"unreadable frame: array {name!r} of {dtype} {shape}")
            count = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(block, kind, count, start + at).reshape(shape)
        return text["header"], arrays
    except (struct.error, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BrokenFrame(f"unreadable frame: {error}") from error
