"""The training program on a Ray cluster, to its end: signals, a lost head or node, the client server."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from cluster_kit import ACTORS_GONE_WITHIN, actors, wait_until

from racer.core.checkpoint import latest_valid_checkpoint, read_checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from test_training_programs import DISTRIBUTED, ROOT, TINY_DISTRIBUTED, environment


def command(folder: Path, *flags: str) -> list[str]:
    """The real program on a cluster."""
    return [
        sys.executable, f"scripts/sim/{DISTRIBUTED}", *TINY_DISTRIBUTED, "--backend", "ray", "--progress=false",
        "--step_timeout", "60", "--policy_dir", str(folder), "--run_name", "run", *flags,
    ]  # fmt: skip


def begin(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def saved_step(folder: Path) -> int:
    """The newest checkpoint's step; what it counts is what its replay holds."""
    checkpoint = read_checkpoint(latest_valid_checkpoint(folder / "run"))
    transitions = int(checkpoint.metadata["loop"]["transitions"])
    assert int(checkpoint.groups["replay"]["counts"][0]) == transitions
    return transitions


def resumed(folder: Path, address: str, steps: int, *flags: str) -> None:
    """Go on until the run has so many steps."""
    words = [sys.executable, f"scripts/sim/{DISTRIBUTED}", "--resume", str(folder / "run"), "--progress=false"]
    words += ["--ray_address", address, "--max_steps", str(steps), *flags]
    result = subprocess.run(
        words, cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr
    assert saved_step(folder) >= steps


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_learner_that_is_ended_leaves_no_actor_and_goes_on_from_its_checkpoint(tmp_path, nodes, number, code):
    """Also with another number of workers, as on a smaller cluster."""
    found = nodes(2)
    program = begin(
        command(tmp_path, "--ray_address", found.address, "--max_steps", "1000000", "--save_interval", "500")
    )
    try:
        wait_until(
            lambda: program.poll() is not None or len(list(tmp_path.glob("run/checkpoint_*"))) >= 2, 200, "checkpoints"
        )
        assert program.poll() is None, program.communicate()[1]
        assert len(actors()) == 2
        program.send_signal(number)
        _, errors = program.communicate(timeout=60)
    finally:
        program.kill()
    assert program.returncode == code, errors
    wait_until(lambda: not actors(), ACTORS_GONE_WITHIN, "no actor left")
    assert "Traceback" not in errors
    resumed(tmp_path, found.address, saved_step(tmp_path) + 300, "--num_workers", "1")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_time_limit_that_ends_every_process_leaves_a_checkpoint(tmp_path, nodes):
    """SLURM sends SIGTERM to all of a step: to the learner, to Ray's driver, to the workers and to Ray itself."""
    found = nodes(2)
    program = begin(
        command(tmp_path, "--ray_address", found.address, "--max_steps", "1000000", "--save_interval", "100000")
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    try:
        wait_until(
            lambda: program.poll() is not None or (metrics.exists() and len(metrics.read_text().splitlines()) >= 4),
            200, "lines",
        )  # fmt: skip
        assert program.poll() is None, program.communicate()[1]
        assert not list(tmp_path.glob("run/checkpoint_*"))
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, errors = program.communicate(timeout=120)
    finally:
        program.kill()
    assert program.returncode == 143, errors
    assert "Traceback" not in errors
    wait_until(lambda: not actors(), ACTORS_GONE_WITHIN, "no actor left")
    assert saved_step(tmp_path) > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lost", ["the head", "our node"])
def test_a_lost_head_or_node_ends_the_run_in_order_and_it_goes_on_on_another_cluster(tmp_path, nodes, lost):
    first = nodes(2)
    flags = ["--max_steps", "1000000", "--save_interval", "500", "--startup_timeout", "90"]
    program = begin(command(tmp_path, "--ray_address", first.address, *flags))
    try:
        wait_until(
            lambda: program.poll() is not None or len(list(tmp_path.glob("run/checkpoint_*"))) >= 1, 200, "a checkpoint"
        )
        assert program.poll() is None, program.communicate()[1]
        if lost == "the head":
            first.kill_head()
        else:
            first.cluster.head_node.kill_raylet()
        before = saved_step(tmp_path)
        _, errors = program.communicate(timeout=240)
    finally:
        program.kill()
    assert program.returncode == 1, errors
    assert "Traceback" not in errors
    assert re.search(r"^error: .* and for 90 s \(startup_timeout\) .*; go on with --resume", errors, re.MULTILINE)
    wait_until(lambda: not actors(), ACTORS_GONE_WITHIN, "no actor left")
    assert saved_step(tmp_path) >= before
    second = nodes(1)
    resumed(tmp_path, second.address, saved_step(tmp_path) + 300, "--num_workers", "1")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_head_that_is_lost_in_the_middle_of_a_publication_and_comes_back(tmp_path, nodes):
    """Ray ends the process of its driver then. The learner has another one: the run goes on by itself."""
    first = nodes(2)
    port = int(first.address.rpartition(":")[2])
    flags = ["--max_steps", "1000000", "--save_interval", "300", "--policy_update_frequency", "1000"]
    program = begin(command(tmp_path, "--ray_address", first.address, *flags))
    try:
        for _ in range(2):
            have = len(list(tmp_path.glob("run/checkpoint_*"))) and saved_step(tmp_path)
            wait_until(
                lambda have=have: program.poll() is not None
                or (list(tmp_path.glob("run/checkpoint_*")) and saved_step(tmp_path) > have),
                200, "a checkpoint",
            )  # fmt: skip
            assert program.poll() is None, program.communicate()[1]
            first.kill_head()
            first.close()
            first = nodes(2, gcs_server_port=port)
        have = saved_step(tmp_path)
        wait_until(lambda: program.poll() is not None or saved_step(tmp_path) > have + 300, 200, "more checkpoints")
        program.send_signal(signal.SIGTERM)
        _, errors = program.communicate(timeout=60)
    finally:
        program.kill()
    assert program.returncode == 143, errors
    assert "Traceback" not in errors
    assert errors.count("going on once a Ray cluster answers") == 2
    wait_until(lambda: not actors(), ACTORS_GONE_WITHIN, "no actor left")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_through_the_client_server(tmp_path, nodes, monkeypatch):
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    nodes(2, ray_client_server_port=port)
    program = begin(command(tmp_path, "--ray_address", f"ray://127.0.0.1:{port}", "--max_steps", "600"))
    try:
        _, errors = program.communicate(timeout=300)
    finally:
        program.kill()
    assert program.returncode == 0, errors
    assert saved_step(tmp_path) >= 600
    wait_until(lambda: not actors(), ACTORS_GONE_WITHIN, "no actor left")
