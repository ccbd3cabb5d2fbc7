"""Reads the weights out of an ONNX file: the few parts of its format (protocol buffers) that hold named tensors.

Nothing of the file is executed. Every length is checked against the bytes that are there before anything is sliced.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["NotOnnx", "read_tensors"]

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto's own.
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_FLOAT = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class NotOnnx(ValueError):
    """The bytes are no ONNX model that holds its weights itself."""


def read_tensors(data: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the float32 tensors of an ONNX model by name.

    Raises:
        NotOnnx: saying what is wrong.
    """
    view = memoryview(data)
    graphs = [value for number, value in _fields(view) if number == _GRAPH and isinstance(value, memoryview)]
    if len(graphs) != 1:
        raise NotOnnx(f"it holds {len(graphs)} graphs instead of one")
    found: dict[str, NDArray[np.float32]] = {}
    for number, value in _fields(graphs[0]):
        if number == _INITIALIZER and isinstance(value, memoryview):
            tensor = _tensor(value)
            if tensor is not None:
                found[tensor[0]] = tensor[1]
    if not found:
        raise NotOnnx("its graph holds no weights")
    return found


def _tensor(view: memoryview) -> tuple[str, NDArray[np.float32]] | None:
    """Return name and values of a float32 tensor with raw data; None for any other."""
    shape: list[int] = []
    kind, name, raw = 0, "", None
    for number, value in _fields(view):
        if number == _DIMS:
            shape += _varints(value) if isinstance(value, memoryview) else [value]
        elif number == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == _NAME and isinstance(value, memoryview):
            name = bytes(value).decode("utf-8", "replace")
        elif number == _RAW_DATA and isinstance(value, memoryview):
            raw = value
    if kind != _FLOAT or raw is None:
        return None
    if len(shape) > 8 or 4 * math.prod(shape) != len(raw):
        raise NotOnnx(f"tensor {name!r} has {len(raw)} bytes, which do not fit its shape {shape}")
    return name, np.frombuffer(raw, "<f4").reshape(shape).astype(np.float32)


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Go through the fields of a message: number, and a number or bytes."""
    place = 0
    while place < len(view):
        key, place = _varint(view, place)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise NotOnnx("a field has no number")
        if wire == _VARINT:
            value, place = _varint(view, place)
            yield number, value
            continue
        if wire == _BYTES:
            length, place = _varint(view, place)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise NotOnnx(f"a field is of the unknown kind {wire}")
        if length > len(view) - place:
            raise NotOnnx("it ends in the middle of a field")
        yield number, view[place : place + length]
        place += length


def _varints(view: memoryview) -> list[int]:
    found, place = [], 0
    while place < len(view):
        value, place = _varint(view, place)
        found.append(value)
    return found


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(view):
            raise NotOnnx("it ends in the middle of a number")
        byte = view[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise NotOnnx("a number has too many bytes")
