"""Critics against plain float64 arithmetic."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.networks.critics import LAYER_NORM_EPSILON, EnsembleCritic, ValueHeads, normalised_relu
from racer.networks.encoders import PointNet
from racer.networks.torso import Torso


def randomized(params: dict) -> dict:
    """Give every parameter, biases and norms included, a value that is not its initial one."""
    rng = np.random.default_rng(3)
    return {name: leaf + 0.3 * rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in params.items()}


def reference_member(params: dict, member: int, inputs: np.ndarray, normalise: bool) -> np.ndarray:
    """Evaluate one ensemble member as a textbook perceptron."""
    p = {name.removeprefix("members/"): np.asarray(value[member], np.float64) for name, value in params.items()}
    kernel = np.concatenate([p["hidden_0_feature_kernel"], p["hidden_0_action_kernel"]])
    hidden = inputs @ kernel + p["hidden_0_bias"]
    for index in range(2):
        if index:
            hidden = hidden @ p[f"hidden_{index}_kernel"] + p[f"hidden_{index}_bias"]
        if normalise:
            spread = np.sqrt(hidden.var(-1, keepdims=True) + LAYER_NORM_EPSILON)
            hidden = (hidden - hidden.mean(-1, keepdims=True)) / spread
            hidden = hidden * p[f"norm_{index}_scale"] + p[f"norm_{index}_bias"]
        hidden = np.maximum(hidden, 0.0)
    return hidden @ p["output_kernel"] + p["output_bias"]


@pytest.mark.parametrize("normalise", [False, True])
def test_ensemble_equals_separate_perceptrons(normalise: bool) -> None:
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(5, 7)).astype(np.float32)
    actions = rng.normal(size=(2, 5, 3)).astype(np.float32)
    critic = EnsembleCritic(Torso((7,), observation_scale=0.5), 3, 3, (8, 6), 4, use_layer_norm=normalise)
    params = randomized(critic.init(jax.random.PRNGKey(0)))
    found = critic(params, jnp.asarray(observations), actions)
    assert found.shape == (3, 2, 5, 4)
    for member in range(3):
        for kind in range(2):
            inputs = np.concatenate([0.5 * observations, actions[kind]], axis=1).astype(np.float64)
            expected = reference_member(params, member, inputs, normalise)
            np.testing.assert_allclose(found[member, kind], expected, atol=2e-5)


def test_written_out_derivative_equals_finite_differences() -> None:
    rng = np.random.default_rng(5)
    inputs, scale, bias, weight = (rng.normal(size=s) for s in ((2, 3, 4), (2, 4), (2, 4), (2, 3, 4)))
    inputs -= inputs.mean(-1, keepdims=True)

    def total(x: np.ndarray, s: np.ndarray, b: np.ndarray) -> float:
        spread = np.sqrt(np.square(x).mean(-1, keepdims=True) + LAYER_NORM_EPSILON)
        return float(np.sum(weight * np.maximum(x / spread * s[:, None] + b[:, None], 0.0)))

    arguments = [inputs, scale, bias]
    slopes = jax.grad(lambda *x: jnp.sum(weight * normalised_relu(*x)), argnums=(0, 1, 2))(
        *(jnp.asarray(x, jnp.float32) for x in arguments)
    )
    for which, slope in enumerate(slopes):
        numeric = np.zeros_like(arguments[which])
        for place in np.ndindex(*numeric.shape):
            up, down = ([x.copy() for x in arguments] for _ in range(2))
            up[which][place] += 1e-6
            down[which][place] -= 1e-6
            numeric[place] = (total(*up) - total(*down)) / 2e-6
        np.testing.assert_allclose(slope, numeric, atol=1e-4)


def test_members_start_different_and_keep_their_names() -> None:
    critic = EnsembleCritic(Torso((3, 4), encoder=PointNet((8,))), 2, 2, (8,), 1, use_layer_norm=True)
    params = critic.init(jax.random.PRNGKey(0))
    assert set(params) == {
        "encoder/member/row_0/kernel", "encoder/member/row_0/bias", "members/hidden_0_feature_kernel",
        "members/hidden_0_action_kernel", "members/hidden_0_bias", "members/norm_0_scale", "members/norm_0_bias",
        "members/output_kernel", "members/output_bias",
    }  # fmt: skip
    for name, value in params.items():
        if name.endswith("kernel"):
            assert not np.allclose(value[0], value[1]), name


def test_critic_with_pointnet_ignores_the_order_of_the_other_rows_but_not_of_the_first() -> None:
    critic = EnsembleCritic(Torso((5, 6), encoder=PointNet((8,))), 2, 2, (16,), 5)
    params = critic.init(jax.random.PRNGKey(0))
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 6)), jnp.float32)
    actions = np.random.default_rng(1).normal(size=(1, 3, 2)).astype(np.float32)
    found = critic(params, rows, actions)
    np.testing.assert_allclose(critic(params, rows[:, jnp.array([0, 4, 2, 1, 3])], actions), found, atol=1e-6)
    assert not np.allclose(critic(params, rows[:, jnp.array([1, 0, 2, 3, 4])], actions), found)
    assert not np.allclose(found[0], found[1])


def test_value_heads_read_the_policys_features_or_observations_of_their_own() -> None:
    rng = np.random.default_rng(0)
    features, observations = (jnp.asarray(rng.normal(size=(4, n)), jnp.float32) for n in (6, 3))
    shared = ValueHeads(None, 6, heads=2)
    params = shared.init(jax.random.PRNGKey(0))
    expected = features @ params["value/kernel"] + params["value/bias"]
    np.testing.assert_allclose(shared(params, features, observations), expected, rtol=1e-6)
    torso = Torso((3,), (5,))
    own = ValueHeads(torso, torso.width)
    params = own.init(jax.random.PRNGKey(0))
    assert set(params) == {"trunk/hidden_0/kernel", "trunk/hidden_0/bias", "value/kernel", "value/bias"}
    assert own(params, features, observations).shape == (4, 1)
    np.testing.assert_array_equal(own(params, features, observations), own(params, features + 1.0, observations))
