"""The losses of the distributional learner against float64 arithmetic written out here."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents.losses import distributional as losses
from racer.agents.losses.sac import temperature_loss
from racer.networks.categorical import Support

SUPPORT = Support(-1.0, 1.0, 5)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def test_critic_loss_by_hand() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 2, 3, 5))
    target = rng.dirichlet(np.ones(5), size=(2, 3))
    probs = softmax(logits)
    cross = -np.mean(np.sum(target * np.log(probs[:, 0]), -1))
    entropy = -np.sum(probs * np.log(probs), -1).mean(axis=(0, 2))
    value, terms = losses.critic_loss(
        jnp.asarray(logits, jnp.float32), jnp.asarray(target, jnp.float32), jnp.float32(0.7)
    )
    np.testing.assert_allclose(value, cross + 0.7 * (entropy[0] - entropy[1]), rtol=1e-5)
    np.testing.assert_allclose(terms, [cross, entropy[0], entropy[1]], rtol=1e-5)


def test_critic_loss_pushes_the_right_entropies() -> None:
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(1, 2, 1, 5)), jnp.float32)
    target = jax.nn.softmax(logits[:, 0])

    def entropies(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, terms = losses.critic_loss(x, target, jnp.float32(0.0))
        return terms.data_entropy, terms.ood_entropy

    slope = jax.grad(lambda x: losses.critic_loss(x, target, jnp.float32(1.0))[0])(logits)
    before, after = entropies(logits), entropies(logits - 0.1 * slope)
    assert after[0] < before[0]
    assert after[1] > before[1]


@pytest.mark.parametrize("kinds", [1, 2])
def test_critic_gradient_equals_finite_differences(kinds: int) -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(2, kinds, 3, 5))
    target = rng.dirichlet(np.ones(5), size=(2, 3))

    def loss(x: np.ndarray) -> float:
        probs = softmax(x)
        value = -np.mean(np.sum(target * np.log(probs[:, 0]), -1))
        entropy = -np.sum(probs * np.log(probs), -1).mean(axis=(0, 2))
        return value + 0.7 * (entropy[0] - entropy[-1])

    numeric = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[place] = 1e-5
        numeric[place] = (loss(logits + step) - loss(logits - step)) / 2e-5
    slope = jax.grad(lambda x: losses.critic_loss(x, jnp.asarray(target, jnp.float32), jnp.float32(0.7))[0])
    np.testing.assert_allclose(slope(jnp.asarray(logits, jnp.float32)), numeric, atol=1e-6)


def test_critic_loss_is_finite_where_the_softmax_underflows() -> None:
    logits = jnp.array([[[[0.0, -300.0, 0.0, -900.0, 0.0]], [[800.0, 0.0, 0.0, 0.0, 0.0]]]])
    target = jnp.array([[[0.5, 0.0, 0.5, 0.0, 0.0]]])
    value, slope = jax.value_and_grad(lambda x: losses.critic_loss(x, target, jnp.float32(0.5))[0])(logits)
    assert np.isfinite(value)
    assert np.all(np.isfinite(slope))


def test_targets_stop_at_termination() -> None:
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(2, 2, 5)), jnp.float32)
    rewards = jnp.array([0.5, 0.5])
    found = losses.critic_target(SUPPORT, logits, rewards, jnp.array([0.0, 1.0]), 0.9, 3, True)
    np.testing.assert_allclose(found[:, 0], [[0, 0, 0, 1, 0]] * 2, atol=1e-6)
    assert np.abs(np.asarray(found[:, 1]) - [0, 0, 0, 1, 0]).max() > 0.1


@pytest.mark.parametrize("independent", [True, False])
def test_members_bootstrap_apart_or_from_the_mixture(independent: bool) -> None:
    logits = jnp.array([[[0.0, 0.0, 50.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0, 50.0]]])
    found = losses.critic_target(SUPPORT, logits, jnp.zeros(1), jnp.ones(1), 1.0, 3, independent)
    if independent:
        np.testing.assert_allclose(found[:, 0], [[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]], atol=1e-6)
    else:
        np.testing.assert_allclose(found[:, 0], [[0, 0, 0.5, 0, 0.5]], atol=1e-6)


def test_no_gradient_reaches_the_target() -> None:
    logits = jnp.ones((1, 1, 5))
    slope = jax.grad(lambda x: jnp.sum(losses.critic_target(SUPPORT, x, jnp.zeros(1), jnp.ones(1), 0.9, 3, True) ** 2))(
        logits
    )
    np.testing.assert_array_equal(slope, 0.0)


def test_the_actor_sees_the_tail_of_the_mixture_not_the_mean_of_tails() -> None:
    # One member is sure of +1, the other of -1: the worst half of the mixture is -1, the mean of tails is 0.
    logits = jnp.array([[[0.0, 0.0, 0.0, 0.0, 90.0]], [[90.0, 0.0, 0.0, 0.0, 0.0]]])
    np.testing.assert_allclose(losses.mixture_cvar(SUPPORT, logits, 0.5), [-1.0], atol=1e-6)
    np.testing.assert_allclose(losses.mixture_cvar(SUPPORT, logits, 0.0), [0.0], atol=1e-6)


def test_policy_objective_by_hand() -> None:
    found = losses.policy_objective(jnp.array([2.0, -1.0]), jnp.array([0.5, 1.5]), jnp.float32(0.2))
    np.testing.assert_allclose(found, np.mean([0.1 - 2.0, 0.3 + 1.0]), rtol=1e-6)


def test_multiplier_grows_while_its_constraint_is_violated() -> None:
    slope = jax.grad(losses.lagrange_loss)
    np.testing.assert_allclose(slope(jnp.log(jnp.float32(2.0)), jnp.float32(0.3), -0.01), 2.0 * -0.31, rtol=1e-5)
    assert slope(jnp.float32(0.0), jnp.float32(-0.3), -0.01) > 0


def test_temperature_falls_while_the_policy_is_too_random() -> None:
    slope = jax.grad(temperature_loss)
    np.testing.assert_allclose(slope(jnp.log(jnp.float32(0.5)), jnp.float32(1.0), -1.0), 0.5 * 2.0, rtol=1e-5)
    assert slope(jnp.float32(0.0), jnp.float32(-3.0), -1.0) < 0
