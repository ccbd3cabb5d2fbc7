"""The fault kit, on a toy program that is whole and on toys each of which does one thing wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from kits import GOAL, TOY, toy_kit

from racer.__main__ import main
from racer.faults import harm
from racer.faults.evidence import Line, compare
from racer.faults.kit import KINDS, Counters, load_kit
from racer.faults.processes import MARK
from racer.faults.results import read_results, table
from racer.faults.schedules import Schedule, calm, draw
from racer.faults.trial import MISSED, SKIPPED, SURVIVED, Outcome, run_trial

UNBROKEN = {"kill_worker", "kill_all_workers", "stop_worker", "slow_worker", "full_disk", "half_open_connection"}
FLAWED = [
    ("lose", "kill_learner", "lost"),
    ("reset", "kill_learner", "lost"),
    ("trusting", "truncated_checkpoint", "lost"),
    ("trusting", "flipped_checkpoint", "lost"),
    ("vanish", "kill_learner", "lost"),
    ("duplicate", "kill_learner", "duplicated"),
    ("unlocked", "two_resumes", "duplicated"),
    ("orphan", "kill_learner", "orphaned"),
    ("memory", "kill_worker", "orphaned"),
    ("untidy", "calm", "orphaned"),
    ("deaf", "half_open_connection", "stuck"),
    ("broken", "kill_worker", "lost"),
]


@pytest.fixture(autouse=True)
def leaves_nothing(tmp_path_factory, monkeypatch):
    """Each test's temporary folders are its own, and no process, folder or mount is left at its end."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())
    assert str(folder) not in Path("/proc/mounts").read_text()
    assert not toys()
    for left in Path("/dev/shm").glob("racer-toy-*"):
        left.unlink()


def toys() -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if str(TOY) in (each.info["cmdline"] or [])]


def trial(tmp_path: Path, flaw: str, kind: str, at: float | None = 0.4, **changes: object) -> Outcome:
    return run_trial(load_kit(toy_kit(tmp_path, flaw, **changes)), Schedule(1, kind, at, 0.1, 0.4, 0.3), tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_program_survives(tmp_path: Path, kind: str) -> None:
    outcome = trial(tmp_path, "none", kind)
    if outcome.status == SKIPPED:
        pytest.skip(f"NOT TESTED: {outcome.note}")
    assert (outcome.verdict, outcome.findings) == (SURVIVED, [])
    assert outcome.unbroken == (kind in UNBROKEN)
    assert not outcome.restarted


def test_a_connection_that_is_closed_meanwhile_is_left_out(tmp_path: Path, monkeypatch) -> None:
    found = harm.connections
    monkeypatch.setattr(harm, "connections", lambda process: [4000, *found(process)])
    outcome = trial(tmp_path, "none", "half_open_connection")
    if outcome.status == SKIPPED and "Bad file descriptor" not in outcome.note:
        pytest.skip(f"NOT TESTED: {outcome.note}")
    assert (outcome.verdict, outcome.unbroken) == (SURVIVED, True)


@pytest.mark.parametrize(("flaw", "kind", "verdict"), FLAWED)
def test_a_flaw_is_found(tmp_path: Path, flaw: str, kind: str, verdict: str) -> None:
    changes = {"limits": {"schedule": 6, "grace": 2}} if verdict == "stuck" else {"limits": {"grace": 2}}
    outcome = trial(tmp_path, flaw, kind, **changes)
    if outcome.status == SKIPPED:
        pytest.skip(f"NOT TESTED: {outcome.note}")
    assert verdict in [found for found, _ in outcome.findings], outcome


def test_a_program_that_needs_a_resume_is_told_from_one_that_goes_on(tmp_path: Path) -> None:
    outcome = trial(tmp_path, "brittle", "kill_worker")
    assert (outcome.verdict, outcome.unbroken, outcome.restarted) == (SURVIVED, False, False)
    assert outcome.note == "ended with exit code 1: a worker is gone"


def test_a_run_without_a_checkpoint_begins_anew(tmp_path: Path) -> None:
    outcome = trial(tmp_path, "none", "kill_learner", at=None)
    assert (outcome.verdict, outcome.restarted) == (SURVIVED, True)


def test_a_fault_that_came_too_late_is_counted_as_missed(tmp_path: Path) -> None:
    outcome = trial(tmp_path, "none", "kill_worker", at=1.1)
    assert (outcome.verdict, outcome.findings) == (MISSED, [])


def test_what_cannot_be_injected_is_skipped_with_the_reason(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = trial(tmp_path, "none", "full_disk")
    assert outcome.verdict == SKIPPED
    assert "no mount program" in outcome.note


def line(step: int, updates: int, mark: str = "") -> Line:
    return Line(step, f"{step} {updates} {mark}".encode(), {"step": step, "updates": updates})


def test_a_log_is_compared_up_to_the_checkpoint() -> None:
    counters = Counters(files="log", keys=("updates",))
    before = [line(10, 1), line(20, 2), line(30, 3)]
    gone_on = [line(10, 1), line(20, 2), line(30, 3, "again"), line(40, 4)]
    assert compare(before, gone_on, 20, counters) == []
    ((verdict, text),) = compare(before, gone_on, 30, counters)
    assert (verdict, text) == ("lost", "1 lines up to the checkpoint at 30 are gone or changed, first 30")
    assert compare(before, gone_on, None, counters) == []
    (finding,) = compare([], [line(10, 3), line(20, 2)], None, counters, resumed=False)
    assert finding == ("lost", "updates fell from 3 to 2")
    found = [verdict for verdict, _ in compare([], [line(20, 2), line(10, 3), line(20, 4)], None, counters)]
    assert found == ["duplicated"]


def test_a_resume_may_take_the_counters_back_once_to_the_checkpoint() -> None:
    counters = Counters(files="log", keys=("updates",))
    first = [line(10, 1), line(20, 2), line(35, 4)]
    assert compare(first, [*first, line(30, 3, "new"), line(40, 5)], 20, counters) == []
    below = compare(first, [*first, line(15, 3, "new"), line(40, 5)], 20, counters)
    assert below == [("lost", "step fell from 35 to 15")]
    twice = compare(first, [*first, line(30, 3, "new"), line(25, 5)], 20, counters)
    assert twice == [("lost", "step fell from 30 to 25")]
    forgotten = compare(first, [*first, line(30, 1, "new"), line(40, 5)], 20, counters)
    assert forgotten == [("lost", "updates fell from 4 to 1")]


def test_a_program_that_does_not_begin_any_more_is_not_tried_a_thousand_times(tmp_path: Path, capsys) -> None:
    """As where somebody takes its packages away: the calm run and two more are there already, then it fails."""
    results = tmp_path / "results.jsonl"
    command = ["faults", str(toy_kit(tmp_path)), "--results", str(results), "--schedules"]
    assert main([*command, "2"]) == 0
    toy_kit(tmp_path, command=["{python}", "-c", "raise SystemExit('no package')"])
    assert main([*command, "20"]) == 1
    assert "error: 3 runs of toy in a row failed before anything was done to them" in capsys.readouterr().err
    assert [line["schedule"]["number"] for line in read_results(results)] == [0, 1, 2, 3, 4, 5]


def test_schedules_are_drawn_from_seed_and_number(tmp_path: Path) -> None:
    kit = load_kit(toy_kit(tmp_path))
    drawn = [draw(kit, 7, number) for number in range(1, 201)]
    assert drawn == [draw(kit, 7, number) for number in range(1, 201)]
    assert drawn != [draw(kit, 8, number) for number in range(1, 201)]
    assert {schedule.kind for schedule in drawn[10:20]} == set(KINDS)
    assert all(schedule.at is None or 0 <= schedule.at < 1 for schedule in drawn)
    assert all(0 < schedule.pause <= kit.limits.pause and 0 <= schedule.target < 1 for schedule in drawn)


def faults(path: Path, *flags: object) -> int:
    return main(["faults", str(path), *map(str, flags)])


def test_the_command_goes_on_where_it_stopped(tmp_path: Path, capsys) -> None:
    kit, results = toy_kit(tmp_path, faults=["kill_worker", "kill_learner"], goal=60), tmp_path / "results.jsonl"
    assert faults(kit, "--results", results, "--schedules", 1) == 0
    first = read_results(results)
    assert [found["schedule"]["number"] for found in first] == [0, 1]
    assert first[0]["schedule"] == calm().as_json()
    assert faults(kit, "--results", results, "--schedules", 2) == 0
    second = read_results(results)
    assert second[:2] == first
    assert [found["schedule"]["number"] for found in second] == [0, 1, 2]
    out = capsys.readouterr().out
    assert out.count("calm: survived") == 1
    assert "| all | 3 |" in out
    assert str(results) in out


def test_a_cache_is_shared_with_the_next_call(tmp_path: Path) -> None:
    """The toy writes into {cache} how often it was begun."""
    words = ["/bin/sh", "-c", 'echo begun >>"{cache}/begun"; exec "$0" "$@"', "{python}", "-I", "-S", str(TOY)]
    kit = toy_kit(tmp_path, command=[*words, "begin", "{folder}", str(GOAL), "none"], faults=["stop_worker"])
    for number in (1, 2):
        flags = ["--results", tmp_path / "results.jsonl", "--cache", tmp_path / "cache", "--schedules", number]
        assert faults(kit, *flags) == 0
    # Without a fault, and schedules 1 and 2.
    assert (tmp_path / "cache" / "begun").read_text().splitlines() == ["begun"] * 3


def test_what_is_not_claimed_is_marked_and_does_not_fail(tmp_path: Path, capsys) -> None:
    changes = {"faults": ["kill_learner"], "limits": {"grace": 2}}
    kit, results = toy_kit(tmp_path, "duplicate", **changes), tmp_path / "results.jsonl"
    # A fault that comes just after a checkpoint finds no line beyond it: the first schedule is one that does.
    write_result(results, load_kit(kit), "duplicated")
    assert faults(kit, "--results", results, "--schedules", 1) == 1
    assert "error: 1 schedules of toy were not survived: 1 (seed 0)" in capsys.readouterr().err
    kit = toy_kit(tmp_path, "duplicate", **changes, not_claimed={"duplicated": "its log is only appended to"})
    assert faults(kit, "--results", results, "--schedules", 1) == 0
    out = capsys.readouterr().out
    assert "| duplicated* |" in out
    assert "\\* duplicated: its log is only appended to" in out


def test_no_sentence_names_a_folder_that_is_gone() -> None:
    outcome = Outcome(findings=[("lost", "no /tmp/x-1/run/log")], note="full: /tmp/x-1/run, /tmp/x-1/out")
    outcome.forget(Path("/tmp/x-1"))
    assert (outcome.findings, outcome.note) == ([("lost", "no .../run/log")], "full: .../run, .../out")


def write_result(results: Path, kit, verdict: str) -> None:
    outcomes = {0: Outcome(unbroken=True), 1: Outcome(findings=[(verdict, "2 steps")])}
    schedules = {0: calm(), 1: draw(kit, 0, 1)}
    lines = [
        {"kit": "toy", "seed": 0, "schedule": schedules[number].as_json(), **outcome.as_json()}
        for number, outcome in outcomes.items()
    ]
    results.write_text("".join(json.dumps(each) + "\n" for each in lines))


def test_the_table_counts_each_finding(tmp_path: Path) -> None:
    kit = load_kit(toy_kit(tmp_path))
    write_result(tmp_path / "results", kit, "orphaned")
    lines = read_results(tmp_path / "results")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table(lines, kit).splitlines() if "|" in row]
    head = dict(zip(rows[0], rows[-1], strict=True))
    assert head == {
        "toy: fault": "all", "schedules": "2", "by itself": "1", "resumed": "", "lost": "", "duplicated": "",
        "orphaned": "1", "stuck": "", "missed": "", "skipped": "",
    }  # fmt: skip


def test_a_kit_that_does_not_fit_is_told_by_a_run_without_a_fault(tmp_path: Path, capsys) -> None:
    results = tmp_path / "results.jsonl"
    assert faults(toy_kit(tmp_path, "broken", limits={"grace": 1}), "--results", results) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: toy fails without any fault: ")
    assert "broken from the beginning" in error
    assert not results.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_leaves_nothing(tmp_path: Path, leaves_nothing: Path, number: int, code: int) -> None:
    kit = toy_kit(tmp_path, goal=1_000_000, faults=["kill_worker"])
    process = subprocess.Popen(
        [sys.executable, "-m", "racer", "faults", str(kit), "--results", str(tmp_path / "results.jsonl")],
        env={**os.environ, "TMPDIR": str(leaves_nothing)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60.0
        while len(toys()) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert all(MARK in each.environ() for each in toys())
        process.send_signal(number)
        _, errors = process.communicate(timeout=60.0)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (code, "")


WRONG = [
    ({"conters": {}}, [], "unknown kit key 'conters'; did you mean 'counters'?"),
    ({"counters": {"file": "log.jsonl"}}, [], "unknown counters' key 'file'; did you mean 'files'?"),
    ({"checkpoints": {"glob": "x", "step": "saved"}}, [], "must have a group"),
    ({"checkpoints": {"glob": "x", "step": "(saved"}}, [], "is no pattern"),
    ({"limits": {"schedule": 0}}, [], "'schedule' must be"),
    ({"faults": ["kill_lerner"]}, [], "unknown kind of fault 'kill_lerner'; did you mean 'kill_learner'?"),
    ({"faults": []}, [], "'faults'"),
    ({"not_claimed": {"orphan": "it does not"}}, [], "did you mean 'orphaned'?"),
    ({"environment": {"A": 1}}, [], "'A' must be text, not 1"),
    ({"workers": None}, [], "kit key 'workers' is missing"),
    ({"counters": None}, [], "kit key 'counters' is missing"),
    ({"name": "../up"}, [], "kit key 'name' may hold letters"),
    ({"goal": "far"}, [], "'goal' must be"),
    ({"command": ["no-such-program"]}, [], "kit key 'command': command 'no-such-program' was not found"),
    ({"resume": ["{python}", "nowhere.py"]}, [], "kit key 'resume': there is no file 'nowhere.py'"),
    ({"directory": "nowhere"}, [], "there is no folder"),
    ({"folder": "."}, [], "unknown kit key 'folder'"),
    ({}, ["--schedules", "0"], "--schedules must be at least 1, got 0"),
    ({}, ["--seconds", "0"], "--seconds must be more than 0"),
    ({}, ["--seed", "-1"], "--seed must be at least 0"),
    ({}, ["--shedules", "1"], "did you mean '--schedules'?"),
    ({}, ["--results", "/proc/none/results"], "cannot be written"),
    ({}, ["--cache", "/proc/none/cache"], "--cache folder '/proc/none/cache' cannot be written"),
]


@pytest.mark.parametrize(("changes", "flags", "words"), WRONG)
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path: Path, capsys, changes, flags, words) -> None:
    assert faults(toy_kit(tmp_path, **changes), *flags) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert words in error


def test_missing_and_damaged_files_are_named(tmp_path: Path, capsys) -> None:
    assert faults(tmp_path / "nowhere.yaml") == 2
    assert "nowhere.yaml' cannot be read: No such file" in capsys.readouterr().err
    results = tmp_path / "results.jsonl"
    for text in ("{", "[]", '{"kit": "toy"}'):
        results.write_text(text + "\n")
        assert faults(toy_kit(tmp_path), "--results", results) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert "results.jsonl', line 1" in error


def test_only_what_it_started_is_touched(tmp_path: Path) -> None:
    begin = [sys.executable, "-I", "-S", str(TOY), "begin"]
    (tmp_path / "other").mkdir()
    other = subprocess.Popen([*begin, str(tmp_path / "other"), "1000000", "brittle"])
    try:
        deadline = time.monotonic() + 60.0
        while len(workers := psutil.Process(other.pid).children()) < 2:
            assert time.monotonic() < deadline
        assert trial(tmp_path, "none", "kill_all_workers").verdict == SURVIVED
        assert trial(tmp_path, "none", "two_resumes").verdict == SURVIVED
        assert other.poll() is None
        assert all(each.is_running() for each in workers)
    finally:
        other.kill()
        other.wait()
        psutil.wait_procs(workers, timeout=10.0)
