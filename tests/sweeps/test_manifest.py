"""Hyperparameter files: what they may hold, which jobs they are, and what is refused where."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from racer.core.errors import UsageError
from racer.sweeps.commands import command_lines, file_from_words
from racer.sweeps.job import job_from_record
from racer.sweeps.manifest import plan_jobs, read_manifest, write_manifest
from racer.sweeps.reader import Marked, read_hyperfile

ROOT = Path(__file__).parents[2]
STOCK = ROOT / "scripts" / "hyperparams" / "tmaze"

PUBLISHED = """
from pathlib import Path

exp_name = Path(__file__).stem

lrs = [2.5e-3, 2.5e-4]
lambda0s = [0.1, 0.95]

hparams = {
    'file_name':
        f'runs_{exp_name}.txt',
    'entry': '-m somewhere.algos.ppo_rnn',
    'args': [
        {
            'env': 'tmaze_5',
            'double_critic': False,
            'memoryless': None,
            'perfect_memory': True,
            'lr': ' '.join(map(str, lrs)),
            'lambda0': ' '.join(map(str, lambda0s)),
            'hidden_size': [16, 32],
            'total_steps': int(1e3),
            'seed': 2024,
            'n_seeds': 3,
            'platform': 'gpu',
            'study_name': exp_name
        }
    ]
}
"""
HOUSE = "base = {'agent': 'ppo', 'world': 'tmaze_2', 'max_steps': 100}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "study.py"
    path.write_text(text)
    return path


def jobs_of(folder: Path, args: str, more: str = ""):
    return plan_jobs(read_hyperfile(write(folder, f"{HOUSE}hparams = {{'args': [{args}]{more}}}\n")))


def test_a_published_file_loads_unchanged(tmp_path: Path) -> None:
    file = read_hyperfile(write(tmp_path, PUBLISHED))
    assert (file.file_name, file.entry, file.study) == ("runs_study.txt", "-m somewhere.algos.ppo_rnn", "study")
    jobs = plan_jobs(file)
    assert [(len(job.config["settings"]), len(job.members)) for job in jobs] == [(4, 12), (4, 12)]
    first = jobs[0]
    assert first.swept == tuple({"lr": lr, "lambda0": w} for lr in (2.5e-3, 2.5e-4) for w in (0.1, 0.95))
    spec = first.spec(first.members[-1])
    assert (spec.seed, spec.agent_config["actor_lr"], spec.agent_config["gae_lambda"]) == (2026, 2.5e-4, 0.95)
    assert spec.env_config["length"] == 5
    assert spec.env_config["observation"] == "perfect_memory"
    assert [job.config["agent_config"]["hidden_dims"] for job in jobs] == [[16], [32]]
    lines = command_lines(file)
    assert len(lines) == 2
    assert lines[1].startswith("python -m somewhere.algos.ppo_rnn --env tmaze_5 --perfect_memory ")
    assert "--memoryless" not in lines[0]
    assert "--double_critic" not in lines[0]
    assert "--lr 0.0025 0.00025 --lambda0 0.1 0.95" in lines[0]
    assert "--study_name study" in lines[0]


@pytest.mark.parametrize(
    ("name", "jobs", "members"),
    [
        ("tmaze_10_ppo", 1, 240), ("tmaze_10_ppo_LD", 1, 420), ("tmaze_10_ppo_memoryless", 1, 240),
        ("tmaze_10_ppo_perfect_memory_memoryless", 1, 240), ("tmaze_10_transformer", 24, 240),
    ],
)  # fmt: skip
def test_the_stock_files_and_their_command_lines_are_the_same_jobs(name: str, jobs: int, members: int) -> None:
    file = read_hyperfile(STOCK / f"{name}.py")
    planned = plan_jobs(file)
    assert len(planned) == jobs
    assert sum(len(job.members) for job in planned) == members
    lines = command_lines(file)
    assert len(lines) == jobs
    for line, job in list(zip(lines, planned, strict=True))[::8]:
        words = shlex.split(line)
        assert words[:5] == ["python", "-m", "racer", "sweep", "job"]
        assert words[-2:] == ["--study_name", name]
        assert [found.id for found in plan_jobs(file_from_words(words[5:]), name)] == [job.id]


def test_the_four_memories_differ_in_their_memory() -> None:
    jobs = plan_jobs(read_hyperfile(STOCK / "tmaze_10_memories.py"))
    kinds = {job.arguments["tag.memory"]: (job.config["agent_config"]["memory"] or {}).get("kind") for job in jobs}
    assert kinds == {"none": None, "perfect": None, "GRU": "gru", "transformer": "transformer"}
    assert [job.config["env"]["observation"] for job in jobs][:2] != [jobs[0].config["env"]["observation"]] * 2
    # As many transitions an update in every arm.
    assert {job.num_envs * job.config["agent_config"]["rollout_length"] for job in jobs} == {2048}


def test_markers_conditions_and_exclusions(tmp_path: Path) -> None:
    args = """{**base, 'memory': jobs(None, 'gru'), 'num_minibatches': jobs(4, 2, only_if={'memory': 'gru'}),
    'actor_lr': vmapped(1e-3, 1e-4), 'tag.kind': 'x', 'seed': vmapped(42, 1042, 2042)}"""
    jobs = jobs_of(tmp_path, args, ", 'exclude': {'memory': 'gru', 'num_minibatches': 2, 'actor_lr': [1e-4]}")
    found = [(job.arguments["memory"], job.arguments.get("num_minibatches"), len(job.members)) for job in jobs]
    assert found == [(None, None, 6), ("gru", 4, 6), ("gru", 2, 3)]
    assert [member.seed for member in jobs[2].members] == [42, 1042, 2042]
    assert jobs[0].arguments["tag.kind"] == "x"
    assert "tag.kind" not in jobs[0].config["agent_config"]
    assert len({job.id for job in jobs}) == 3


def test_words_of_this_house_survive_a_shell(tmp_path: Path) -> None:
    args = (
        "{**base, 'normalize_values': False, 'memory': {'kind': 'gru', 'size': 4}, 'hidden_dims': (8, 8), "
        "'actor_lr': vmapped(1e-3, 2e-3), 'seed': vmapped(1, 5), 'target_kl': None}"
    )
    file = read_hyperfile(write(tmp_path, f"{HOUSE}hparams = {{'args': [{args}]}}\n"))
    (line,) = command_lines(file)
    assert [j.id for j in plan_jobs(file_from_words(shlex.split(line)[5:]), "study")] == [plan_jobs(file)[0].id]


@pytest.mark.parametrize(
    ("args", "line", "words"),
    [
        ("{**base, 'hidden_dims': vmapped((8,), (16,))}", 2, "'hidden_dims' decides shapes.*use jobs"),
        ("{**base, 'rollout_length': '16 32'}", 2, "'rollout_length' decides shapes.*jobs\\(16, 32\\)"),
        ("{**base, 'env.length': vmapped(2, 3)}", 2, "'env.length' decides shapes"),
        ("{**base, 'memory': vmapped('gru', None)}", 2, "'memory' decides shapes"),
        ("{'env': 'tmaze_5', 'hidden_size': '16 32'}", 2, "'hidden_size' decides shapes"),
        ("{**base,\n 'actor_lrr': 1}", 3, "unknown key 'actor_lrr'; did you mean 'actor_lr'"),
        ("{**base,\n 'actor_lr': 'fast'}", 3, "'actor_lr' must be a finite number"),
        ("{'env': 'tmaze_5',\n 'lr': '2.5e-3 x'}", 3, "'actor_lr' must be"),
        ("{'env': 'tmaze_5',\n 'lr': 'fast'}", 3, "'actor_lr' must be.* \\(key 'lr'\\)"),
        ("{'env': 'tmaze_5',\n 'total_steps': 'many'}", 3, "must be a whole number.* \\(key 'total_steps'\\)"),
        ("{'env': 'tmaze_5', 'alpha': 0.5}", 2, "'alpha' must be 1"),
        ("{'env': 'tmaze_5', 'ld_weight': '0 0.5'}", 2, "'ld_weight' compares two value heads"),
        ("{'env': 'tmase_5'}", 2, "unknown world 'tmase_5'; did you mean"),
        ("{**base, 'seed': []}", 2, "this sweep is empty"),
        ("{**base, 'num_envs': 3, 'rollout_length': 7}", 1, "do not divide"),
        ("{**base, 'seed': -1}", 2, "'seed' must be"),
        ("{**base, 'actor_lr': vmapped(1, 2, only_if={'nope': 1})}", 2, "only_if of 'actor_lr': unknown key 'nope'"),
        ("{**base, 'engine': 'fast'}", 2, "unknown engine"),
    ],
)
def test_wrong_keys_are_named_with_their_line(tmp_path: Path, args: str, line: int, words: str) -> None:
    with pytest.raises(UsageError, match=rf"study\.py:{line}: .*{words}"):
        jobs_of(tmp_path, args)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("hparams = {", 1, "was never closed"),
        ("import os\nhparams = {}", 1, "not executed and cannot import 'os'"),
        ("hparams = {'args': [{'a': open('/etc/passwd').read()}]}", 1, "'open' is not called"),
        ("x = 1\n\ny = __import__('os')", 3, "not called"),
        ("x = ().__class__", 1, "'.__class__' is not read"),
        ("def f():\n    return 1", 1, "only assignments"),
        ("x = [y for y in (lambda: 1)]", 1, "Lambda"),
        ("x = 9 ** 9 ** 9", 1, "a power of numbers"),
        ("x = 'a' * 10 ** 9", 1, "arithmetic is for"),
        ("x = range(10 ** 12)", 1, "needs a list"),
        ("x = 1 / 0", 1, "no value"),
        ("x = int('seven')", 1, "no value"),
        ("x = lrs", 1, "unknown name 'lrs'"),
        ("x = 1", 1, "no 'hparams'"),
        ("\nhparams = {'args': []}", 2, "empty"),
        ("hparams = {'args': [{}], 'exlude': {}}", 1, "unknown key of hparams 'exlude'; did you mean 'exclude'"),
        ("hparams = {'args': [{}], 'file_name': '../x'}", 1, "'file_name' must be"),
        ("x = " + "[" * 300 + "]" * 300, 1, ""),
        ("hparams = {'args': [{'agent': 'ppo', 'world': 'tmaze', 'seed': 1}], 'exclude': {'seed': 1}}", 1, "excluded"),
        ("hparams = {'args': [{'agent': 'ppo', 'world': 'tmaze'}], 'exclude': {'sed': 1}}", 1, "key in exclude 'sed'"),
    ],
)
def test_what_is_no_hyperparameter_file_is_refused(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(UsageError, match=rf"study\.py:{line}: .*{words}"):
        plan_jobs(read_hyperfile(write(tmp_path, text)))


def test_markers_are_read(tmp_path: Path) -> None:
    file = read_hyperfile(write(tmp_path, "hparams = {'args': [{'a': jobs(*range(3)), 'b': vmapped([1.5, -2.0])}]}"))
    assert file.args[0].values == {"a": Marked("jobs", (0, 1, 2)), "b": Marked("vmapped", (1.5, -2.0))}


def test_a_manifest_is_read_back_and_changes_by_hand_are_seen(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, "{**base, 'actor_lr': [1e-3, 1e-4]}")
    path = tmp_path / "runs" / "study.jsonl"
    write_manifest(path, jobs)
    assert read_manifest(path) == jobs
    record = json.loads(path.read_text().splitlines()[0])
    record["config"]["seeds"] = [7]
    with pytest.raises(UsageError, match="changed by hand"):
        job_from_record(record, "here")
    for text, words in (("", "no jobs"), ("{", ":1: this line is no JSON"), ("[]", "this is no job")):
        path.write_text(text)
        with pytest.raises(UsageError, match=words):
            read_manifest(path)
    path.write_text(json.dumps(jobs[0].record) + "\n" + json.dumps(jobs[0].record) + "\n")
    with pytest.raises(UsageError, match="each job of one study once"):
        read_manifest(path)


def test_write_jobs_as_it_is_typed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / "write_jobs.py"), *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    done = run(str(STOCK / "tmaze_10_ppo.py"))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "runs" / "runs_tmaze_10_ppo.txt").read_text()
    assert text.count("\n") == 1
    assert "--study_name tmaze_10_ppo" in text
    assert len(read_manifest(tmp_path / "runs" / "tmaze_10_ppo.jsonl")) == 1
    wrong = run("nowhere.py")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "nowhere.py" in wrong.stderr
    unknown = run(str(STOCK / "tmaze_10_ppo.py"), "--nope")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    (tmp_path / "wrong.py").write_text(
        "hparams = {'args': [{'agent': 'ppo', 'world': 'tmaze_10', 'lr': '1e-3 fast'}]}\n"
    )
    refused = run("wrong.py", "--runs", "refused")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "wrong.py:1" in refused.stderr
    assert not (tmp_path / "refused").exists()
