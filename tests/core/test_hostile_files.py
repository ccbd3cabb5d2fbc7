"""Whatever lies on the disk, a reader gives what a writer of ours could have written or an error of one line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from racer.core.checkpoint import CheckpointError, read_checkpoint, verify_checkpoint, write_checkpoint
from racer.core.errors import UsageError
from racer.core.files import parse_json, read_bytes, read_json
from racer.core.manifest import sealed
from racer.core.metrics import DAMAGED_FILE, METRICS_FILE, MetricsLogger, read_metrics

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
ARRAYS = {"policy": {"kernel": np.arange(6.0)}, "agent": {"count": np.array(3)}}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)
HOSTILE_TEXT = ["1" * 5_000, "[" * 100_000, '{"a":' * 5_000, "[" * 65 + "]" * 65, "NaN", "-Infinity", "1e999"]
HOSTILE_TEXT += ["", "\x00", "\ufeff{}", "{} {}"]


@st.composite
def harms(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Damage to a file: bytes changed, lost, put in or doubled."""
    kind, where = draw(st.sampled_from(["change", "cut", "insert", "drop", "double"])), draw(st.floats(0, 1))
    extra = draw(st.binary(min_size=1, max_size=20))

    def harm(data: bytes) -> bytes:
        at = int(where * len(data))
        return {
            "change": data[:at] + extra + data[at + len(extra) :],
            "cut": data[:at],
            "insert": data[:at] + extra + data[at:],
            "drop": data[:at] + data[at + len(extra) :],
            "double": data[:at] + data[at // 2 :],
        }[kind]

    return harm


def one_line(error: Exception) -> None:
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 1_000


def finite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


@SHARED
@given(value=JSON)
def test_json_is_read_as_written_or_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    try:
        assert read_json(path) == value
    except UsageError as error:
        one_line(error)
        return
    assert finite(value)


@SHARED
@given(data=st.binary(max_size=200) | st.sampled_from([text.encode() for text in HOSTILE_TEXT]))
def test_any_bytes_are_json_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    try:
        assert finite(read_json(path))
    except UsageError as error:
        one_line(error)


@pytest.mark.parametrize("text", HOSTILE_TEXT)
def test_json_that_no_writer_makes_is_refused(text: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ValueError):
        parse_json(text)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "huge", "missing", "long", "null", "loop"])
def test_what_is_no_file_of_a_fit_size_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind == "long":
        path = tmp_path / ("x" * 300)
    elif kind == "null":
        path = tmp_path / "a\0b"
    elif kind == "loop":
        path.symlink_to(path)
    begun = time.monotonic()
    readers: list[Callable[[Path], Any]] = [read_json, read_metrics, lambda p: read_bytes(p, 1 << 20)]
    for read in readers:
        with pytest.raises(UsageError) as caught:
            read(path)
        one_line(caught.value)
    if kind != "null":
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(path)
        one_line(caught.value)
    assert time.monotonic() - begun < 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run"), 3, ARRAYS, {"seed": 1, "nested": {"a": [1, 2.5, None]}})


@SHARED
@given(harm=harms())
def test_a_damaged_manifest_is_refused_or_as_good(tmp_path: Path, whole: Path, harm: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "checkpoint_3"
    shutil.copytree(whole, path, dirs_exist_ok=True)
    (path / "manifest.json").write_bytes(harm((whole / "manifest.json").read_bytes()))
    check_arrays(path)


@SHARED
@given(key=st.sampled_from(["format", "step", "files", "metadata", "bytes", "sha256", "group"]), value=JSON)
def test_a_manifest_of_other_values_is_refused(tmp_path: Path, whole: Path, key: str, value: Any) -> None:
    path = tmp_path / "checkpoint_3"
    shutil.copytree(whole, path, dirs_exist_ok=True)
    manifest = json.loads((whole / "manifest.json").read_text())
    name = "policy.safetensors"
    holder, place = manifest, key
    if key == "group":
        holder, place = manifest["files"], name
    elif key in ("bytes", "sha256"):
        holder = manifest["files"][name]
    right = holder[place]
    fits = type(value) is type(right) and value == right
    # A checkpoint may hold no group, and any metadata.
    fits |= isinstance(value, dict) and (key == "metadata" or (key == "files" and not value))
    holder[place] = value
    with contextlib.suppress(ValueError):
        # What is no JSON cannot be summed.
        manifest = sealed(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert not check_arrays(path) or fits


@SHARED
@given(harm=harms())
def test_arrays_of_a_forged_sum_are_refused_or_arrays(
    tmp_path: Path, whole: Path, harm: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "checkpoint_3"
    shutil.copytree(whole, path, dirs_exist_ok=True)
    data = harm((whole / "policy.safetensors").read_bytes())
    (path / "policy.safetensors").write_bytes(data)
    manifest = json.loads((whole / "manifest.json").read_text())
    manifest["files"]["policy.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(sealed(manifest)))
    try:
        assert all(isinstance(a, np.ndarray) for a in read_checkpoint(path).groups["policy"].values())
    except CheckpointError as error:
        one_line(error)


def check_arrays(path: Path) -> bool:
    """Whether a checkpoint is read; what is read is what was written."""
    try:
        verify_checkpoint(path)
        found = read_checkpoint(path)
    except CheckpointError as error:
        one_line(error)
        return False
    for group, arrays in found.groups.items():
        assert {name: a.tobytes() for name, a in arrays.items()} == {n: a.tobytes() for n, a in ARRAYS[group].items()}
    return True


@SHARED
@given(harm=harms())
def test_damaged_metrics_lose_the_damaged_lines_only(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    lines = [json.dumps({"step": step, "time": 0.5, "a/b": step / 3}).encode() + b"\n" for step in range(20)]
    path = tmp_path / METRICS_FILE
    data = harm(b"".join(lines))
    path.write_bytes(data)
    found = iter(read_metrics(path))
    untouched = [json.loads(line) for line in data.splitlines(keepends=True) if line in lines]
    # In their order; a damaged line that is still one may stand between them, with any numbers.
    assert all(line in found for line in untouched)


@SHARED
@given(values=st.lists(JSON, max_size=5))
def test_metrics_of_any_json_are_read(tmp_path: Path, values: list[Any]) -> None:
    path = tmp_path / METRICS_FILE
    path.write_text("".join(json.dumps(value) + "\n" for value in [*values, {"step": 7}]))
    assert read_metrics(path)[-1] == {"step": 7}


def test_damaged_metrics_are_set_aside_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / METRICS_FILE
    bad = [b"\x00" * 40 + b"\n", b'{"step": 20, "a": NaN}\n', b"[1]\n", b'{"step": true}\n', b"\xff\xfe\n"]
    path.write_bytes(b'{"step": 10, "a": 1.0}\n' + b"".join(bad) + b'{"step": 20}\n{"step": 30}\n{"step": 40, "a')
    logger = MetricsLogger(tmp_path, truncate_after=20)
    assert f"{len(bad)} damaged lines" in caplog.text
    logger.log(30, {"a": 3})
    logger.close()
    assert [line["step"] for line in read_metrics(path)] == [10, 20, 30]
    assert path.read_bytes().startswith(b'{"step": 10, "a": 1.0}\n{"step": 20}\n')
    assert (tmp_path / DAMAGED_FILE).read_bytes() == b"".join(bad)
    MetricsLogger(tmp_path, truncate_after=20).close()
    assert (tmp_path / DAMAGED_FILE).read_bytes() == b"".join(bad)
