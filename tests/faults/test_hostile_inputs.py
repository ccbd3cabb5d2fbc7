"""Whatever is put before a program, it ends with exit code 2 and one line, or goes on: no reader is an exception."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hostile_inputs import READERS, Case, Outcome, build, files_in, judge, prepare, quiet
from hypothesis import HealthCheck, Phase, given, settings

ROOT = Path(__file__).parents[2]
# What a program takes to start, of this machine's time.
STARTED = 20.0


def few(count: int) -> settings:
    """Unseen inputs in each run, and no search for smaller ones: what is told names the case."""
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    return settings(max_examples=count, deadline=None, phases=phases, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("reader", READERS)
def test_a_hostile_input_is_one_line_or_accepted(reader: str) -> None:
    @few(12)
    @given(case=READERS[reader])
    def one(case: Case) -> None:
        with tempfile.TemporaryDirectory() as folder, quiet():
            outcome = judge(case, Path(folder))
        assert not outcome.complaints(), case.told

    one()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("reader", READERS)
def test_many_hostile_inputs_up_to_the_first_step(reader: str) -> None:
    @few(60)
    @given(case=READERS[reader])
    def one(case: Case) -> None:
        with tempfile.TemporaryDirectory() as folder, quiet():
            outcome = judge(case, Path(folder), build)
        assert not outcome.complaints(), case.told

    one()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("reader", READERS)
def test_the_real_programs_take_hostile_inputs(reader: str) -> None:
    """In processes of their own: time and memory are theirs, and runs that are accepted train and end."""

    @few(6)
    @given(case=READERS[reader])
    def one(case: Case) -> None:
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(case, Path(folder))
        assert not outcome.complaints(), case.told

    one()


def run(case: Case, folder: Path) -> Outcome:
    """Run a case through ``python -m racer``; one that trains is stopped once it is under way."""
    words = prepare(case, folder)
    before = files_in(folder)
    command = [sys.executable, "-m", "racer", *words]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    errors, stopped = folder.with_suffix(".stderr"), False
    with errors.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=file, text=True)
        deadline = time.monotonic() + 120.0
        while process.poll() is None and time.monotonic() < deadline:
            usage = _usage(process.pid)
            # Accepted: the run's line is on standard output once it is built.
            if usage > STARTED + 10.0 or (folder / "new" / "run.json").exists():
                stopped = True
                process.terminate()
                process.wait(timeout=60.0)
            time.sleep(0.05)
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10.0)
    text = errors.read_text()
    errors.unlink()
    after = files_in(folder)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    code = 0 if stopped and process.returncode in (143, 0) else process.returncode
    return Outcome(code, text, 0.0, 0.0, changed)


def _usage(pid: int) -> float:
    import psutil

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
