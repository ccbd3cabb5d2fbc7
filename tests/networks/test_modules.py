"""Flax modules against plain float64 arithmetic."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.networks.critics import EnsembleCritic
from racer.networks.encoders import Encoder, EncoderSpec, scale_observations
from racer.networks.gaussian import GaussianActor, sample_squashed, squash
from racer.networks.mlp import LAYER_NORM_EPSILON, EnsembleMLP, normalised_relu


def randomized(variables: dict) -> dict:
    """Give every parameter, biases and norms included, a value that is not its initial one."""
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(3)
    moved = [leaf + 0.3 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(tree, moved)


def reference_member(params: dict, member: int, inputs: np.ndarray, normalise: bool) -> np.ndarray:
    """Evaluate one ensemble member as a textbook perceptron."""
    p = {name: np.asarray(value[member], np.float64) for name, value in params.items()}
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
    features = rng.normal(size=(5, 7)).astype(np.float32)
    actions = rng.normal(size=(2, 5, 3)).astype(np.float32)
    module = EnsembleMLP(3, (8, 6), 4, use_layer_norm=normalise)
    variables = randomized(module.init(jax.random.PRNGKey(0), features, actions))
    found = module.apply(variables, features, actions)
    assert found.shape == (3, 2, 5, 4)
    for member in range(3):
        for kind in range(2):
            inputs = np.concatenate([features, actions[kind]], axis=1).astype(np.float64)
            expected = reference_member(variables["params"], member, inputs, normalise)
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


def test_ensemble_members_start_different() -> None:
    module = EnsembleMLP(2, (8,), 1)
    variables = module.init(jax.random.PRNGKey(0), np.ones((1, 4), np.float32), np.ones((1, 1, 2), np.float32))
    for name, value in variables["params"].items():
        if name.endswith("kernel"):
            assert not np.allclose(value[0], value[1]), name


def rows_of(observations: np.ndarray, features: int) -> np.ndarray:
    return observations.reshape(len(observations), -1, features)


def test_pointnet_ignores_the_order_of_the_other_vehicles_but_not_who_the_ego_is() -> None:
    spec = EncoderSpec(pointnet_dims=(16, 8), vehicle_features=6)
    observations = np.random.default_rng(0).normal(size=(4, 90)).astype(np.float32)
    module = Encoder(spec)
    variables = module.init(jax.random.PRNGKey(1), observations)
    rows = rows_of(observations, 6)
    order = np.concatenate([[0], 1 + np.random.default_rng(2).permutation(14)])
    shuffled = rows[:, order].reshape(4, 90)
    swapped = rows[:, [1, 0, *range(2, 15)]].reshape(4, 90)
    found = module.apply(variables, observations)
    assert found.shape == (4, spec.output_dim(90))
    np.testing.assert_allclose(module.apply(variables, shuffled), found, rtol=1e-6)
    assert not np.allclose(module.apply(variables, swapped), found)


def test_critic_with_pointnet_ignores_the_order_of_the_other_vehicles() -> None:
    critic = EnsembleCritic(2, (16,), 5, EncoderSpec(pointnet_dims=(8,), vehicle_features=6))
    observations = np.random.default_rng(0).normal(size=(3, 30)).astype(np.float32)
    actions = np.random.default_rng(1).normal(size=(1, 3, 2)).astype(np.float32)
    variables = critic.init(jax.random.PRNGKey(0), observations, actions)
    shuffled = rows_of(observations, 6)[:, [0, 4, 2, 1, 3]].reshape(3, 30)
    found = critic.apply(variables, observations, actions)
    np.testing.assert_allclose(critic.apply(variables, shuffled, actions), found, atol=1e-6)
    assert not np.allclose(found[0], found[1])


def test_observation_scale_is_one_factor_or_one_for_each_vehicle_feature() -> None:
    observations = np.arange(1.0, 7.0, dtype=np.float32)[None]
    np.testing.assert_allclose(scale_observations(EncoderSpec(0.5), observations), observations * 0.5)
    per_feature = EncoderSpec((1.0, 10.0, 100.0), vehicle_features=3)
    np.testing.assert_allclose(scale_observations(per_feature, observations), [[1, 20, 300, 4, 50, 600]])


def test_squashed_density_by_the_change_of_variables() -> None:
    rng = np.random.default_rng(0)
    mean, log_std, noise = (rng.normal(size=(50, 2)) for _ in range(3))
    low, high = np.array([-1.0, -0.2]), np.array([0.5, 0.2])
    drawn = sample_squashed(*(jnp.asarray(x, jnp.float32) for x in (mean, log_std, noise, low, high)))
    raw = mean + np.exp(log_std) * noise
    half = 0.5 * (high - low)
    actions = 0.5 * (high + low) + half * np.tanh(raw)
    gaussian = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
    expected = (gaussian - np.log(half * (1 - np.tanh(raw) ** 2))).sum(-1)
    np.testing.assert_allclose(drawn.actions, actions, atol=1e-5)
    np.testing.assert_allclose(drawn.raw, raw, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(drawn.log_probs, expected, rtol=2e-3, atol=1e-3)


def test_saturated_actions_keep_finite_densities_and_gradients() -> None:
    def total(mean: jax.Array) -> jax.Array:
        zeros = jnp.zeros_like(mean)
        drawn = sample_squashed(mean, zeros, zeros, jnp.full(2, -1.0), jnp.full(2, 1.0))
        return jnp.sum(drawn.log_probs)

    value, slope = jax.value_and_grad(total)(jnp.array([[40.0, -60.0]]))
    assert np.isfinite(value)
    assert np.all(np.isfinite(slope))
    assert np.all(np.abs(squash(jnp.array([90.0, -90.0]), -0.2, 0.2)) <= 0.2)


def test_actor_clips_the_standard_deviation() -> None:
    actor = GaussianActor((4,), 2)
    variables = actor.init(jax.random.PRNGKey(0), np.ones((1, 3), np.float32))
    variables = jax.tree.map(lambda leaf: leaf * 0 + 1e3, variables)
    _, log_std = actor.apply(variables, np.ones((1, 3), np.float32))
    np.testing.assert_allclose(log_std, 2.0)
