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
WINDOW = 120


def learner(env, memory, steps):
    config = {"hidden_dims": (16,), "num_minibatches": 1, "num_epochs": 1, "rollout_length": steps}
    spaces = env.single_observation_space, env.single_action_space
    return PPOLearner.create(0, *spaces, memory=MEMORIES[memory], **config)


@pytest.mark.parametrize("egos", [1, 2])
@pytest.mark.parametrize("episodes", [1, 2, 3])
@pytest.mark.parametrize("memory", MEMORIES)
def test_training_sees_what_acting_saw_over_trials_and_limbo(memory, episodes, egos):
    """Rows that are transitions agree to 1e-5 in float32, 1 to 3 episodes a row, limbo within and after them."""
    env = HighwayTrialsVectorEnv(8, {"k_scenarios": 2, "scenario_length": WINDOW // 2, "egos": egos})
    agent = learner(env, memory, episodes * WINDOW)
    policy, params = agent.policy, {name: np.asarray(value) for name, value in agent.policy_params.items()}
    key = np.random.default_rng(0)

    def act(observations, carried):
        return policy.act(params, observations, carried, key)

    rows = Collector(env, 3, memory=policy.initial_memory(8)).collect(episodes * WINDOW, act)
    # So many episodes in a row, and egos in limbo: the sample covers what the masks are for.
    assert (rows.forget.sum(axis=0) == episodes).all()
    assert (~rows.valid).any()
    # With others on the road, limbo comes and goes within an episode too.
    back = ~rows.valid[:-1] & rows.valid[1:] & ~(np.arange(1, len(rows.valid)) % WINDOW == 0)[:, None]
    assert back.any() == (egos > 1)
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
