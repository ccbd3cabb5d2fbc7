"""Following the gradient of a differentiable cost."""

from __future__ import annotations

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents.descent import descend
from racer.agents.ppo import PPOLearner
from racer.core.errors import UsageError

BOX = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
ACTIONS = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)
SEEN = np.random.default_rng(0).uniform(-1, 1, (64, 3)).astype(np.float32)


def learner(**config):
    return PPOLearner.create(0, BOX, ACTIONS, hidden_dims=(16,), value_hidden_dims=(16,), **config)


def cost(act):
    def of(params, count, key):
        return jnp.mean(jnp.square(act(params, jnp.asarray(SEEN))[:, 0] - 1.5 * SEEN[:, 1])), count + 1

    return of


@pytest.mark.parametrize("distribution", ["tanh_gaussian", "beta"])
def test_the_policy_goes_where_the_cost_is_low(distribution):
    before = learner(distribution=distribution)
    after, costs = descend(before, cost, jnp.int32(0), steps=400, learning_rate=1e-2, seed=0)
    assert costs.shape == (400,)
    assert costs[0] > 0.3
    assert costs[-1] < 0.02
    memory = after.policy.initial_memory(64)
    actions, _, _ = after.policy.act(after.policy_params, SEEN, memory, np.random.default_rng(0), deterministic=True)
    np.testing.assert_allclose(np.mean(np.square(actions[:, 0] - 1.5 * SEEN[:, 1])), costs[-1], atol=5e-3)
    one, two = before.state_arrays(), after.state_arrays()
    for name in one:
        if name.startswith("critic/params"):
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_a_policy_with_a_memory_is_refused():
    with pytest.raises(UsageError, match="without a memory"):
        descend(learner(memory="gru"), cost, jnp.int32(0), steps=1, learning_rate=1e-2, seed=0)
