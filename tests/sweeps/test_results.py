"""From job folders to tensors, tables and verdicts."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.sweeps.analysis.report import report
from racer.sweeps.analysis.tensor import best_settings, parsed_study
from racer.sweeps.command import main
from racer.sweeps.early import EarlyDecision, read_decisions
from racer.sweeps.job import Job
from racer.sweeps.manifest import plan_jobs, write_manifest
from racer.sweeps.reader import read_hyperfile
from racer.sweeps.results import (
    Row,
    job_folder,
    read_table,
    summarise,
    write_json,
    write_results,
    write_summary,
)
from racer.sweeps.study import load_study, load_study_folder

ROOT = Path(__file__).parents[2]
TEXT = """hparams = {'args': [{'env': 'tmaze_10', 'hidden_size': [4, 8], 'lr': '2.5e-3 2.5e-4', 'lambda0': '0.5 0.95',
    'total_steps': 2048, 'seed': 7, 'n_seeds': 3}]}"""


def result(job: int, setting: int, seed: int, step: int) -> float:
    """A made-up return that tells where it belongs."""
    return 100.0 * job + 10.0 * setting + seed + step / 1000.0


def write_job(results: Path, number: int, job: Job, points: int = 5) -> None:
    rows = []
    for member in job.members:
        for step in range(points):
            value = result(number, member.setting, member.seed, step)
            rows.append(Row(member, step, "training/return", math.nan if step in (0, 2) else value))
            rows.append(Row(member, step, "training/discounted_return", value / 2.0))
        rows.append(Row(member, points, "final/return", result(number, member.setting, member.seed, 0)))
        rows.append(Row(member, points, "final/discounted_return", 3.99))
    folder = job_folder(results, job)
    folder.mkdir(parents=True)
    write_json(folder / "config.json", job.record)
    write_results(folder, job, rows)


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    (tmp_path / "study.py").write_text(TEXT)
    found = plan_jobs(read_hyperfile(tmp_path / "study.py"))
    write_manifest(tmp_path / "runs" / "study.jsonl", found)
    return found


def test_two_jobs_of_four_settings_and_three_seeds_are_eight_by_three(tmp_path: Path, jobs: list[Job]) -> None:
    for number, job in enumerate(jobs):
        write_job(tmp_path / "results", number, job)
    study = load_study_folder(tmp_path / "results" / "study")
    parsed = parsed_study(study)
    order = [job.arguments["hidden_size"] for job in study.jobs]
    assert parsed["dim_ref"] == ["swept_hparams", "num_update", "num_steps", "seeds"]
    assert parsed["envs"] == ["tmaze_10"]
    scores = parsed["scores"]["tmaze_10"]["scores"]
    assert scores.shape == (8, 5, 1, 3)
    assert parsed["final_scores"]["tmaze_10"].shape == (8, 1, 1, 3)
    swept = parsed["swept_hyperparams"]["tmaze_10"]
    assert swept["hidden_size"] == [order[0]] * 4 + [order[1]] * 4
    assert swept["lr"][:4] == [2.5e-3, 2.5e-3, 2.5e-4, 2.5e-4]
    assert swept["lambda0"][:4] == [0.5, 0.95, 0.5, 0.95]
    assert parsed["all_hyperparams"]["lambda0"] == [0.5, 0.95]
    number = [4, 8].index(order[1])
    assert scores[6, 3, 0, 1] == result(number, 2, 8, 3)
    # Nothing ended in the first update; in the third the last return is held.
    assert np.isnan(scores[:, 0]).all()
    np.testing.assert_array_equal(scores[:, 2], scores[:, 1])
    best = best_settings(study, measure="final")
    assert best["hyperparams"]["tmaze_10"] == {"hidden_size": 8, "lr": 2.5e-4, "lambda0": 0.95}
    assert len(best["fpaths"]["tmaze_10"]) == 3
    assert best["scores"]["tmaze_10"].shape == (1, 1, 3)
    discounted = parsed_study(study, discounted=True)
    assert (discounted["final_scores"]["tmaze_10"] == 3.99).all()


def test_the_scripts_write_pickles_and_read_none(tmp_path: Path, jobs: list[Job]) -> None:
    results = tmp_path / "results"
    for number, job in enumerate(jobs):
        write_job(results, number, job)

    def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / name), *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    parsed = run("parse_batch_experiments.py", "results/study", "--discounted")
    assert parsed.returncode == 0, parsed.stderr
    path = results / "study" / "parsed_hparam_scores_discounted.pkl"
    keys = {"envs", "swept_hyperparams", "all_hyperparams", "dim_ref", "scores", "final_scores", "discounted"}
    assert set(pickle.loads(path.read_bytes())) == keys
    path.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    best = run("best_hyperparams_per_env.py")
    assert best.returncode == 0, best.stderr
    assert not (tmp_path / "pwned").exists()
    found = pickle.loads((results / "study" / "best_hyperparam_per_env_res_discounted.pkl").read_bytes())
    wanted = {"hyperparams", "scores", "dim_ref", "envs", "all_hyperparams", "discounted", "fpaths"}
    assert set(found) == wanted
    assert found["hyperparams"]["tmaze_10"]["hidden_size"] == 8
    wrong = run("best_hyperparams_per_env.py", "nowhere.pkl")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_what_is_missing_is_said(tmp_path: Path, jobs: list[Job]) -> None:
    write_job(tmp_path / "results", 0, jobs[0])
    with pytest.raises(UsageError, match=f"1 of 2 jobs are not finished .{jobs[1].id}.*--allow_missing"):
        load_study(jobs, tmp_path / "results")
    assert len(load_study(jobs, tmp_path / "results", allow_missing=True).finished) == 1
    with pytest.raises(UsageError, match="there is no study"):
        load_study_folder(tmp_path / "results" / "other")


def test_results_of_another_version_are_told_apart(tmp_path: Path, jobs: list[Job]) -> None:
    old = [replace(job, code_version="0" * 12) for job in jobs]
    for number, job in enumerate(old):
        write_job(tmp_path / "results", number, job)
    with pytest.raises(UsageError, match=r"of version 000000000000 of the code.*--any_version"):
        load_study_folder(tmp_path / "results" / "study")
    assert len(load_study_folder(tmp_path / "results" / "study", any_version=True).finished) == 2
    write_manifest(tmp_path / "old.jsonl", old)
    for words in (["run", "--results", str(tmp_path / "r"), "--index", "0"],
                  ["verify", "--results", str(tmp_path / "results")]):  # fmt: skip
        with pytest.raises(UsageError, match="plan the study again"):
            main([words[0], "--manifest", str(tmp_path / "old.jsonl"), *words[1:]])


def test_a_damaged_table_is_refused(tmp_path: Path, jobs: list[Job]) -> None:
    write_job(tmp_path / "results", 0, jobs[0])
    folder = job_folder(tmp_path / "results", jobs[0])
    data = bytearray((folder / "metrics.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "metrics.parquet").write_bytes(bytes(data))
    with pytest.raises(UsageError, match="its sum differs"):
        read_table(folder)


def test_the_summary_has_every_hyperparameter(tmp_path: Path, jobs: list[Job]) -> None:
    write_job(tmp_path / "results", 0, jobs[0])
    folder = job_folder(tmp_path / "results", jobs[0])
    rows = summarise([(jobs[0], read_table(folder))])
    write_summary(tmp_path / "summary.csv", rows)
    header, *lines = (tmp_path / "summary.csv").read_text().splitlines()
    columns = header.split(",")
    assert len(lines) == 12
    config = jobs[0].config
    assert {*config["agent_config"], *(f"env.{key}" for key in config["env"]), "arg.lr", "seed"} <= set(columns)
    import csv

    read = list(csv.DictReader((tmp_path / "summary.csv").open()))
    # Values as they were written, not as float32 made them.
    assert [row["arg.lr"] for row in read[::6]] == ["0.0025", "0.00025"]
    assert read[5]["final/return"] == repr(result(0, 1, 9, 0))


def test_reports_choose_by_some_seeds_and_report_by_others(tmp_path: Path, jobs: list[Job]) -> None:
    for number, job in enumerate(jobs):
        write_job(tmp_path / "results", number, job)
    study = load_study(jobs, tmp_path / "results")
    text = report(study, "final/return", None, "hidden_size", [7])
    assert "By hidden_size" in text
    assert "By lr" in text
    assert "4 - 8" in text
    assert "-100.0 [-100.0, -100.0]" in text
    assert "by the 2 other seeds 138.500" in text
    with pytest.raises(UsageError, match="every seed chose"):
        report(study, "final/return", None, None, [7, 8, 9])
    with pytest.raises(UsageError, match="unknown metric"):
        report(study, "final/retrun")


def test_an_arm_that_is_worse_is_decided_early_and_told(tmp_path: Path) -> None:
    text = """base = {'agent': 'ppo', 'world': 'tmaze_2', 'max_steps': 100}
arms = [('low', 0.1), ('high', 0.2), ('same', 0.3)]
hparams = {'args': [{**base, 'tag.arm': arm[0], 'entropy_coef': arm[1], 'seed': jobs(*range(8))} for arm in arms]}"""
    (tmp_path / "study.py").write_text(text)
    jobs = plan_jobs(read_hyperfile(tmp_path / "study.py"))
    results, rng = tmp_path / "results", np.random.default_rng(0)
    decide = EarlyDecision(jobs, results, "tag.arm", "final/return", 5)
    for index, job in enumerate(jobs):
        if job.members[0].seed >= 5:
            continue
        base = {"low": 0.0, "high": 10.0, "same": 10.0}[job.arguments["tag.arm"]]
        member = job.members[0]
        folder = job_folder(results, job)
        folder.mkdir(parents=True)
        write_json(folder / "config.json", job.record)
        write_results(folder, job, [Row(member, 1, "final/return", base + member.seed + rng.normal())])
        assert index < len(jobs)
    done = {index for index, job in enumerate(jobs) if job.members[0].seed < 5}
    decided = decide(done)
    assert {jobs[index].arguments["tag.arm"] for index in decided} == {"low"}
    assert {jobs[index].members[0].seed for index in decided} == {5, 6, 7}
    (reason,) = read_decisions(results / "study")
    assert "'low' is worse than" in reason
    assert "after 5 pairs" in reason
    # What was spared is not missing; the jobs of other arms are.
    others = [job for job in jobs if job.arguments["tag.arm"] != "low" and job.members[0].seed >= 5]
    with pytest.raises(UsageError, match=f"6 of 24 jobs are not finished .{others[0].id}"):
        load_study(jobs, results)
    study = load_study([job for job in jobs if job not in others], results)
    assert len(study.missing) == 3
    assert "Arms were stopped early" in report(study, "final/return")
    with pytest.raises(UsageError, match="no key of job"):
        EarlyDecision(jobs, results, "actor_lr", "final/return", 5)


def test_status_and_wrong_commands(tmp_path: Path, jobs: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    write_job(tmp_path / "results", 0, jobs[0])
    folder = job_folder(tmp_path / "results", jobs[1])
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(jobs[1].record))
    (folder / "log.txt").write_text(f"job {jobs[1].id}:  40% 3 transitions\nerror: it broke\n")
    given = ["--manifest", str(tmp_path / "runs" / "study.jsonl"), "--results", str(tmp_path / "results")]
    assert main(["status", *given]) == 0
    out = capsys.readouterr().out
    assert f"job 1 ({jobs[1].id}): failed error: it broke" in out
    assert "2 jobs, 1 finished, 1 failed" in out
    assert main([]) == 2
    assert "say how far the jobs of a list are" in capsys.readouterr().out
    for words in (["statsu"], ["run", *given, "--index", "7"], ["run", *given, "--part", "9"], ["plan"],
                  ["verify", *given, "--rows", "0"], ["run", *given, "--nope"]):  # fmt: skip
        with pytest.raises(UsageError):
            main(words)
