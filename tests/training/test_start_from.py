"""A new run that begins with the networks of another one, in another world."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from runs import AGENTS, make_setup, make_spec, train

from racer.core.errors import UsageError
from racer.core.shipped import find_policy
from racer.evaluation.checkpoints import load_policy
from racer.training.past import upgraded_agent_config
from racer.training.run import Extras, TrainingRun, run_training
from racer.training.run_spec import RunSpec, read_run
from racer.training.saving import learnt_arrays


@pytest.fixture(scope="module", params=AGENTS)
def finished(request, tmp_path_factory):
    """A short run that learnt something."""
    folder = tmp_path_factory.mktemp(request.param)
    spec = make_spec(request.param, seed=1)
    return request.param, train(spec, make_setup(spec, max_steps=60), folder).service.agent, folder


def begin(spec, learnt=None, **changes):
    return TrainingRun(spec, make_setup(spec, **changes), learnt=learnt)


@pytest.mark.parametrize("inline", [True, False])
def test_a_new_run_begins_with_what_the_other_learnt(finished, inline):
    name, other, folder = finished
    spec = make_spec(name, seed=2, env={"collision_reward": -15})
    fresh = begin(spec).service.agent
    started = begin(spec, learnt_arrays(str(folder), spec), inline=inline).service.agent
    assert started.policy_params.keys() == other.policy_params.keys()
    for key, value in started.policy_params.items():
        np.testing.assert_array_equal(value, other.policy_params[key])
    mine, drawn, learnt = started.state_arrays(), fresh.state_arrays(), other.state_arrays()
    np.testing.assert_array_equal(mine["rng"], drawn["rng"])
    assert mine["gradient_steps"] == 0 < learnt["gradient_steps"]
    networks = [key for key in mine if key.startswith(("actor/params", "critic/params"))]
    assert any((drawn[key] != learnt[key]).any() for key in networks)
    for key in networks:
        np.testing.assert_array_equal(mine[key], learnt[key])


class Told(Exception):
    """What a run's preparation was given."""


def test_what_prepares_a_run_goes_on_from_what_it_starts_from(finished):
    name, other, folder = finished
    options = {"start_from": str(folder)}
    plan = SimpleNamespace(folder=folder, resumed=False, options=options, spec=make_spec(name, seed=2))

    def prepare(spec, learnt):
        raise Told(spec, learnt)

    with pytest.raises(Told) as told:
        run_training(plan, extras=Extras(prepare=prepare))
    spec, learnt = told.value.args
    assert spec is plan.spec
    assert learnt.keys() == other.state_arrays().keys()
    for key, value in other.state_arrays().items():
        np.testing.assert_array_equal(learnt[key], value)
    del options["start_from"]
    with pytest.raises(Told) as told:
        run_training(plan, extras=Extras(prepare=prepare))
    assert told.value.args[1] is None


def test_a_started_run_trains_and_leaves_the_other_alone(finished, tmp_path):
    name, other, folder = finished
    before = other.state_arrays()
    spec = make_spec(name, seed=2, env={"collision_reward": -15})
    training = begin(spec, learnt_arrays(str(folder), spec))
    training.service.run(60)
    learnt = training.service.agent.policy_params
    assert any((value != other.policy_params[key]).any() for key, value in learnt.items())
    for key, value in other.state_arrays().items():
        np.testing.assert_array_equal(value, before[key])


def test_agents_of_another_kind_or_size_are_refused(finished):
    name, _, folder = finished
    another = next(other for other in AGENTS if other != name)
    with pytest.raises(UsageError, match=f"holds {name}"):
        learnt_arrays(str(folder), make_spec(another, seed=2))
    wider = make_spec(name, seed=2, env={"observation": {"vehicles_count": 5}})
    with pytest.raises(UsageError, match="does not fit"):
        begin(wider, learnt_arrays(str(folder), wider))


@pytest.mark.slow
def test_a_shipped_policy_lends_its_actor_and_the_rest_is_fresh(capsys):
    trained = load_policy("highway-ppo")
    world = {**trained.env_config, "flatten_observation": False}
    spec = RunSpec("PPOLearner", upgraded_agent_config(trained.agent_config), world, 3)
    learnt = learnt_arrays("policies/highway-ppo", spec)
    note = capsys.readouterr().err
    assert "note: policies/highway-ppo is an exported policy" in note
    setup = make_setup(spec, max_steps=4096)
    started, fresh = (TrainingRun(spec, setup, learnt=arrays).service.agent for arrays in (learnt, None))
    for name, value in started.policy_params.items():
        np.testing.assert_array_equal(value, trained.params[name])
    mine, drawn = started.state_arrays(), fresh.state_arrays()
    assert any((mine[name] != drawn[name]).any() for name in mine if name.startswith("actor/params"))
    for name in mine:
        if not name.startswith("actor/params"):
            np.testing.assert_array_equal(mine[name], drawn[name])


@pytest.mark.slow
def test_an_actor_of_another_size_is_refused():
    trained = load_policy("highway-ppo")
    config = {**upgraded_agent_config(trained.agent_config), "hidden_dims": [16]}
    spec = RunSpec("PPOLearner", config, {**trained.env_config, "flatten_observation": False}, 3)
    with pytest.raises(UsageError, match="actor/params"):
        TrainingRun(spec, make_setup(spec, max_steps=4096), learnt=learnt_arrays("highway-ppo", spec))


def test_resuming_an_exported_policy_says_why_not():
    with pytest.raises(UsageError, match=r"exported policy, .* begin a new run with its actor: --start_from"):
        read_run(find_policy("highway-ppo"))
