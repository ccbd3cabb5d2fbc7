"""Frames: whole messages out of any splitting of bytes, latest parameters win, nothing but our own is read."""

from __future__ import annotations

import socket
import struct

import numpy as np
import pytest

from racer.distributed.processes.frames import BrokenFrame, FrameReader, FrameWriter, Kind, decode_arrays, encode_arrays


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_arrays_survive_with_dtype_shape_and_bits():
    arrays = {
        "a": np.array([[np.nan, -0.0], [np.inf, 1e-45]], np.float32),
        "empty": np.zeros((0, 3), np.int64),
        "flags": np.array([True, False, True]),
        "scalar": np.array(7, np.uint64),
        "strided": np.arange(12, dtype=np.float64).reshape(3, 4)[:, ::2],
    }
    header, got = decode_arrays(encode_arrays({"n": 3, "inf": float("inf")}, arrays))
    assert header == {"n": 3, "inf": float("inf")}
    assert list(got) == list(arrays)
    for name, value in arrays.items():
        assert got[name].dtype == value.dtype
        assert got[name].shape == value.shape
        assert got[name].tobytes() == value.tobytes()


def test_objects_are_not_sent():
    with pytest.raises(BrokenFrame, match="objects"):
        encode_arrays({}, {"a": np.array([object()])})


@pytest.mark.parametrize("cut", [0, 4, 20, 60])
def test_a_cut_block_is_an_error(cut):
    block = encode_arrays({"x": 1}, {"a": np.arange(10.0)})
    with pytest.raises(BrokenFrame):
        decode_arrays(block[: cut or -1])


def test_frames_arrive_whole_from_single_bytes(pair):
    ours, theirs = pair
    writer, reader = FrameWriter(), FrameReader()
    captured = bytearray()

    class Recorder:
        def send(self, data):
            captured.extend(data)
            return len(data)

    writer.push(Kind.EXPERIENCE, b"abc")
    writer.push(Kind.HEARTBEAT)
    writer.push(Kind.EXPERIENCE, b"defg")
    writer.flush(Recorder())
    got = []
    for byte in captured:
        ours.send(bytes([byte]))
        while (frame := reader.read(theirs)) is not None:
            got.append((frame.kind, bytes(frame.body)))
    assert got == [(Kind.EXPERIENCE, b"abc"), (Kind.HEARTBEAT, b""), (Kind.EXPERIENCE, b"defg")]


def test_a_full_socket_keeps_the_rest_and_only_the_latest_parameters(pair):
    ours, theirs = pair
    writer, reader = FrameWriter(), FrameReader()
    size = 1 << 20
    for number in range(5):
        writer.push(Kind.PARAMETERS, bytes([number]) * size)
        writer.flush(ours)
    writer.push(Kind.ACKNOWLEDGE)
    assert writer.pending
    got = []
    while writer.pending or not got or got[-1][1] != b"\4":
        writer.flush(ours)
        while (frame := reader.read(theirs)) is not None:
            got.append((frame.kind, bytes(frame.body[:1])))
            assert len(frame.body) in (0, size)
    # The first had begun to be written; those between it and the last were never worth sending.
    assert got == [(Kind.PARAMETERS, b"\0"), (Kind.ACKNOWLEDGE, b""), (Kind.PARAMETERS, b"\4")]


def test_a_closed_end_raises_eof_after_the_last_whole_frame(pair):
    ours, theirs = pair
    writer, reader = FrameWriter(), FrameReader()
    writer.push(Kind.EXPERIENCE, b"whole")
    writer.flush(ours)
    ours.send(b"\x07\0\0")
    ours.close()
    assert bytes(reader.read(theirs).body) == b"whole"
    with pytest.raises(EOFError):
        reader.read(theirs)


def test_foreign_bytes_are_refused(pair):
    ours, theirs = pair
    ours.send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(BrokenFrame):
        FrameReader().read(theirs)


def test_more_than_was_agreed_is_refused_before_it_takes_memory(pair):
    ours, theirs = pair
    ours.send(struct.pack("<BxxxxxxxQ", Kind.EXPERIENCE, 1 << 32))
    with pytest.raises(BrokenFrame, match="4294967296 bytes"):
        FrameReader(1 << 20).read(theirs)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"{}", b"null", b'{"header": 1, "arrays": [["a", "O", [1], 0]]}',
                                  b'{"header": 1, "arrays": [["a", "<f4", [-1], 0]]}',
                                  b'{"header": 1, "arrays": [["a", "<f4", [1], -9]]}',
                                  b'{"header": 1, "arrays": [["a", "<f4", [99999999999999999999], 0]]}'])  # fmt: skip
def test_hostile_headers_are_broken_frames(text):
    with pytest.raises(BrokenFrame):
        decode_arrays(bytearray(struct.pack("<Q", len(text)) + text + bytes(64)))
    with pytest.raises(BrokenFrame):
        decode_arrays(bytearray(struct.pack("<Q", 1 << 60) + bytes(64)))
