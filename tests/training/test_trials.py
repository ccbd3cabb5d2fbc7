"""PPO with a memory over episodes of several trials: acting and training agree, over limbo too."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from racer.agents.ppo import PPOLearner
from racer.envs.trials.vector import HighwayTrialsVectorEnv
from racer.replay.collector import Collector
from racer.replay.sequence import join_rollouts

MEMORIES = {
    "gru": {"kind": "gru", "size": 16},
    "transformer": {"kind": "transformer", "embed": 16, "layers": 2, "heads": 2, "length": 200},
}
STEPS = 200


def learner(env, memory):
    config = {"hidden_dims": (16,), "num_minibatches": 1, "num_epochs": 1, "rollout_length": STEPS}
    spaces = env.single_observation_space, env.single_action_space
    return PPOLearner.create(0, *spaces, memory=MEMORIES[memory], **config)


@pytest.mark.parametrize("memory", MEMORIES)
def test_training_sees_what_acting_saw_over_trials_and_limbo(memory):
    """Rows that are transitions agree to 1e-5 in float32, with the end of an episode, limbo and a new one in a row."""
    env = HighwayTrialsVectorEnv(2, {"k_scenarios": 2, "scenario_length": 45})
    agent = learner(env, memory)
    policy, params = agent.policy, {name: np.asarray(value) for name, value in agent.policy_params.items()}
    key = np.random.default_rng(0)

    def act(observations, carried):
        return policy.act(params, observations, carried, key)

    rows = Collector(env, 3, memory=policy.initial_memory(2)).collect(STEPS, act)
    # Several episodes in a row, and egos in limbo: the sample covers what the masks are for.
    assert (rows.forget.sum(axis=0) >= 2).all()
    assert (~rows.valid).any()
    joined = join_rollouts([rows])
    carried = {name.removeprefix("memory/"): joined[name] for name in joined if name.startswith("memory/")}
    unroll = jax.jit(policy.unroll)
    distribution, _, _ = unroll(
        agent.state.actor.params, joined["observations"][:-1], carried, joined["forget"].astype(np.float32),
        joined["valid"].astype(np.float32),
    )  # fmt: skip
    found = policy.head.log_probs(distribution, joined["actions"].astype(np.int32), None)
    valid = joined["valid"]
    np.testing.assert_allclose(np.asarray(found)[valid], joined["log_probs"][valid], atol=1e-5)
    assert np.ptp(joined["log_probs"][valid]) > 1e-3
