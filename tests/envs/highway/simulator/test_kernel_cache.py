"""Whatever becomes of the files of compiled kernels, they compute, and nothing that others wrote is loaded."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from racer.envs.highway.simulator.cache import KernelCache, cache_folder

ROOT = Path(__file__).parents[4]
SOURCE = "from racer.envs.highway.simulator.compiled import entry\n@entry\ndef double(x):\n    return 2 * x\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "cache"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(path))
    monkeypatch.setenv("RACER_KERNEL_CACHE_REPORTED", "0")
    (tmp_path / "doubling.py").write_text(SOURCE)
    cache_folder.cache_clear()
    yield path
    cache_folder.cache_clear()


def load(tmp_path: Path) -> Any:
    """Import the module anew, as another process would."""
    cache_folder.cache_clear()
    spec = importlib.util.spec_from_file_location("doubling", tmp_path / "doubling.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["doubling"] = module
    spec.loader.exec_module(module)
    return module.double


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.nb?") if path.is_file())


def hits(function: Any) -> int:
    return sum(function.stats.cache_hits.values())


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["BOMB"],)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "flipped": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "foreign": lambda data: b"x" * 1_000,
    "pickle": lambda data: pickle.dumps(Bomb()),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
def test_damaged_files_are_compiled_again(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, damage: str, ending: str
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "bomb"))
    assert load(tmp_path)(3) == 6
    again = load(tmp_path)
    assert again(3) == 6
    assert hits(again) == 1
    for path in kept(folder):
        if path.suffix == ending:
            path.write_bytes(DAMAGE[damage](path.read_bytes()))
    repaired = load(tmp_path)
    assert repaired(3) == 6
    assert hits(repaired) == 0
    last = load(tmp_path)
    assert last(3) == 6
    assert hits(last) == 1
    assert not (tmp_path / "bomb").exists()


def test_a_full_disk_is_outlived_and_said_once(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Any, path: str) -> None:
        raise OSError(28, "No space left on device")

    function = load(tmp_path)
    monkeypatch.setattr(type(function._cache._cache_file), "_open_for_write", full)
    assert function(3) == 6
    assert function(1.5) == 3.0
    assert [r.message for r in caplog.records if "not kept" in r.message] == [caplog.records[0].message]
    assert "No space left" in caplog.text
    assert not kept(folder)


@pytest.mark.parametrize("kind", ["shared", "file", "missing", "foreign"])
def test_a_folder_that_is_not_the_users_alone_is_not_used(
    tmp_path: Path, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "shared":
        folder.chmod(0o777)
    elif kind == "file":
        folder.rmdir()
        folder.touch()
    elif kind == "missing":
        monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/none/cache")
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert load(tmp_path)(3) == 6
    assert load(tmp_path)(3) == 6
    assert len([r for r in caplog.records if "not kept" in r.message]) == 1
    assert not (folder.is_dir() and kept(folder))


def test_the_usual_folder_is_the_users(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert load(tmp_path)(3) == 6
    made = tmp_path / "home" / "racer" / "numba"
    assert made.stat().st_mode & 0o777 == 0o700
    assert kept(made)


def test_the_kernels_are_kept_so() -> None:
    from racer.envs.highway.simulator.simulator import step_batch

    cache_type = type(step_batch._cache)
    assert cache_folder() is None or cache_type is KernelCache


@pytest.mark.slow
def test_a_training_starts_without_a_place_for_its_kernels(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "HOME")}
    environment |= {"XDG_CACHE_HOME": "/proc/none", "HOME": "/proc/none", "PYTHONDONTWRITEBYTECODE": "1"}
    words = ["--agent", "ppo", "--policy_dir", str(tmp_path), "--run_name", "run", "--max_steps", "64",
             "--config.rollout_length=8", "--num_envs", "8", "--eval_interval", "0", "--noprogress"]  # fmt: skip
    command = [sys.executable, "-m", "racer", "train", *words]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("not kept") == 1
