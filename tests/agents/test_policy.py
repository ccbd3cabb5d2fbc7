"""NumPy policies: equal to the JAX actor, complete in their specification, free of JAX."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents.policy import build_policy, bytes_to_params, params_to_bytes
from racer.core.errors import UsageError
from racer.networks.gaussian import sample_squashed

ENCODERS = [
    {},
    {"observation_scale": 0.05},
    {"pointnet_dims": (8, 5), "vehicle_features": 3, "observation_scale": (1.0, 0.1, 0.5)},
]


class FixedNoise:
    """A generator whose normal draws are known."""

    def __init__(self, noise: np.ndarray) -> None:
        self.noise = noise

    def standard_normal(self, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        return self.noise.reshape(shape).astype(dtype)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", ["DistributionalSACLearner", "SACLearner"])
def test_numpy_policy_equals_the_actor(make_agent: Callable[..., Any], name: str, encoder: dict[str, Any]) -> None:
    agent = make_agent(name, **encoder)
    policy = build_policy(json.loads(json.dumps(agent.policy_spec)))
    params = bytes_to_params(params_to_bytes(agent.policy_params))
    rng = np.random.default_rng(0)
    observations = rng.normal(scale=30.0, size=(40, 12)).astype(np.float32)
    noise = rng.normal(size=(40, 2)).astype(np.float32)

    found = policy.act(params, observations, rng, deterministic=True)
    np.testing.assert_allclose(found, agent.eval_actions(observations), atol=1e-5)

    mean, log_std = agent.recipe.gaussian(agent.state.actor.params, observations)
    low, high = params["action_low"], params["action_high"]
    expected = sample_squashed(mean, log_std, jnp.asarray(noise), low, high).actions
    found = policy.act(params, observations, FixedNoise(noise))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32
    assert policy.spec == agent.policy_spec


def test_actions_stay_in_the_range_of_the_parameters(make_agent: Callable[..., Any]) -> None:
    agent = make_agent()
    policy, params = build_policy(agent.policy_spec), agent.policy_params
    params["mean/bias"] = params["mean/bias"] + np.array([50.0, -50.0], np.float32)
    actions = policy.act(params, np.zeros((5, 12), np.float32), np.random.default_rng(0))
    np.testing.assert_allclose(actions, np.tile([1.0, -0.2], (5, 1)), atol=1e-6)
    assert np.all(actions >= params["action_low"])
    assert np.all(actions <= params["action_high"])


def test_policies_are_stochastic_by_default_and_follow_the_generator(make_agent: Callable[..., Any]) -> None:
    agent = make_agent()
    policy, params = build_policy(agent.policy_spec), agent.policy_params
    observations = np.zeros((3, 12), np.float32)
    first, extras = policy.act_with_extras(params, observations, np.random.default_rng(7))
    np.testing.assert_array_equal(first, policy.act(params, observations, np.random.default_rng(7)))
    assert not np.allclose(first, policy.act(params, observations, np.random.default_rng(8)))
    assert extras == {}


def test_wrong_observation_width_is_named(make_agent: Callable[..., Any]) -> None:
    agent = make_agent()
    policy = build_policy(agent.policy_spec)
    with pytest.raises(UsageError, match=r"\[N, 12\].*\[2, 13\]"):
        policy.act(agent.policy_params, np.zeros((2, 13), np.float32), np.random.default_rng(0))


def test_uniform_policy_fills_its_range() -> None:
    policy = build_policy({"kind": "uniform", "action_low": [-1.0, 0.0], "action_high": [1.0, 5.0]})
    actions = policy.act({}, np.zeros((4000, 3), np.float32), np.random.default_rng(0))
    assert actions.dtype == np.float32
    assert np.all((actions >= [-1, 0]) & (actions <= [1, 5]))
    np.testing.assert_allclose(actions.mean(0), [0.0, 2.5], atol=0.1)
    assert build_policy(policy.spec).spec == policy.spec
    with pytest.raises(UsageError, match="bounded"):
        build_policy({"kind": "uniform", "action_low": [-np.inf], "action_high": [1.0]})


def test_specifications_are_checked(make_agent: Callable[..., Any]) -> None:
    spec = make_agent().policy_spec
    with pytest.raises(UsageError, match="'squashed_gausian'; did you mean 'squashed_gaussian'"):
        build_policy({**spec, "kind": "squashed_gausian"})
    with pytest.raises(UsageError, match="'action_dims'; did you mean 'action_dim'"):
        build_policy({**spec, "action_dims": 2})
    with pytest.raises(UsageError, match="lacks: action_dim"):
        build_policy({key: value for key, value in spec.items() if key != "action_dim"})
    with pytest.raises(UsageError, match="unknown activation 'rlu'"):
        build_policy({**spec, "trunk": {**spec["trunk"], "activation": "rlu"}})


def test_damaged_parameters_are_refused() -> None:
    data = params_to_bytes({"a": np.ones(3, np.float32)})
    np.testing.assert_array_equal(bytes_to_params(data)["a"], np.ones(3, np.float32))
    with pytest.raises(UsageError, match="safetensors"):
        bytes_to_params(data[:-4])


def test_acting_does_not_import_jax() -> None:
    program = (
        "import sys, numpy as np, racer.agents, racer.agents.policy as p;"
        "p.build_policy({'kind': 'uniform', 'action_low': [0.0], 'action_high': [1.0]});"
        "import racer.agents.policy.squashed_gaussian;"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
