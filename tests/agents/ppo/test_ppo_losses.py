"""Each loss against a calculation by hand."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents.losses.ppo import (
    clipped_surrogate,
    divergence,
    lambda_discrepancy,
    masked_mean,
    normalized_advantages,
    value_loss,
)
from racer.agents.value_scale import followed, initial_value_scale, rescaled

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_surrogate_by_hand() -> None:
    ratio = jnp.array([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = jnp.array([2.0, -2.0, 2.0, -2.0, 3.0])
    loss = clipped_surrogate(jnp.log(ratio), jnp.zeros(5), advantages, 0.2)
    # min(1.5 * 2, 1.2 * 2); min(-3, -2.4); min(1, 1.6); min(-1, -1.6); inside the range: 1.1 * 3.
    np.testing.assert_allclose(loss, [-2.4, 3.0, -1.0, 1.6, -3.3], rtol=1e-6)


def test_surrogate_is_flat_where_the_ratio_left_the_range_for_the_better() -> None:
    def loss(log_prob: float, advantage: float) -> jax.Array:
        return clipped_surrogate(jnp.array([log_prob]), jnp.zeros(1), jnp.array([advantage]), 0.2)[0]

    slope = jax.grad(loss)
    assert slope(math.log(1.5), 1.0) == 0.0
    assert slope(math.log(0.5), -1.0) == 0.0
    assert slope(math.log(1.5), -1.0) == pytest.approx(1.5)
    assert slope(0.0, 2.0) == pytest.approx(-2.0)


def test_value_loss_by_hand() -> None:
    values, old, targets = jnp.array([3.0, 3.0, 1.1]), jnp.array([1.0, 1.0, 1.0]), jnp.array([3.0, 0.0, 2.0])
    np.testing.assert_allclose(value_loss(values, old, targets, None), [0.0, 4.5, 0.405], rtol=1e-5)
    # Clipped to 1.5: the first row pays for it, the second is already worse unclipped, the third is inside.
    np.testing.assert_allclose(value_loss(values, old, targets, 0.5), [1.125, 4.5, 0.405], rtol=1e-5)


def test_divergence_is_that_of_the_distributions() -> None:
    old, new = jnp.array([0.7, 0.3]), jnp.array([0.4, 0.6])
    expected = 0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6)
    assert jnp.sum(old * divergence(jnp.log(new), jnp.log(old))) == pytest.approx(expected, rel=1e-5)
    assert divergence(jnp.array([0.3]), jnp.array([0.3]))[0] == 0.0


def test_advantages_of_a_minibatch_are_normalized_over_its_valid_rows() -> None:
    valid = jnp.array([1.0, 1.0, 1.0, 0.0])
    got = normalized_advantages(jnp.array([1.0, 2.0, 6.0, 1e6]), valid)
    np.testing.assert_allclose(got, np.array([-2.0, -1.0, 3.0, 0.0]) / math.sqrt(14.0 / 3.0), rtol=1e-5)
    assert masked_mean(jnp.array([1.0, 3.0, 50.0, 50.0]), jnp.array([1.0, 1.0, 0.0, 0.0])) == 2.0
    assert masked_mean(jnp.array([5.0]), jnp.array([0.0])) == 0.0


def test_lambda_discrepancy_by_hand_reaches_both_heads() -> None:
    values = jnp.array([[1.0, 3.0], [0.5, 0.0]])
    np.testing.assert_allclose(lambda_discrepancy(values), [4.0, 0.25])
    slope = jax.grad(lambda v: jnp.sum(lambda_discrepancy(v)))(values)
    np.testing.assert_allclose(slope, [[-4.0, 4.0], [1.0, -1.0]])


def test_value_scale_follows_the_returns_and_keeps_the_values() -> None:
    rng = np.random.default_rng(0)
    targets, valid = jnp.asarray(rng.normal(30.0, 5.0, 500), jnp.float32), jnp.ones(500)
    old = followed(initial_value_scale(), targets, valid)
    assert old.mean == pytest.approx(float(targets.mean()), rel=1e-4)
    assert old.deviation == pytest.approx(float(targets.std()), rel=1e-2)
    new = followed(old, targets + 20.0, valid)
    assert float(old.mean) < float(new.mean) < float(old.mean) + 20.0
    features = rng.normal(size=(7, 4)).astype(np.float32)
    params = {"value/kernel": jnp.asarray(rng.normal(size=(4, 2)), jnp.float32), "value/bias": jnp.ones(2)}

    def raw(params: dict, scale: object) -> np.ndarray:
        normal = features @ params["value/kernel"] + params["value/bias"]
        return np.asarray(scale.raw(normal))  # type: ignore[attr-defined]

    np.testing.assert_allclose(raw(rescaled(params, old, new), new), raw(params, old), rtol=1e-5)
    unusable = followed(new, targets * jnp.nan, valid)
    for kept, was in zip(unusable, new, strict=True):
        assert kept == was
