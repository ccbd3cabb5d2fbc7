"""``python -m racer diverge``: two programs side by side, from the command line."""

from dataclasses import replace

import numpy as np
import pytest

import racer.__main__ as program
import racer.evaluation.diverge as module
from racer.envs.registry import get_world

SMALL = ["--env.vehicles_count=5", "--env.duration=4", "--num_episodes", "2", "--action_scale", "0.02"]


def run(capsys, *arguments: str, world: str = "highway") -> tuple[int, str, str]:
    code = program.main(["diverge", world, *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_compiled_highway_equals_highway_env_to_the_last_bit(capsys):
    code, out, err = run(capsys, *SMALL)
    assert (code, err) == (0, "")
    steps, _ = out.split(" steps in 2 episodes equal, highway beside engine=highway-env: ")
    assert int(steps) > 2


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"lanes_count": 3}, "reset: observation["),
        ({"reward_speed_range": [10, 30]}, ": reward[0]"),
        ({"max_episode_steps": 2}, ": truncated[0] is "),
    ],
)
def test_the_first_difference_is_named(changed, what, capsys, monkeypatch):
    other = replace(get_world("highway"), reference=changed)
    monkeypatch.setattr(module, "get_world", lambda name: other)
    code, out, err = run(capsys, *SMALL, "--native")
    assert code == 1
    assert "seed 0, " in err
    assert what in err
    assert " in 0 episodes equal" in out


@pytest.mark.parametrize(
    ("world", "arguments", "line"),
    [
        ("tmaze", [], "stands for no other program"),
        ("highways", [], "'highway'"),
        ("highway", ["--max_steps", "0"], "max_steps must be at least 1"),
        ("highway", ["--action_scale", "nan"], "action_scale must be at least 0"),
        ("highway", ["--num_episodes", "0"], "num_episodes must be at least 1"),
        ("highway", ["--env.lane_count=3"], "lanes_count"),
        ("highway", ["--env.engine=highway-env"], "engine is what the two sides differ by"),
    ],
)
def test_what_cannot_be_compared_is_one_line(world, arguments, line, capsys):
    code, _, err = run(capsys, *arguments, world=world)
    assert code == 2
    assert line in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        (np.zeros((1,)), np.float64(0.0), "reward is float64 of shape (1,), the reference has float64 of shape ()"),
        (np.zeros((2, 1)), np.zeros((1, 2)), "shape (2, 1), the reference has float64 of shape (1, 2)"),
        (np.zeros(2, np.float32), np.zeros(2), "reward is float32 of shape (2,), the reference has float64"),
        (np.array([0.0, 1.0]), np.array([0.0, 2.0]), "reward[1] is "),
        (np.array([np.nan, 1.0]), np.array([np.nan, 1.0]), None),
    ],
)
def test_arrays_that_differ_in_shape_or_type_are_not_equal(ours, theirs, difference):
    found = module._difference(("reward",), [[ours], [theirs]], "here")
    assert (found is None) == (difference is None)
    assert difference is None or difference in found
