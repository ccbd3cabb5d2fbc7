"""Compiled updates between starts: the same bits, whole entries only, a bound, and a run that goes on without them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from racer.training import compiled
from racer.training.compiled import KeptCompilations

RUN = ["-m", "racer", "train", "--world", "tmaze", "--agent", "ppo", "--config.memory=gru", "--num_envs", "4",
       "--config.rollout_length=16", "--config.num_minibatches=1", "--config.env.length=3", "--max_steps", "128",
       "--eval_interval", "0", "--noprogress", "--device", "cpu", "--policy_dir"]  # fmt: skip


def begin(folder: Path, home: Path, **environment: str) -> subprocess.Popen[str]:
    # Every compilation counts, not only those of more than a second.
    settings = {"XDG_CACHE_HOME": str(home), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    usual = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return subprocess.Popen(
        [sys.executable, *RUN, str(folder)], env={**usual, **settings, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def bits(program: subprocess.Popen[str], folder: Path) -> dict[str, bytes]:
    """The whole last checkpoint of a run that went well and complained of nothing on standard error."""
    _, errors = program.communicate(timeout=300)
    assert program.returncode == 0
    assert [line for line in errors.splitlines() if not line.startswith("compiling the update")] == []
    (checkpoint,) = (folder / "tmaze_run_42").glob("checkpoint_*")
    return {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}


def entries(home: Path) -> list[Path]:
    return sorted(home.glob("racer/xla/*/*.xla"))


def test_kept_compilations_change_no_bit_and_damaged_ones_are_made_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    alone = bits(begin(tmp_path / "off", home, JAX_ENABLE_COMPILATION_CACHE="false"), tmp_path / "off")
    assert entries(home) == []
    both = [begin(tmp_path / name, home) for name in ("one", "two")]
    found = [bits(program, tmp_path / name) for program, name in zip(both, ("one", "two"), strict=True)]
    kept = {path: path.read_bytes() for path in entries(home)}
    assert any("update" in path.name for path in kept)
    for path in list(kept)[::2]:
        path.write_bytes(path.read_bytes()[:-3])
    found.append(bits(begin(tmp_path / "three", home), tmp_path / "three"))
    again = {path: path.stat().st_mtime_ns for path in entries(home)}
    assert set(again) == set(kept)
    found.append(bits(begin(tmp_path / "four", home), tmp_path / "four"))
    # The last one found all that it needed.
    assert {path: path.stat().st_mtime_ns for path in entries(home)} == again
    assert all(found_bits == alone for found_bits in found)
    assert [path.name for path in home.glob("racer/xla/*/.*")] == []


def test_a_run_goes_on_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "home" / "racer").mkdir(parents=True)
    (tmp_path / "home" / "racer" / "xla").touch()
    assert bits(begin(tmp_path / "run", tmp_path / "home"), tmp_path / "run")


def test_entries_are_shared_whole_within_a_bound_and_what_a_killed_process_left_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "xla"
    first = KeptCompilations(shared)
    second = KeptCompilations(shared)
    assert first.own.is_dir()  # in use, so not taken for abandoned
    for i in range(3):
        (first.own / f"entry-{i}").write_bytes(bytes([i]) * 100)
    first.share()
    for i in range(3):
        os.utime(shared / f"entry-{i}.xla", ns=(i, i))
    assert not list(second.own.iterdir())
    third = KeptCompilations(shared)
    assert {path.name for path in third.own.iterdir()} == {"entry-0", "entry-1", "entry-2"}
    assert (third.own / "entry-1").read_bytes() == b"\x01" * 100
    monkeypatch.setattr(compiled, "_ALL_BYTES", 300)
    (third.own / "entry-3").write_bytes(b"3" * 100)
    third.share()
    assert sorted(path.name for path in shared.glob("*.xla")) == ["entry-2.xla", "entry-3.xla"]
    data = (shared / "entry-2.xla").read_bytes()
    (shared / "entry-2.xla").write_bytes(data[:-1] + b"x")
    os.close(second._lock)  # as the system does when a process is killed
    fourth = KeptCompilations(shared)
    assert {path.name for path in fourth.own.iterdir()} == {"entry-3"}
    assert not second.own.exists()
    for kept in (first, third, fourth):
        kept.close()
        assert not kept.own.exists()


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(OSError, match="can be written by others"):
        KeptCompilations(tmp_path / "open")


def test_code_is_kept_apart_by_processor_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC", "1")
    one = compiled._machine()
    monkeypatch.setenv("NPROC", "2")
    assert compiled._machine() != one
    monkeypatch.setenv("NPROC", "1")
    assert compiled._machine() == one
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "another")
    assert compiled._machine() != one
