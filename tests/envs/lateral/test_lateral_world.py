"""The world as the rest of the house sees it: what it holds out, what its drivers drive in."""

from __future__ import annotations

import pytest

from racer.core.errors import UsageError
from racer.envs.lateral.generator import generate_route
from racer.envs.lateral.routes import Route, file_split, write_route
from racer.envs.registry import get_world
from racer.evaluation.checkpoints import load_policy
from racer.training.run import make_evaluation
from racer.training.run_spec import spec_from_config


def test_a_policy_is_judged_by_routes_that_it_was_not_trained_on():
    world = get_world("lateral")
    trained_in = world.resolve({"split": "train", "max_steps": 50})
    assert world.held_out(trained_in) == {**trained_in, "split": "validation"}
    tested_in = world.resolve({"split": "test"})
    assert world.held_out(tested_in) == tested_in


def test_what_is_held_out_is_looked_for_before_training(tmp_path):
    table = generate_route(0, "train", 0).table
    names = [name for name in (f"{i:05d}.csv" for i in range(20)) if file_split(name) == "train"]
    for name in names:
        write_route(tmp_path / name, Route(name, table))
    spec = spec_from_config({"model_cls": "ppo", "world": "lateral", "env": {"routes": str(tmp_path)}}, seed=0)
    with pytest.raises(UsageError, match=rf"none of the {len(names)} routes .* belongs to the split 'validation'"):
        make_evaluation(spec, 2)


def test_drivers_steer_themselves():
    assert load_policy("driver:lateral/pid").env_config["action"] == "steer"
    with pytest.raises(UsageError, match="did you mean 'pid'"):
        load_policy("driver:lateral/pdi")
