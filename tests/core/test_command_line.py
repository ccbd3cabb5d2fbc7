"""What ``racer`` prints of itself, and what it answers to words that it does not know."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from absl import flags

import racer
import racer.__main__ as program
from racer.agents.registry import agent_config, agents_described, full_name
from racer.core.config import sentences
from racer.core.flag_help import own_flags
from racer.core.shipped import shipped
from racer.envs.registry import get_world, world_names
from racer.training.command import define_flags
from racer.training.options import FLAG_GROUPS

ROOT = Path(__file__).parents[2]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that ends well, or its help, prints."""
    with contextlib.suppress(SystemExit):
        assert program.main(list(words)) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert program.main(list(words)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_alone_it_prints_its_commands(capsys):
    assert program.main([]) == 2
    text, error = capsys.readouterr()
    assert error == ""
    assert text == printed(capsys, "--help")
    for name in ("train", "sweep", *program.COMMANDS):
        assert re.search(rf"^    {name} +\w+", text, re.MULTILINE)


def test_sweep_alone_prints_its_commands(capsys):
    assert program.main(["sweep"]) == 2
    text, error = capsys.readouterr()
    assert (text, error) == (printed(capsys, "sweep", "--help"), "")


def test_the_version(capsys):
    assert printed(capsys, "--version") == f"racer {racer.__version__}\n"


def test_what_comes_along_is_listed_with_a_line_each(capsys):
    whole = printed(capsys, "list")
    kinds = {
        "policies": shipped("policies"), "configs": shipped("configs"), "worlds": world_names(),
        "agents": agents_described(),
    }  # fmt: skip
    for kind, names in kinds.items():
        part = printed(capsys, "list", kind)
        assert part in whole
        for name in names:
            assert re.search(rf"^  {re.escape(name)} +\w.{{10}}", part, re.MULTILINE)
    assert re.search(r"^  highway-cvar +DistributionalSACLearner in world highway, 750,016 ", whole, re.MULTILINE)
    assert "did you mean 'worlds'?" in refused(capsys, "list", "world")
    assert full_name("cvar") in whole


@pytest.mark.parametrize("command", [name for name, command in program.COMMANDS.items() if command.overrides])
def test_help_says_how_keys_of_the_world_are_changed(capsys, command):
    assert "--env.KEY=VALUE" in printed(capsys, command, "--help")


def test_help_leaves_commands_on_lines_of_their_own(capsys):
    lines = printed(capsys, "inspect", "--help").splitlines()
    assert "    python -m racer inspect policies/trials_run_42 --output trace.jsonl" in lines


@pytest.mark.parametrize(
    "words",
    [["evaluate", "highway-ppo"], ["inspect", "highway-ppo"], ["diverge", "highway"]],
)
def test_a_flag_that_is_a_key_of_the_world_is_told_its_prefix(capsys, words):
    line = refused(capsys, *words, "--engine", "highway-env")
    assert "'engine' is a key of world 'highway': write --env.engine=VALUE" in line
    assert "did you mean '--env.lanes_count'?" in refused(capsys, *words, "--lane_count=3")


def test_a_second_policy_and_a_flag_that_took_the_policy(capsys):
    assert "--against RUN" in refused(capsys, "evaluate", "highway-ppo", "highway-cvar")
    for flag in ("report", "render", "compare_random", "memory_controls"):
        line = refused(capsys, "evaluate", f"--{flag}", "highway-ppo")
        assert f"got 'highway-ppo'; before another word write --{flag}=true" in line


def test_the_help_of_train_has_every_flag_once_in_groups_and_every_key(capsys):
    text = printed(capsys, "train", "--world", "tmaze", "--agent", "ppo", "--help")
    values = flags.FlagValues()
    define_flags(values)
    entries = re.findall(r"^  --(\S+)  \(default: (.*)\)$", text, re.MULTILINE)
    names = [name for name, _ in entries]
    keys = [f"config.{name}" for name in sentences(agent_config("ppo"))]
    keys += [f"config.env.{name}" for name in get_world("tmaze").resolve({})]
    assert sorted(names) == sorted([*own_flags(values), "config", "debug", *keys])
    headings = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert headings == [*FLAG_GROUPS, "Keys of agent ppo", "Keys of world tmaze"]
    defaults = dict(entries)
    told = [defaults[name] for name in ("deterministic", "resume", "config.hidden_dims", "config.memory", "max_steps")]
    assert told == ["False", "None", "(256, 256)", "None", "100000"]
    assert "!!" not in text
    assert "Factor on the next step's return." in text
    assert "cells of the corridor" in text


def test_help_without_an_agent_says_how_to_see_its_keys(capsys):
    assert "With --agent NAME and --world NAME, --help lists their keys too." in printed(capsys, "train", "--help")
    assert "Keys of world tmaze" in printed(capsys, "train", "--world", "tmaze", "--help")


@pytest.mark.parametrize("name", [*world_names(), "gym:CartPole-v1"])
def test_every_key_of_a_world_has_a_sentence(name):
    world = get_world(name)
    assert set(world.sentences) == set(world.resolve({}))
    assert all(len(sentence) > 8 for sentence in world.sentences.values())


def test_whole_numbers_may_be_written_as_floats(capsys):
    assert "got 0" in refused(capsys, "evaluate", "highway-ppo", "--num_episodes", "0e1")
    assert "invalid int value: '1.5'" in refused(capsys, "evaluate", "highway-ppo", "--num_episodes", "1.5")


def test_nobody_is_told_to_install_another_authors_package():
    """The package index has a ``racer`` that is not this one: an extra is installed from the checkout."""
    folders = ("racer", "docs", "examples", "benchmarks", "scripts")
    files = [ROOT / "README.md", *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    texts = [path for path in files if path.suffix in (".py", ".md", ".yaml", ".ipynb")]
    assert len(texts) > 100
    assert not [path for path in texts if re.search(r"install[^.\n]* ['\"]?racer\b", path.read_text(encoding="utf-8"))]
