"""The study of positional encodings: counts, figures of a run, tables of the published format, the SLURM array."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.core.files import write_json
from racer.sweeps.manifest import plan_jobs, read_manifest
from racer.sweeps.reader import read_hyperfile
from racer.sweeps.results import Row, job_folder, write_results

ROOT = Path(__file__).parents[2]
HEADER = "features,lr,epochs,hidden_dim,batch,final_reward,max_reward,training_steps"
FOLDER = ROOT / "scripts" / "rope"


def run(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(FOLDER / name), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def common() -> Any:
    spec = importlib.util.spec_from_file_location("rope_common", FOLDER / "common.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_studies_have_as_many_rows_as_the_published_ones(tmp_path: Path) -> None:
    done = run(tmp_path, "main.py", "--count")
    assert done.returncode == 0, done.stderr
    assert [line.split(" rows")[0] for line in done.stdout.splitlines()] == [
        "pilot: 162", "grid_270: 270", "grid_540: 540", "compare: 360",
    ]  # fmt: skip
    # 270 rows hold 162 distinct trainings, as the published ones did.
    assert "grid_270: 270 rows, 162 distinct trainings" in done.stdout


def test_the_slurm_command_as_it_is_typed(tmp_path: Path) -> None:
    done = run(tmp_path, "main.py", "--generate-slurm", "--slurm-gpus", "4", "--slurm-partition", "GPU",
               "--slurm-time", "48:00:00", "--n-jobs-per-task", "64")  # fmt: skip
    assert done.returncode == 0, done.stderr
    script = tmp_path / "slurm_jobs" / "experiments_array.slurm"
    text = script.read_text()
    for line in ("--gres=gpu:4", "--partition=GPU", "--time=48:00:00", "--cpus-per-task=1", "--mem-per-gpu=1G"):
        assert f"#SBATCH {line}\n" in text
    jobs = read_manifest(tmp_path / "runs" / "rope_pilot.jsonl")
    assert sum(len(job.members) for job in jobs) == 162
    assert f"#SBATCH --array=0-{math.ceil(len(jobs) / 64) - 1}\n" in text
    assert "None" not in text
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def test_what_slurm_would_not_take_leaves_no_manifest(tmp_path: Path) -> None:
    done = run(tmp_path, "main.py", "--generate-slurm", "--slurm-partition", "G PU")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "'partition' cannot be 'G PU'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_as_run_never_shuffles_and_measures_as_it_did(tmp_path: Path) -> None:
    done = run(tmp_path, "main.py", "--study", "compare", "--variant", "as_run", "--seeds", "12", "--steps", "9000",
               "--plan-only")  # fmt: skip
    assert done.returncode == 0, done.stderr
    jobs = read_manifest(tmp_path / "runs" / "rope_compare_as_run.jsonl")
    # Sorted and shuffled were one thing.
    assert {job.arguments["tag.condition"] for job in jobs} == {"sorted", "rank", "distance", "rotary", "attention"}
    assert sum(len(job.members) for job in jobs) == 5 * 12
    assert {job.config["env"]["row_order"] for job in jobs} == {"sorted"}
    encodings = [job.config["agent_config"]["positional_encoding"] for job in jobs]
    assert {encoding["variant"] for encoding in encodings if encoding} == {"as_run"}
    assert {tuple(encoding["metres"]) for encoding in encodings if encoding} == {(100.0, 100.0)}
    assert run(tmp_path, "main.py", "--study", "compare", "--seeds", "61").returncode == 2


def test_figures_of_a_run_are_the_published_definitions(common: Any) -> None:
    returns = np.array([10.0, 130.0, *[100.0] * 9, 119.0, 121.0])
    steps = np.arange(1, 14) * 1000.0
    found = common.scores(steps, returns)
    averages = [np.mean(returns[max(0, i - 9) : i + 1]) for i in range(13)]
    assert found["final_reward"] == pytest.approx(averages[-1])
    assert found["max_reward"] == pytest.approx(max(averages))
    assert (found["steps_to_thr"], found["reached_thr"], found["training_steps"]) == (2000.0, 1.0, 13000.0)
    area = sum((a + b) / 2.0 for a, b in itertools.pairwise(returns)) / 12.0
    assert found["auc"] == pytest.approx(area)
    assert math.isnan(common.scores(steps, np.minimum(returns, 119.0))["steps_to_thr"])
    with pytest.raises(UsageError, match="without evaluations"):
        common.scores(np.array([]), np.array([]))


def published(folder: Path) -> Path:
    rng, lines = np.random.default_rng(0), [HEADER]
    for features in ("presence,x,y,vx,vy", "x,y,vx,vy", "x,y,vx,vy,cos_h,sin_h"):
        for lr in (1e-4, 3e-4):
            for epochs in (4, 6, 8):
                for hidden in (64, 128, 256):
                    for batch in (32, 64, 128):
                        value = 100.0 + hidden / 16.0 + rng.normal()
                        lines.append(f'"{features}",{lr},{epochs},{hidden},{batch},{value:.4f},{value + 5:.4f},243000')
    path = folder / "published.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_tables_of_the_published_format(tmp_path: Path, common: Any) -> None:
    path = published(tmp_path)
    rows = common.read_csv(path)
    assert len(rows) == 162
    done = run(tmp_path, "analysis.py", "--csv", str(path), "--write_csv", "again.csv")
    assert done.returncode == 0, done.stderr
    titles = ["Overall", "By features", "By lr", "By epochs", "By hidden", "By batch"]
    assert [line for line in done.stdout.splitlines() if line in titles] == titles
    mean = np.mean([row["final_reward"] for row in rows if row["hidden_dim"] == 64])
    line = next(line for line in done.stdout.splitlines() if line.startswith("64 ") and " 54 " in line)
    assert line.split()[1:3] == ["54", f"{mean:.2f}"]
    assert common.read_csv(tmp_path / "again.csv") == rows


@pytest.mark.parametrize(("name", "count", "conditions"), [("rope_pilot", 162, 1), ("rope_compare", 360, 6)])
def test_tables_of_what_the_repository_keeps(tmp_path: Path, name: str, count: int, conditions: int) -> None:
    done = run(tmp_path, "analysis.py", "--csv", str(ROOT / "benchmarks" / "results" / f"{name}.csv"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert next(line for line in lines if line.startswith("all ")).split()[1] == str(count)
    begin = lines.index("By condition") + 2
    assert lines[begin:].index("") == conditions
    assert any(line.startswith("Share of runs with an evaluation of at least 120") for line in lines)


def test_another_study_is_refused(tmp_path: Path) -> None:
    args = {"agent": "ppo", "world": "tmaze_2", "max_steps": 100}
    (tmp_path / "other.py").write_text(f"hparams = {{'args': [{args!r}]}}")
    (job,) = plan_jobs(read_hyperfile(tmp_path / "other.py"))
    folder = job_folder(tmp_path / "results", job)
    folder.mkdir(parents=True)
    write_json(folder / "config.json", job.record)
    write_results(folder, job, [Row(job.members[0], 1, "evaluation/return", 1.0)])
    done = run(tmp_path, "analysis.py", "results/other")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "not of positional encodings" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [("a,b\n1,2\n", ":1: columns are missing"),
     (f"{HEADER}\nx,fast,1,2,3,4,5,6\n", ":2: lr must be"),
     (f"{HEADER}\n", "there are no rows")],
)  # fmt: skip
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "wrong.csv").write_text(text)
    done = run(tmp_path, "analysis.py", "--csv", "wrong.csv")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr


@pytest.mark.slow
def test_a_small_study_runs_and_is_analysed(tmp_path: Path) -> None:
    done = run(tmp_path, "main.py", "--study", "compare", "--seeds", "2", "--steps", "4096")
    assert done.returncode == 0, done.stderr
    analysed = run(tmp_path, "analysis.py", "results/rope_compare")
    assert analysed.returncode == 0, analysed.stderr
    assert "By condition" in analysed.stdout
    assert "sorted - shuffled" in analysed.stdout
