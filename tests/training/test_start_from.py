"""A new run that begins with the networks of another one, in another world."""

import numpy as np
import pytest

from racer.agents.registry import agent_class
from racer.core.errors import UsageError
from racer.distributed.config import OffPolicyConfig as OffPolicyLearnerConfig
from racer.distributed.config import ServiceConfig
from racer.training.checkpointing import CheckpointSaver, learnt_arrays
from racer.training.distributed import DistributedRun, DistributedRunConfig
from racer.training.off_policy import OffPolicyConfig, OffPolicyTrainer
from racer.training.on_policy import OnPolicyConfig, OnPolicyTrainer
from racer.training.on_policy_distributed import RolloutConfig
from racer.training.run_spec import spec_from_config

ENV = {"vehicles_count": 3, "duration": 4}
ACTOR_CRITIC = {"actor_hidden_dims": (8,), "critic_hidden_dims": (8,)}
CONFIGS = {
    "DistributionalSACLearner": {**ACTOR_CRITIC, "num_atoms": 11},
    "SACLearner": ACTOR_CRITIC,
    "PPOLearner": {"hidden_dims": (8,), "value_hidden_dims": (8,), "rollout_length": 16, "num_minibatches": 2},
}


def make_spec(name, seed, **world):
    return spec_from_config({"model_cls": name, **CONFIGS[name], "env": {**ENV, **world}}, seed)


def make_trainer(spec, learnt=None):
    if getattr(agent_class(spec.agent_name), "on_policy", False):
        return OnPolicyTrainer(spec, OnPolicyConfig(max_steps=64, num_envs=2), learnt=learnt)
    config = OffPolicyConfig(max_steps=64, num_envs=2, start_training=32, batch_size=8, utd_ratio=1)
    return OffPolicyTrainer(spec, config, learnt=learnt)


@pytest.fixture(scope="module", params=CONFIGS)
def finished(request, tmp_path_factory):
    """A short run that learnt something."""
    folder = tmp_path_factory.mktemp(request.param)
    trainer = make_trainer(make_spec(request.param, seed=1))
    while trainer.step < 64:
        trainer.iterate()
    trainer.save(CheckpointSaver(folder, trainer.spec, keep=1))
    return request.param, trainer.agent, folder


def test_a_new_run_begins_with_what_the_other_learnt(finished):
    name, other, folder = finished
    spec = make_spec(name, seed=2, collision_reward=-15)
    fresh, started = make_trainer(spec).agent, make_trainer(spec, learnt_arrays(str(folder), spec)).agent
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


def test_the_service_begins_with_what_the_other_learnt(finished):
    name, other, folder = finished
    spec = make_spec(name, seed=2, collision_reward=-15)
    on_policy = getattr(agent_class(name), "on_policy", False)
    learner = RolloutConfig() if on_policy else OffPolicyLearnerConfig(start_training=32, batch_size=8)
    config = DistributedRunConfig(max_steps=64, envs_per_worker=2)
    run = DistributedRun(spec, config, ServiceConfig(num_workers=1), learner, learnt=learnt_arrays(str(folder), spec))
    for key, value in run.service.agent.policy_params.items():
        np.testing.assert_array_equal(value, other.policy_params[key])


def test_a_started_run_trains_and_leaves_the_other_alone(finished):
    name, other, folder = finished
    before = other.state_arrays()
    spec = make_spec(name, seed=2, collision_reward=-15)
    trainer = make_trainer(spec, learnt_arrays(str(folder), spec))
    while trainer.step < 64:
        trainer.iterate()
    changed = [key for key, value in trainer.agent.policy_params.items() if (value != other.policy_params[key]).any()]
    assert changed
    for key, value in other.state_arrays().items():
        np.testing.assert_array_equal(value, before[key])


def test_agents_of_another_kind_or_size_are_refused(finished):
    name, _, folder = finished
    another = next(other for other in CONFIGS if other != name)
    with pytest.raises(UsageError, match=f"holds {name}"):
        learnt_arrays(str(folder), make_spec(another, seed=2))
    wider = make_spec(name, seed=2, observation={"vehicles_count": 4})
    with pytest.raises(UsageError, match="does not fit"):
        make_trainer(wider, learnt_arrays(str(folder), wider))
