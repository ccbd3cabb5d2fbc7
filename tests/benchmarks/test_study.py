"""The program of the studies: what it keeps, what it prints, and that the documents show what it printed."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "benchmarks" / "study.py"


def program(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"racer_{path.stem}_program", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return program(PROGRAM)


def run_of(row: str, seed: int, transitions: int, value: float = 1.0, rate: float = 0.5) -> dict[str, Any]:
    evaluation = {
        "mean_return": value, "cvar_return": value, "mean_length": 200.0, "mean_forward_speed": 36.0,
        "collision_rate": rate, "collision_rate_low": 0.4, "collision_rate_high": 0.6, "off_road_rate": 0.0,
        "spin_share": 0.0, "mean_return_low": value - 2.0, "mean_return_high": value + 2.0,
    }  # fmt: skip
    return {
        "row": row, "seed": seed, "transitions": transitions, "gradient_steps": 10, "seconds": 60.0,
        "training_collisions": 3, "training_episodes": 5, "fast_from": None, "evaluation": evaluation,
        "worst_exploit": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["risk", "highway", "levels"])
def test_results_page_shows_what_the_study_printed(study: ModuleType, name: str) -> None:
    document = json.loads((ROOT / "benchmarks" / "results" / f"study_{name}.json").read_text())
    page = (ROOT / "docs" / "results.md").read_text().splitlines()
    shown = study.table(document["runs"], study.planner_return(name))
    printed = [*shown.splitlines(), *study.speeds(document["runs"]).splitlines()]
    missing = [line for line in printed if line not in page and f"    {line}" not in page]
    assert not missing, "docs/results.md differs from benchmarks/results: " + "\n".join(missing)


def test_results_page_shows_what_the_drivers_reach() -> None:
    document = json.loads((ROOT / "benchmarks" / "results" / "drivers.json").read_text())
    page = (ROOT / "docs" / "results.md").read_text().splitlines()
    missing = [
        line
        for line in program(PROGRAM.with_name("drivers.py")).table(document["rows"]).splitlines()
        if line not in page
    ]
    assert not missing, "docs/results.md differs from benchmarks/results: " + "\n".join(missing)


def test_intervals_are_over_seeds_from_three_on(study: ModuleType) -> None:
    one, two, three = (
        [run_of("ppo", seed, 100, value, rate) for seed, value, rate in values]
        for values in (
            [(1, 10.0, 0.5)],
            [(1, 10.0, 0.5), (2, 20.0, 0.1)],
            [(1, 10.0, 0.5), (2, 20.0, 0.1), (3, 30.0, 0.0)],
        )
    )
    assert study.figure(one, "mean_return") == "10.0 ± 2.0"
    assert study.figure(one, "collision_rate") == "50.0% [40.0, 60.0]"
    assert study.figure(two, "mean_return") == "15.0"
    assert study.figure(two, "collision_rate") == "30.0%"
    # Student's 97.5 % quantile with two degrees of freedom is 4.3027; the standard error is 10 / sqrt(3).
    assert study.figure(three, "mean_return") == "20.0 ± 24.8"
    assert study.figure(three, "collision_rate") == "20.0% [0.0, 85.7]"


def test_a_policy_of_every_level_has_a_line_for_each(study: ModuleType) -> None:
    [row] = study.STUDIES["levels"]()
    assert row.lines == [f"cvar at 0.{n}" for n in range(1, 10)]
    old, new = [run_of("cvar at 0.2", 1, 100, 1.0)], [run_of("cvar at 0.1", 1, 100, 2.0)]
    assert [run["row"] for run in study.joined(old, new, [row])] == ["cvar at 0.1", "cvar at 0.2"]
    [line] = study.table(old, planner=4.0).splitlines()[2:]
    assert "| 25% |" in line


def test_new_figures_replace_old_ones_and_keep_the_rest(study: ModuleType) -> None:
    rows = study.STUDIES["highway"]()
    old = [run_of("ppo", 1, 100, 1.0), run_of("ppo-careful", 1, 100, 2.0)]
    new = [run_of("ppo", 1, 100, 3.0), run_of("ppo", 2, 50, 4.0)]
    found = [(run["row"], run["seed"], run["evaluation"]["mean_return"]) for run in study.joined(old, new, rows)]
    assert found == [("ppo", 2, 4.0), ("ppo", 1, 3.0), ("ppo-careful", 1, 2.0)]


def test_a_stage_comes_after_the_runs_that_it_goes_on_from(study: ModuleType) -> None:
    rows = study.STUDIES["highway"]()
    by_name = {row.name: row for row in rows}
    assert [row.name for row in study.stages_before(by_name["ppo-cautious"], rows)] == ["ppo", "ppo-careful"]
    assert study.stages_before(by_name["ppo"], rows) == []


def test_a_row_that_is_asked_for_is_trained_after_its_stages(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, int]] = []
    monkeypatch.setattr(study, "train", lambda args, row, seed: trained.append((row.name, seed)))
    flags = ["--rows", "ppo-cautious", "--seeds", "3", "4", "--jobs", "1", "--runs", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["study.py", "highway", *flags])
    assert study.main() == 2  # nothing was trained, so there is nothing to evaluate
    assert trained == [(name, seed) for name in ("ppo", "ppo-careful", "ppo-cautious") for seed in (3, 4)]


def test_a_stage_is_not_evaluated(study: ModuleType) -> None:
    row = study.Row("first", (), 100, 100)
    assert study.is_kept(row, 100)
    assert not study.is_kept(dataclasses.replace(row, is_stage=True), 100)


def test_a_short_run_is_evaluated_at_its_end(study: ModuleType) -> None:
    row = study.Row("only", (), 1000, 500)
    assert [step for step in (100, 300, 310, 500, 1000) if study.is_kept(row, step, 1000)] == [500, 1000]
    assert [step for step in (100, 310) if study.is_kept(row, step, 300)] == [310]


def test_costs_are_read_from_the_log(study: ModuleType, tmp_path: Path) -> None:
    lines = [
        {"step": step, "time": float(time), "training/episodes": step // 10, "training/collisions": step // 100,
         "training/gradient_steps": step * 2, "training/mean_forward_speed": speed}
        for step, time, speed in [(100, 0, 36), (200, 10, 34), (300, 20, 36), (400, 5000, 37), (500, 5010, 33)]
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    # The pause between 300 and 400 is one between two sessions of the run.
    log = study.metric_lines(tmp_path)
    assert study.cost(log, 400) == {
        "transitions": 400, "gradient_steps": 800, "seconds": 20.0, "training_collisions": 4, "training_episodes": 40
    }  # fmt: skip
    assert study.fast_from(log, 400) == {"transitions": 300, "seconds": 20.0}
    assert study.fast_from(log, 500) is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["risk", "--rows", "cvar-0.3"], "it has cvar-0.0, cvar-0.25"),
        (["trials", "--rows", "courteous-gru-two-types"], "is a stage of 'courteous-gru'"),
        (["risk", "--report_only", "--runs", "nowhere"], "no checkpoint to evaluate"),
        (["risk", "--output", "benchmarks/results/study_highway.json"], "holds 'study_highway', not study_risk"),
        (["risk", "--episodes", "5", "--output", "benchmarks/results/study_risk.json"], "is over 1000 episodes, not 5"),
    ],
)
def test_wrong_input_is_refused_and_changes_nothing(flags: list[str], words: str) -> None:
    before = {path: path.read_bytes() for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *flags], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert {path: path.read_bytes() for path in before} == before


@pytest.fixture
def runs_of(study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, str]]]:
    """Return what trains a row without training: runs whose first trials' figures are told; flags of each command."""

    def train(row: str, *flags: str, scores: Sequence[float]) -> list[dict[str, str]]:
        commands: list[dict[str, str]] = []
        left = iter(scores)

        def run(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
            given = dict(flag.removeprefix("--").split("=", 1) for flag in command[2:] if "=" in flag)
            commands.append(given)
            folder = Path(given["policy_dir"]) / given["run_name"]
            (folder / f"checkpoint_{given['max_steps']}").mkdir(parents=True)
            (folder / "run.json").write_text("{}")
            lines = [{"step": n, "time": float(n), "training/trial_3_score": 0.0} for n in range(9)]
            lines.append({"step": 9, "time": 9.0, "training/trial_3_score": next(left, 1.0)})
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            return subprocess.CompletedProcess(command, 0)

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(study, "is_kept", lambda *args: False)
        monkeypatch.setattr(
            "sys.argv", ["study.py", "trials", "--rows", row, "--jobs", "1", "--runs", str(tmp_path), *flags]
        )
        assert study.main() == 2  # nothing is there that could be evaluated
        return commands

    return train


def test_a_stage_keeps_its_steps(study: ModuleType, runs_of: Callable[..., list[dict[str, str]]]) -> None:
    rows = {row.name: row for row in study.STUDIES["trials"]()}
    stages = study.stages_before(rows["courteous-gru"], list(rows.values()))
    given = [command["max_steps"] for command in runs_of("courteous-gru", "--steps", "300", scores=[1.0])]
    assert stages
    assert given == [*(str(stage.steps) for stage in stages), "300"]


def test_a_run_below_its_least_is_begun_again_and_paid_for(
    study: ModuleType, runs_of: Callable[..., list[dict[str, str]]], tmp_path: Path
) -> None:
    commands = runs_of("courteous-gru", "--seeds", "5", scores=[0.5, 0.7, 0.9])
    first = [command for command in commands if command["run_name"].endswith("two-types-seed5")]
    assert [command["seed"] for command in first] == ["5", "1005", "2005"]
    assert {command["seed"] for command in commands if command not in first} == {"5"}
    rows = {row.name: row for row in study.STUDIES["trials"]()}
    of_row = [*study.stages_before(rows["courteous-gru"], list(rows.values())), rows["courteous-gru"]]
    args = argparse.Namespace(runs=tmp_path, study="trials")
    paid = [path.name.removeprefix("study-trials-courteous-gru-") for path in study.paid_before(args, of_row, 5)]
    assert paid[:4] == [
        "two-types-seed5-given-up-1",
        "two-types-seed5-given-up-2",
        "two-types-seed5",
        "three-types-seed5",
    ]
    assert len(paid) == len(commands) - 1
    # Gone on with, nothing is trained again.
    assert runs_of("courteous-gru", "--seeds", "5", scores=[]) == []


def test_the_best_of_all_attempts_counts(
    study: ModuleType, runs_of: Callable[..., list[dict[str, str]]], tmp_path: Path
) -> None:
    commands = runs_of("courteous-memoryless", scores=[0.3, 0.5, 0.0, 0.2])
    assert [c["seed"] for c in commands if "two-types" in c["run_name"]] == ["1", "1001", "2001", "3001"]
    first = tmp_path / "study-trials-courteous-memoryless-two-types-seed1"
    ends = [study.metric_lines(path)[-1]["training/trial_3_score"] for path in (first, *study.given_up(first))]
    assert ends == [0.5, 0.3, 0.2, 0.0]
    assert runs_of("courteous-memoryless", scores=[]) == []
    assert study.metric_lines(first)[-1]["training/trial_3_score"] == 0.5
