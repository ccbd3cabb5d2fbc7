"""Launchers: places, devices, what a kill leaves, and the scripts for clusters. Jobs are stand-ins that take no JAX."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from racer.__main__ import main
from racer.core.errors import UsageError
from racer.sweeps.execute import BUSY
from racer.sweeps.job import Job
from racer.sweeps.launchers.devices import find_devices, oversubscription
from racer.sweeps.launchers.local import Launch, launch
from racer.sweeps.launchers.onager import prelaunch_words
from racer.sweeps.launchers.ray_tasks import launch_on_ray
from racer.sweeps.launchers.slurm import SlurmArray, array_script
from racer.sweeps.manifest import plan_jobs, write_manifest
from racer.sweeps.reader import read_hyperfile

ROOT = Path(__file__).parents[2]

STAND_IN = """
import json, os, sys, time
folder, log, index, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
names = ("CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_MEM_FRACTION", "JAX_PLATFORMS")
begun = time.time()
time.sleep(seconds)
if index == int(os.environ.get("FAILING", -1)):
    print("first words"); print("error: it is broken"); sys.exit(2)
if index == int(os.environ.get("BUSY", -1)) and not os.path.exists(log + ".busy"):
    open(log + ".busy", "w").close(); sys.exit(75)
line = {"index": index, "begun": begun, "ended": time.time(), **{name: os.environ.get(name) for name in names}}
with open(log, "a") as file:
    file.write(json.dumps(line) + "\\n")
os.makedirs(folder, exist_ok=True)
for name in ("metrics.parquet", "DONE"):
    open(os.path.join(folder, name), "w").close()
"""


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    path = tmp_path / "study.py"
    args = {"agent": "ppo", "world": "tmaze_2", "max_steps": 100}
    path.write_text(f"hparams = {{'args': [{{**{args!r}, 'seed': list(range(12))}}]}}")
    return plan_jobs(read_hyperfile(path))


def stand_in(tmp_path: Path, jobs: list[Job], seconds: float) -> tuple[Launch, Path]:
    script, log = tmp_path / "stand_in.py", tmp_path / "ran.jsonl"
    script.write_text(STAND_IN)
    results = tmp_path / "results"

    def command(manifest: Path, index: int, results: Path) -> list[str]:
        folder = results / jobs[index].study / jobs[index].id
        return [sys.executable, "-S", str(script), str(folder), str(log), str(index), str(seconds)]

    pool = find_devices("0,1,2,3", 1)
    return Launch(tmp_path / "m.jsonl", jobs, results, pool, range(len(jobs)), command), log


def ran(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def most_at_once(lines: list[dict[str, Any]], device: str | None = None) -> int:
    mine = [line for line in lines if device in (None, line["CUDA_VISIBLE_DEVICES"])]
    return max(sum(other["begun"] <= line["begun"] < other["ended"] for other in mine) for line in mine)


def test_twelve_tasks_on_four_devices_are_three_each(tmp_path: Path, jobs: list[Job]) -> None:
    plan, log = stand_in(tmp_path, jobs, 0.3)
    outcome = launch(plan)
    assert (outcome.exit_code, outcome.failed, len(outcome.finished)) == (0, {}, 12)
    lines = ran(log)
    devices = [line["CUDA_VISIBLE_DEVICES"] for line in lines]
    assert {device: devices.count(device) for device in devices} == dict.fromkeys("0123", 3)
    assert all(most_at_once(lines, device) == 1 for device in "0123")
    assert {line["XLA_PYTHON_CLIENT_MEM_FRACTION"] for line in lines} == {"0.9000"}


def test_oversubscription_shares_devices_and_blocks(tmp_path: Path, jobs: list[Job]) -> None:
    plan, log = stand_in(tmp_path, jobs, 0.4)
    pool = find_devices("0,1,2,3", oversubscription(None, {"OVERSUB": "2"}))
    assert launch(Launch(plan.manifest, jobs, plan.results, pool, plan.indices, plan.command)).exit_code == 0
    lines = ran(log)
    assert 4 < most_at_once(lines) <= 8
    assert all(most_at_once(lines, device) <= 2 for device in "0123")
    assert {line["XLA_PYTHON_CLIENT_MEM_FRACTION"] for line in lines} == {"0.4500"}


def test_failures_are_told_with_their_last_line_and_busy_jobs_are_asked_again(
    tmp_path: Path, jobs: list[Job], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert BUSY == 75
    plan, log = stand_in(tmp_path, jobs[:4], 0.0)
    monkeypatch.setenv("FAILING", "2")
    monkeypatch.setenv("BUSY", "1")
    outcome = launch(plan)
    assert (outcome.exit_code, outcome.failed, outcome.finished) == (1, {2: "error: it is broken"}, {0, 1, 3})
    assert "job 2 failed: error: it is broken" in capfd.readouterr().err
    monkeypatch.delenv("FAILING")
    again = launch(plan)
    assert (again.exit_code, len(again.finished)) == (0, 4)
    assert sorted(line["index"] for line in ran(log)) == [0, 1, 2, 3]


def test_decided_jobs_are_not_run(tmp_path: Path, jobs: list[Job]) -> None:
    plan, log = stand_in(tmp_path, jobs, 0.0)

    def decide(finished: Any) -> dict[int, str]:
        return dict.fromkeys(range(6, 12), "worse") if len(finished) >= 2 else {}

    pool = find_devices("0", 1)
    outcome = launch(Launch(plan.manifest, jobs, plan.results, pool, plan.indices, plan.command, decide))
    assert set(outcome.skipped) == set(range(6, 12))
    assert outcome.skipped[6] == "worse"
    assert len(ran(log)) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_launcher_that_is_ended_loses_no_finished_job(tmp_path: Path, jobs: list[Job], number: int) -> None:
    plan, log = stand_in(tmp_path, jobs, 0.5)
    write_manifest(plan.manifest, jobs)
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_launchers import stand_in
        from racer.sweeps.launchers.local import launch
        from racer.sweeps.manifest import read_manifest
        folder = Path({str(tmp_path)!r})
        sys.exit(launch(stand_in(folder, read_manifest(folder / "m.jsonl"), 0.5)[0]).exit_code)
    """))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    deadline = time.monotonic() + 60.0
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.send_signal(number)
    code = parent.wait(timeout=60.0)
    assert code == (130 if number == signal.SIGINT else -9)
    time.sleep(1.0)
    before = ran(log)
    assert 0 < len(before) < 12
    assert launch(plan).exit_code == 0
    lines = ran(log)
    assert lines[: len(before)] == before
    assert sorted(line["index"] for line in lines) == list(range(12))


def test_devices_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("0,0", "", "0,;rm", "1,,2"):
        with pytest.raises(UsageError, match="--devices"):
            find_devices(given, 1)
    with pytest.raises(UsageError, match="OVERSUB"):
        find_devices("cpu", 0)
    with pytest.raises(UsageError, match="OVERSUB must be a whole number"):
        oversubscription(None, {"OVERSUB": "many"})
    assert [device.name for device in find_devices("auto", 1, {"CUDA_VISIBLE_DEVICES": "2,5"}).devices] == ["2", "5"]
    assert find_devices("cpu", 3).devices[0].environment["JAX_PLATFORMS"] == "cpu"


@pytest.mark.parametrize("values", [{}, {"gpus": 4, "partition": "GPU", "time": "48:00:00", "at_once": 8}, {"cpus": 6}])
def test_the_array_script_is_bash_and_never_says_none(tmp_path: Path, values: dict[str, Any]) -> None:
    array = SlurmArray(jobs_per_task=64, **values)
    text = array_script(array, "pilot", tmp_path / "it's a manifest.jsonl", Path("results"), 162)
    path = tmp_path / "array.slurm"
    path.write_text(text)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert "None" not in text
    assert f"#SBATCH --array=0-2{'%8' if values.get('at_once') else ''}\n" in text
    assert f"#SBATCH --cpus-per-task={values.get('cpus', 1)}\n" in text
    assert ("#SBATCH --gres=gpu:4\n#SBATCH --mem-per-gpu=32G\n" in text) == ("gpus" in values)
    assert ("#SBATCH --mem-per-cpu=2G\n" in text) == ("gpus" not in values)
    assert f"OVERSUB:-{16 if 'gpus' in values else values.get('cpus', 1)}}}" in text
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(i < first for i, line in enumerate(lines) if line.startswith("#SBATCH"))


def test_slurm_options_that_slurm_would_not_take() -> None:
    for values in ({"partition": "a b"}, {"time": "soon"}, {"memory": "lots"}, {"gpus": -1}, {"log_folder": "a b"}):
        with pytest.raises(UsageError, match=next(iter(values))):
            SlurmArray(**values)


def test_the_word_none_asks_slurm_for_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.py").write_text("hparams = {'args': [{'env': 'tmaze_1', 'total_steps': 160}]}")
    manifest, script = tmp_path / "study.jsonl", tmp_path / "array.slurm"
    assert main(["sweep", "plan", str(tmp_path / "study.py"), "--output", str(manifest)]) == 0
    words = ["--manifest", str(manifest), "--output", str(script), "--log_folder", str(tmp_path / "logs")]
    names = ("partition", "account", "memory", "oversub", "at_once")
    assert main(["sweep", "slurm", *words, *(f"--{name}=None" for name in names)]) == 0
    given = script.read_text()
    assert main(["sweep", "slurm", *words]) == 0
    assert given == script.read_text()
    assert main(["sweep", "slurm", *words, "--at_once", "many"]) == 2
    assert "'many'" in capsys.readouterr().err


def test_what_a_command_of_sweep_does_not_know_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "verify", "--manifest", "M", "--rowz", "3"]) == 2
    assert "did you mean '--rows'?" in capsys.readouterr().err
    assert main(["sweep", "status", "--manifest", "M", "three"]) == 2
    assert "unexpected argument 'three'" in capsys.readouterr().err


def test_onager_gets_every_index_and_no_exclusion() -> None:
    words = prelaunch_words("study", Path("runs/study.jsonl"), Path("results"), 3)
    command = "python -m racer sweep run --manifest runs/study.jsonl --results results"
    assert words == ["onager", "prelaunch", "+jobname", "study", "+command", command, "+arg", "--index", "0", "1", "2"]


@pytest.mark.skipif(shutil.which("onager") is None, reason="LOUD: onager is not installed: pip install onager")
def test_real_onager_takes_every_job_and_its_launch(tmp_path: Path, jobs: list[Job]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}

    def run(*words: str) -> str:
        # Onager asks once whether it may write below this folder.
        done = subprocess.run(words, cwd=tmp_path, env=environment, input="y\n", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = run(sys.executable, str(ROOT / "scripts" / "onager_write_jobs.py"), "study.py")
    command = "python -m racer sweep run --manifest runs/study.jsonl --results results --index"
    assert [line for line in listed.splitlines() if line.startswith(command)] == [f"{command} {i}" for i in range(12)]
    launched = run(str(ROOT / "scripts" / "launching" / "onager_slurm_launch.sh"), "study", "--dry-run")
    assert "-t 1-00:00:00 -n 2 " in launched
    assert "--array=1,2,3,4,5,6,7,8,9,10,11,12 " in launched


@pytest.mark.parametrize("script", ["directory_prelaunch.sh", "launching/single_slurm_job.sh",
                                    "launching/onager_slurm_launch.sh"])  # fmt: skip
def test_shell_scripts_say_how_they_are_used(script: str) -> None:
    path = ROOT / "scripts" / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    done = subprocess.run([str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_a_slurm_job_without_its_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("{}\n")
    script = ROOT / "scripts" / "launching" / "single_slurm_job.sh"
    done = subprocess.run([str(script), "m.jsonl"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "which job of m.jsonl?" in done.stderr


class FakeRay:
    """Runs a task where it is asked for it, with the calls of Ray that the launcher makes.

    Args:
        losing: which of the tasks is lost with its machine, from 0; None for none.
    """

    def __init__(self, losing: int | None = None) -> None:
        self.options_seen: dict[str, Any] = {}
        self.exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))
        self.lost: Any = None
        self._losing, self._given = losing, 0

    def is_initialized(self) -> bool:
        return True

    def remote(self, function: Any) -> Any:
        owner = self

        class Task:
            def options(self, **values: Any) -> Any:
                owner.options_seen = values
                return self

            def remote(self, *arguments: Any) -> Any:
                reference = (lambda: function(*arguments), len(arguments[0]), arguments[1])
                if owner._given == owner._losing:
                    owner.lost = reference
                owner._given += 1
                return reference

        return Task()

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return references[:1], references[1:]

    def get(self, reference: Any) -> int:
        if self.lost == reference:
            raise self.exceptions.RayError
        return reference[0]()

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}


def test_ray_tasks_run_the_same_command(tmp_path: Path, jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, log = stand_in(tmp_path, jobs[:3], 0.0)
    monkeypatch.setenv("FAILING", "1")
    fake = FakeRay()
    outcome = launch_on_ray(plan.manifest, jobs[:3], plan.results, [0, 1, 2], ray=fake, command=plan.command)
    assert (outcome.exit_code, outcome.failed, outcome.finished) == (1, {1: "error: it is broken"}, {0, 2})
    assert fake.options_seen["max_retries"] == 0
    assert len(ran(log)) == 2


def test_a_ray_task_that_is_lost_is_told_and_one_that_somebody_else_runs_is_asked_for_again(
    tmp_path: Path, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, log = stand_in(tmp_path, jobs[:3], 0.0)
    monkeypatch.setenv("BUSY", "0")
    arguments = (plan.manifest, jobs[:3], plan.results, [0, 1, 2])
    outcome = launch_on_ray(*arguments, ray=FakeRay(losing=1), command=plan.command)
    assert (outcome.exit_code, outcome.finished) == (1, {0, 2})
    assert outcome.failed == {1: "its Ray task was lost (RayError); run it again to go on"}
    assert launch_on_ray(*arguments, ray=FakeRay(), command=plan.command).exit_code == 0
    assert sorted(line["index"] for line in ran(log)) == [0, 1, 2]


def test_a_job_that_no_machine_of_the_cluster_has_room_for_is_refused(tmp_path: Path, jobs: list[Job]) -> None:
    plan, _ = stand_in(tmp_path, jobs[:1], 0.0)
    for gpus, words in ((0.5, "a job needs 0.5 GPUs, and the Ray cluster has 0"), (1.5, "fraction"), (-1.0, "fraction"),
                        (float("nan"), "fraction")):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            launch_on_ray(plan.manifest, jobs[:1], plan.results, [0], ray=FakeRay(), num_gpus=gpus)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--launcher", "ray", "--oversub", "2"], "--oversub is of --launcher local"),
        (["--launcher", "ray", "--devices", "0"], "--devices is of --launcher local"),
        (["--launcher", "ray", "--early_by", "lr"], "--early_by is of --launcher local"),
        (["--ray_gpus", "0.5"], "--ray_gpus is of --launcher ray"),
    ],
)
def test_flags_that_a_launcher_does_not_look_at_are_refused(
    tmp_path: Path, jobs: list[Job], flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(tmp_path / "m.jsonl", jobs)
    where = ["--manifest", str(tmp_path / "m.jsonl"), "--results", str(tmp_path / "results")]
    assert main(["sweep", "run", *where, *flags]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, jobs: list[Job]) -> None:
    try:
        import ray  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match="pip install"):
            launch_on_ray(tmp_path / "m", jobs, tmp_path, [0])
    else:
        pytest.skip("LOUD: Ray is installed here, so its absence cannot be tested")


@pytest.mark.slow
def test_real_ray_runs_jobs(tmp_path: Path, jobs: list[Job]) -> None:
    pytest.importorskip("ray", reason="LOUD: Ray is not installed: pip install -e '.[ray]'")
    plan, log = stand_in(tmp_path, jobs, 0.1)
    assert launch_on_ray(plan.manifest, jobs, plan.results, plan.indices, command=plan.command).exit_code == 0
    assert sorted(line["index"] for line in ran(log)) == list(range(12))
