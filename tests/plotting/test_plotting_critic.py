"""The critic's picture from a real checkpoint."""

import numpy as np
import pytest

from racer.core.checkpoint import write_checkpoint
from racer.core.errors import UsageError
from racer.envs.registry import get_world
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.episodes import evaluate_policy
from racer.plotting.critic import record_critic
from racer.training.run_spec import create_agent, spec_from_config
from racer.training.saving import policy_metadata

SEED = 10_000
WORLD = get_world("highway")
ENV = {"engine": "highway-env", "vehicles_count": 3, "duration": 2}
SMALL = {"actor_hidden_dims": (8,), "critic_hidden_dims": (8,)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    config = {"model_cls": "DistributionalSACLearner", "num_atoms": 11, "q_min": -5.0, "q_max": 5.0}
    spec = spec_from_config({"env": ENV, **SMALL, **config}, seed=1)
    env = WORLD.film.make(spec.env_config)
    agent = create_agent(spec, env.observation_space, env.action_space)
    env.close()
    groups = {"policy": agent.policy_params, "agent": agent.state_arrays()}
    metadata = policy_metadata(spec, agent)
    return agent, groups, metadata, write_checkpoint(tmp_path_factory.mktemp("run"), 5, groups, metadata)


def mode(trained, observation):
    """The most likely action [A]."""
    memory = trained.policy.initial_memory(1)
    return trained.policy.act(trained.params, observation[None], memory, None, deterministic=True)[0][0]


def test_recorded_distributions_are_those_of_the_critics(written):
    agent, _, _, path = written
    episode = record_critic(path, SEED)
    assert episode.atoms.tolist() == np.linspace(-5.0, 5.0, 11).tolist()
    assert len(episode.frames) == len(episode.rewards) == len(episode.probs)
    np.testing.assert_allclose(episode.probs.sum(axis=1), 1.0, atol=1e-6)

    trained = load_policy(path)
    found = evaluate_policy(trained.policy, trained.params, WORLD, trained.env_config, [SEED]).episodes[0]
    assert episode.rewards.sum() == pytest.approx(found.metrics["return"])

    env = WORLD.film.make(trained.env_config)
    observation, _ = env.reset(seed=SEED)
    env.close()
    action = mode(trained, observation)
    logits = np.asarray(
        agent.static.critic(agent.state.critic.params, agent.policy.viewed(observation[None]), action[None, None])
    )[:, 0, 0]
    expected = np.mean([np.exp(row) / np.exp(row).sum() for row in logits], axis=0)
    np.testing.assert_allclose(episode.probs[0], expected, atol=1e-5)


def test_pictures_are_of_the_states_that_the_distributions_are_of(written):
    *_, path = written
    episode = record_critic(path, SEED)
    trained = load_policy(path)
    env = WORLD.film.make(WORLD.resolve({**trained.env_config, **WORLD.film.still}))
    observation, _ = env.reset(seed=SEED)
    for frame in episode.frames:
        np.testing.assert_array_equal(frame, env.render()[-1])
        observation, *_ = env.step(mode(trained, observation))
    env.close()


def test_agents_without_a_distribution_are_named(written, tmp_path):
    _, groups, metadata, _ = written
    path = write_checkpoint(tmp_path, 5, groups, {**metadata, "agent_name": "SACLearner"})
    with pytest.raises(UsageError, match="SACLearner"):
        record_critic(path, SEED)


def test_checkpoints_without_the_agent_are_named(written, tmp_path):
    _, groups, metadata, _ = written
    path = write_checkpoint(tmp_path, 5, {"policy": groups["policy"]}, metadata)
    with pytest.raises(UsageError, match="no 'agent' group"):
        record_critic(path, SEED)
