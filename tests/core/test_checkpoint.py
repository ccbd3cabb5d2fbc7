"""Checkpoints are whole or refused."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from racer.core.checkpoint import (
    CheckpointError,
    checkpoint_path,
    latest_valid_checkpoint,
    list_checkpoints,
    prune_checkpoints,
    read_checkpoint,
    recover_checkpoints,
    verify_checkpoint,
    write_checkpoint,
)
from racer.core.manifest import json_sum, sealed

GROUPS = {
    "policy": {"layer/kernel": np.arange(12, dtype=np.float32).reshape(3, 4)},
    "agent": {
        "key": np.array([7, 2**32 - 1], dtype=np.uint32),
        "count": np.array(3, dtype=np.int64),
        "value": np.array([0.1, np.nan, -0.0]),
        "flag": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
        "words": np.array([2**64 - 1], dtype=np.uint64),
    },
}


def save(run_dir: Path, step: int) -> Path:
    return write_checkpoint(run_dir, step, GROUPS, {"note": "x", "seed": 3})


def test_round_trip_is_exact(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save(tmp_path, 5))
    assert checkpoint.step == 5
    assert checkpoint.metadata == {"note": "x", "seed": 3}
    for group, arrays in GROUPS.items():
        assert set(checkpoint.groups[group]) == set(arrays)
        for name, array in arrays.items():
            got = checkpoint.groups[group][name]
            assert got.dtype == array.dtype
            assert got.shape == array.shape
            assert got.tobytes() == array.tobytes()
            assert got.flags.writeable
    assert set(read_checkpoint(checkpoint.path, ["policy"]).groups) == {"policy"}


def test_every_flipped_byte_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    for file in sorted(path.iterdir()):
        original = file.read_bytes()
        for position in range(0, len(original), 7):
            damaged = bytearray(original)
            damaged[position] ^= 0x10
            file.write_bytes(bytes(damaged))
            # A changed name of a file is another file that is missing; a changed format number another format.
            names = file.name if file.name != "manifest.json" else "manifest.json|safetensors|has format"
            with pytest.raises(CheckpointError, match=names):
                read_checkpoint(path)
        file.write_bytes(original)
    read_checkpoint(path)


@pytest.mark.parametrize("harm", ["truncate", "delete", "manifest", "empty"])
def test_damage_falls_back_loudly(tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    old, new = save(tmp_path, 10), save(tmp_path, 20)
    target = new / "agent.safetensors"
    if harm == "truncate":
        target.write_bytes(target.read_bytes()[:-3])
    elif harm == "delete":
        target.unlink()
    elif harm == "manifest":
        (new / "manifest.json").write_text("{")
    else:
        for file in new.iterdir():
            file.unlink()
    with caplog.at_level(logging.WARNING):
        assert latest_valid_checkpoint(tmp_path) == old
    assert "falling back to an older checkpoint" in caplog.text
    assert "checkpoint_20" in caplog.text
    shutil.rmtree(old)
    caplog.clear()
    # Said once, in the error: there is no older one to fall back to.
    with caplog.at_level(logging.WARNING), pytest.raises(CheckpointError, match="checkpoint_20"):
        latest_valid_checkpoint(tmp_path)
    assert caplog.text == ""


def test_no_valid_checkpoint_says_why(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder named"):
        latest_valid_checkpoint(tmp_path)
    (save(tmp_path, 1) / "policy.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"policy\.safetensors"):
        latest_valid_checkpoint(tmp_path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple:
            return (os.system, (f"touch {marker}",))

    path = save(tmp_path, 1)
    (path / "agent.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    bare = tmp_path / "policy.pkl"
    bare.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="pickle is never loaded"):
        read_checkpoint(bare)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [(99, "format 99, newer than this version"), (3, "newer"), (0, "format 0, which no version"), (True, "malformed"),
     (2.0, "malformed"), ("2", "malformed"), (None, "malformed"), (-1, "malformed"), (1, "malformed")],
)  # fmt: skip
def test_another_format_is_refused_by_name(tmp_path: Path, number: Any, words: str) -> None:
    path = save(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(sealed({**manifest, "format": number})))
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(path)


def test_the_manifest_holds_the_sum_of_the_rest_of_it(tmp_path: Path) -> None:
    file = save(tmp_path, 1) / "manifest.json"
    manifest = json.loads(file.read_text())
    assert manifest["format"] == 2
    found = manifest.pop("sha256")
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    assert found == json_sum(manifest) == hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps({"sha256": found, **dict(reversed(manifest.items()))}, indent=7))
    assert read_checkpoint(file.parent).metadata == {"note": "x", "seed": 3}
    manifest["metadata"]["seed"] = 4
    file.write_text(json.dumps({**manifest, "sha256": found}))
    with pytest.raises(CheckpointError, match=r"manifest\.json' is damaged: its SHA-256"):
        read_checkpoint(file.parent)
    file.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="malformed"):
        read_checkpoint(file.parent)


def test_format_1_is_read_and_written_anew_as_today(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["sha256"]
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    assert read_checkpoint(path).metadata == {"note": "x", "seed": 3}
    assert save(tmp_path, 1) == path
    assert json.loads((path / "manifest.json").read_text())["format"] == 2
    assert list_checkpoints(tmp_path) == [path]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/b.safetensors", "x.npy"])
def test_manifest_cannot_point_elsewhere(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"] = {name: {"bytes": 1, "sha256": "0" * 64}}
    (path / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(CheckpointError, match="malformed"):
        read_checkpoint(path)


def test_missing_checkpoint_names_its_neighbours(tmp_path: Path) -> None:
    save(tmp_path, 30)
    with pytest.raises(CheckpointError, match="holds checkpoint_30"):
        read_checkpoint(checkpoint_path(tmp_path, 31))


def test_retention_never_deletes_the_last_valid_one(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    (checkpoint_path(tmp_path, 3) / "agent.safetensors").write_bytes(b"")
    prune_checkpoints(tmp_path, keep=1)
    assert checkpoint_path(tmp_path, 2) in list_checkpoints(tmp_path)
    assert latest_valid_checkpoint(tmp_path) == checkpoint_path(tmp_path, 2)
    assert checkpoint_path(tmp_path, 1) not in list_checkpoints(tmp_path)


def test_failed_write_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, 2)
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 1)]
    assert not list(tmp_path.glob(".unfinished*"))


def test_kill_during_save_keeps_the_previous_one(tmp_path: Path) -> None:
    save(tmp_path, 1)
    code = """
        import os, sys, time
        from pathlib import Path
        import numpy as np
        import racer.core.checkpoint as c
        def slow(*args):
            print("saving", flush=True)
            time.sleep(60)
        c.fsync_folder = slow
        c.write_checkpoint(Path(sys.argv[1]), 2, {"agent": {"x": np.zeros(10)}}, {})
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "saving"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    left = next(iter(tmp_path.glob(".unfinished*")))
    assert latest_valid_checkpoint(tmp_path) == checkpoint_path(tmp_path, 1)
    assert recover_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 2)]
    assert not left.exists()
    assert read_checkpoint(latest_valid_checkpoint(tmp_path)).groups["agent"]["x"].shape == (10,)


def test_a_leftover_that_is_not_whole_is_deleted(tmp_path: Path) -> None:
    whole = save(tmp_path, 1)
    damaged = tmp_path / ".unfinished-2-17"
    shutil.copytree(whole, damaged)
    (damaged / "policy.safetensors").write_bytes(b"")
    os.rename(whole, tmp_path / "checkpoint_1.replaced")
    assert list_checkpoints(tmp_path) == [tmp_path / "checkpoint_1.replaced"]
    assert recover_checkpoints(tmp_path) == [whole]
    assert os.listdir(tmp_path) == ["checkpoint_1"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("step", [5, 6])
def test_kills_at_every_system_call_leave_a_whole_checkpoint(tmp_path: Path, step: int) -> None:
    """Killed before each call that a save and a retention of one make, then before each that the recovery makes."""
    program = [sys.executable, str(Path(__file__).with_name("kill_everywhere.py")), str(tmp_path), str(step)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kills = json.loads(done.stdout)
    assert kills["save"] > 15
    assert kills["recovery"] > 30
    assert set(kills["found"]) == {"old", "new"}


def test_a_save_of_the_same_is_not_written_again(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    before = {file.name: file.stat().st_ino for file in path.iterdir()}
    assert save(tmp_path, 5) == path
    assert {file.name: file.stat().st_ino for file in path.iterdir()} == before
    write_checkpoint(tmp_path, 5, GROUPS, {"note": "y"})
    assert read_checkpoint(path).metadata == {"note": "y"}
    groups = {**GROUPS, "policy": {"layer/kernel": np.zeros(3)}}
    write_checkpoint(tmp_path, 5, groups, {"note": "y"})
    assert read_checkpoint(path).groups["policy"]["layer/kernel"].shape == (3,)
    (path / "agent.safetensors").write_bytes(b"")
    write_checkpoint(tmp_path, 5, groups, {"note": "y"})
    assert set(read_checkpoint(path).groups) == {"policy", "agent"}
    assert os.listdir(tmp_path) == ["checkpoint_5"]


class Summed:
    """Counts the bytes of files that are read to be summed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.files: list[str] = []
        digest = hashlib.file_digest

        def counting(file: Any, name: str) -> Any:
            self.files.append(Path(file.name).name)
            return digest(file, name)

        patch.setattr(hashlib, "file_digest", counting)


def test_retention_sums_nothing_that_this_process_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summed = Summed(monkeypatch)
    for step in range(1, 6):
        save(tmp_path, step)
        prune_checkpoints(tmp_path, keep=3)
    assert summed.files == []
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint_3", "checkpoint_4", "checkpoint_5"]


def test_retention_sums_what_another_process_wrote_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(save(tmp_path / "other", 1), tmp_path / "run" / "checkpoint_1")
    summed = Summed(monkeypatch)
    for step in (2, 3):
        save(tmp_path / "run", step)
        prune_checkpoints(tmp_path / "run", keep=9)
    assert sorted(summed.files) == ["agent.safetensors", "policy.safetensors"]
    file = tmp_path / "run" / "checkpoint_1" / "agent.safetensors"
    file.write_bytes(bytes(len(file.read_bytes())))
    with pytest.raises(CheckpointError, match="SHA-256"):
        verify_checkpoint(file.parent)


def test_only_the_groups_that_are_wanted_are_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["replay.safetensors"] = {"bytes": 1 << 36, "sha256": "0" * 64}
    (path / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with (path / "replay.safetensors").open("wb") as file:
        file.truncate(1 << 36)
    begun = time.monotonic()
    assert latest_valid_checkpoint(tmp_path, ["policy"]) == path
    assert set(read_checkpoint(path, ["policy"]).groups) == {"policy"}
    assert time.monotonic() - begun < 5
    os.truncate(path / "replay.safetensors", 3)
    with pytest.raises(CheckpointError, match="3 bytes instead"):
        latest_valid_checkpoint(tmp_path, ["policy"])


def test_a_folder_must_hold_the_step_of_its_name(tmp_path: Path) -> None:
    path = save(tmp_path, 600)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["step"] = 10**9
    (path / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(CheckpointError, match="against its name"):
        read_checkpoint(path)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path, 1)
    for name in ("policy.safetensors", "manifest.json"):
        file = path / name
        file.unlink()
        if kind == "fifo":
            os.mkfifo(file)
        elif kind == "device":
            file.symlink_to("/dev/zero")
        else:
            file.mkdir()
        with pytest.raises(CheckpointError, match=f"{name}.*(regular|directory)"):
            read_checkpoint(path)


@pytest.mark.slow
def test_thousands_of_mutated_checkpoints(tmp_path: Path) -> None:
    """Error or correct load; never a crash, a hang or wrong values."""
    path, rng = save(tmp_path, 1), np.random.default_rng(0)
    originals = {file: file.read_bytes() for file in path.iterdir()}
    loaded = 0
    for _ in range(5000):
        file = list(originals)[rng.integers(len(originals))]
        data = bytearray(originals[file])
        for _ in range(rng.integers(1, 6)):
            kind, at = rng.integers(4), int(rng.integers(len(data)) if data else 0)
            if kind == 0 and data:
                data[at] = rng.integers(256)
            elif kind == 1:
                del data[at:]
            elif kind == 2:
                data[at:at] = rng.bytes(int(rng.integers(1, 40)))
            else:
                del data[at : at + int(rng.integers(1, 20))]
        file.write_bytes(bytes(data))
        begun = time.monotonic()
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError:
            pass
        else:
            loaded += 1
            for group, arrays in checkpoint.groups.items():
                for name, array in arrays.items():
                    assert array.tobytes() == GROUPS[group][name].tobytes()
        assert time.monotonic() - begun < 5
        file.write_bytes(originals[file])
    assert loaded < 5000
