"""Inputs that are easily taken in silence, or end in a traceback, a hang or a lack of memory: one line each."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from ml_collections import ConfigDict

import racer.__main__ as program
from racer.core.manifest import sealed
from racer.core.memory import memory_limit
from racer.replay.ring_buffer import RingReplayBuffer

ROOT = Path(__file__).parents[2]
STORED = Path(__file__).parents[1] / "data" / "format_2"
Arrays = dict[str, np.ndarray]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    begun = time.process_time()
    assert program.main(list(words)) == 2
    assert time.process_time() - begun < 10.0
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert len(line) < 2_500
    return line


def forged(folder: Path, agent: str, change: Callable[[Arrays], None]) -> Path:
    """A stored run whose policy's arrays somebody changed, sums and all."""
    run = shutil.copytree(STORED / agent, folder / "run")
    file = run / "checkpoint_32" / "policy.safetensors"
    arrays = {name: np.array(array) for name, array in safetensors.numpy.load_file(file).items()}
    change(arrays)
    data = safetensors.numpy.save(arrays)
    file.write_bytes(data)
    manifest = json.loads((file.parent / "manifest.json").read_text())
    manifest["files"][file.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (file.parent / "manifest.json").write_text(json.dumps(sealed(manifest)))
    return run


def put(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.update({name: change(arrays[name])})


KERNEL, BIAS = "trunk/hidden_0/kernel", "trunk/hidden_0/bias"
POLICIES = {
    "nan": (put(KERNEL, lambda a: np.full_like(a, np.nan)), "is not finite"),
    "infinite": (put("action_high", lambda a: np.full_like(a, np.inf)), "'action_high' is not finite"),
    "int8": (put(KERNEL, lambda a: a.astype(np.int8)), "is int8, not float32"),
    "float64": (put(BIAS, lambda a: a.astype(np.float64)), "is float64, not float32"),
    "missing": (lambda arrays: arrays.pop(BIAS), BIAS),
    "broadcast bias": (put(BIAS, lambda a: a[:1]), "has shape [1], not [4]"),
    "broadcast mean": (put("mean/kernel", lambda a: a[:, :1]), "has shape [4, 1], not [4, 2]"),
    "broadcast bounds": (put("action_low", lambda a: a[:1]), "has shape [1], not [2]"),
    "stack of kernels": (put(KERNEL, lambda a: np.stack([a, a])), "has shape [2, "),
    "no axis": (put(BIAS, lambda a: np.array(a[0])), "has shape []"),
}


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("agent", ["sac", "ppo"])
def test_a_policy_of_other_arrays_is_refused(tmp_path, capsys, agent, kind):
    change, expected = POLICIES[kind]
    run = forged(tmp_path, agent, change)
    words = ["--num_episodes=1", "--render=false", "--video_output_dir", str(tmp_path)]
    line = refused(capsys, "evaluate", str(run), *words)
    assert "checkpoint_32" in line
    assert expected in line


@pytest.mark.parametrize("number", ["0", "-1", "1000001", "1000000000000", "9" * 300])
def test_episodes_have_a_limit(tmp_path, capsys, number):
    run = str(STORED / "sac")
    words = ["--render=false", "--video_output_dir", str(tmp_path), "--num_episodes", number]
    line = refused(capsys, "evaluate", run, *words)
    assert "num_episodes must be at least 1 and at most 1000000" in line
    assert refused(capsys, "export", run, str(tmp_path / "given"), "--episodes", number)


def new(folder: Path, *words: str, agent: str = "sac") -> list[str]:
    return ["train", "--policy_dir", str(folder), "--run_name", "new", "--device=cpu", "--noprogress",
            f"--agent={agent}", *words]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config.policy_steps=9"], "policy_steps (9) must be no more than utd_ratio (8)"),
        (["--config.policy_steps=3", "--utd_ratio=2"], "policy_steps (3) must be no more than utd_ratio (2)"),
        (["--eval_episodes=1000000000000"], "eval_episodes"),
        (["--replay_buffer_size=1000000000000"], "does not fit into memory"),
        (["--config.num_qs=10000000"], "num_qs"),
        (["--config.actor_hidden_dims=(10000000000,)"], "actor_hidden_dims"),
        (["--config.actor_hidden_dims=(65536,65536,65536)"], "does not fit into memory: choose smaller widths"),
        (["--config.env.simulation_frequency=1000000000"], "simulation_frequency"),
        (["--config.env.observation.order=bogus"], "observation.order"),
        (["--config.env.scaling=nan"], "scaling"),
        (["--config.discount=None"], "discount"),
        (["--config.env.vehicles_count=None"], "vehicles_count"),
        (["--seed=" + "9" * 5_000], "seed"),
        (["--config.discount=" + "9" * 5_000], "discount"),
        (["--run_name=" + "x" * 300], "run name"),
    ],
)
def test_a_new_run_that_cannot_be_is_one_line_and_leaves_nothing(tmp_path, capsys, words, expected):
    assert expected in refused(capsys, *new(tmp_path, *words))
    assert not list(tmp_path.iterdir())


def test_a_replay_says_what_would_fit():
    with pytest.raises(ValueError, match=r"does not fit into memory; \d+ would \(replay_buffer_size\)") as caught:
        RingReplayBuffer(10**13, (15, 6), (2,))
    fits = int(str(caught.value).split("memory; ")[1].split()[0])
    assert 0.5 * memory_limit() < fits * 4 * (2 * 90 + 2 + 3 + 2) < memory_limit()
    RingReplayBuffer(fits, (15, 6), (2,))


CONFIGS = {
    "ends the program": ("import sys\nsys.exit(0)", "it ends the program"),
    "ends it later": ("def get_config():\n    raise SystemExit(0)", "it ends the program"),
    "a list": ("def get_config():\n    return [1]", "list"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_file_that_gives_none_is_refused(tmp_path, capsys, kind):
    text, expected = CONFIGS[kind]
    (tmp_path / "config.py").write_text(text)
    line = refused(capsys, "train", "--policy_dir", str(tmp_path / "runs"), "--config", str(tmp_path / "config.py"))
    assert expected in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("file", ["config", "run.json", "manifest.json", "policy.safetensors", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["fifo", "/dev/zero"])
def test_what_is_no_file_is_refused_at_once(tmp_path, capsys, file, kind):
    run = shutil.copytree(STORED / "sac", tmp_path / "run")
    places = {"config": tmp_path / "config.py", "run.json": run / file, "metrics.jsonl": run / file}
    path = places.get(file, run / "checkpoint_32" / file)
    path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "fifo" else path.symlink_to(kind)
    words = ["--config", str(path)] if file == "config" else ["--resume", str(run), "--max_steps", "40"]
    assert "not a regular file" in refused(capsys, "train", "--device=cpu", "--noprogress", *words)


def test_none_can_be_said_on_the_command_line(tmp_path, monkeypatch):
    """Also for keys whose default in a config file is a number or a text."""
    from racer.training import run as training

    seen: list[ConfigDict] = []
    monkeypatch.setattr(training, "run_training", lambda plan, progress: seen.append(plan.spec.agent_config) or 0)
    config = ROOT / "scripts" / "sim" / "configs" / "highway_distributional_config.py"
    words = ["--config.q_entropy_target_diff=None", "--config.target_entropy=None", "--config.view=None",
             "--config.critic_weight_decay=None", "--config.lr_decay_steps=None"]  # fmt: skip
    assert program.main(["train", "--policy_dir", str(tmp_path), f"--config={config}", "--device=cpu", *words]) == 0
    (found,) = seen
    names = ("q_entropy_target_diff", "target_entropy", "view", "critic_weight_decay")
    assert [found[name] for name in names] == [None] * 4


# Becomes the program, with interrupts heeded: a suite in the background is started with them ignored.
HEEDING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    "command",
    [["scripts/sim/train_highway_states.py"], ["scripts/sim/run_highway_policy.py"], ["-m", "racer", "train"]],
)
def test_an_interrupt_during_the_imports_ends_in_silence(command):
    """Sent once NumPy's library is mapped: everything else is still to be imported."""
    words = [sys.executable, "-c", HEEDING, *command, "--agent", "sac", "--resume", "nowhere"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        maps, deadline = Path(f"/proc/{process.pid}/maps"), time.monotonic() + 60.0
        while process.poll() is None and "_multiarray_umath" not in maps.read_text():
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60.0)
    assert (process.returncode, errors) == (130, "")
