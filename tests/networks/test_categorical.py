"""Categorical distributions against float64 references, hand calculations and their degenerate cases."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.networks.categorical import (
    Support,
    bellman_projection,
    cvar,
    project_points,
    projection_taps,
)


def quadratic_reference(
    support: Support, probs: np.ndarray, rewards: np.ndarray, masks: np.ndarray, discount: float
) -> np.ndarray:
    """Project by comparing every shifted atom with every atom, in float64."""
    grid = np.linspace(support.q_min, support.q_max, support.num_atoms)
    delta = grid[1] - grid[0]
    landed = np.clip(rewards[:, None] + discount * masks[:, None] * grid, support.q_min, support.q_max)
    share = np.maximum(1.0 - np.abs(landed[:, :, None] - grid) / delta, 0.0)
    return np.einsum("ebj,bji->ebi", probs.astype(np.float64), share)


@pytest.mark.parametrize("discount", [1.0, 0.99, 0.9, 0.5, 0.13])
def test_projection_equals_the_quadratic_reference(discount: float) -> None:
    support = Support(-3.0, 7.0, 23)
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.full(23, 0.3), size=(2, 64)).astype(np.float32)
    rewards = rng.uniform(-14, 14, 64).astype(np.float32)
    rewards[:3] = 0.0, 20.0, -20.0
    masks = (rng.random(64) > 0.3).astype(np.float32)
    found = np.asarray(bellman_projection(support, probs, rewards, masks, discount, projection_taps(discount)))
    np.testing.assert_allclose(found, quadratic_reference(support, probs, rewards, masks, discount), atol=2e-6)
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-5)


def test_projection_by_hand() -> None:
    support = Support(0.0, 4.0, 5)
    probs = np.array([[[0.0, 0.5, 0.0, 0.0, 0.5]]], np.float32)
    # 0.25 + 0.5 * 1 = 0.75 and 0.25 + 0.5 * 4 = 2.25, each shared between its neighbours.
    found = bellman_projection(support, probs, np.array([0.25], np.float32), np.ones(1, np.float32), 0.5, 5)
    np.testing.assert_allclose(found[0, 0], [0.125, 0.375, 0.375, 0.125, 0.0], atol=1e-7)


def test_a_mask_of_zero_puts_all_mass_on_the_reward() -> None:
    support = Support(-2.0, 2.0, 5)
    probs = np.array([[[0.1, 0.2, 0.3, 0.4, 0.0]]], np.float32)
    found = bellman_projection(support, probs, np.array([0.5], np.float32), np.zeros(1, np.float32), 0.99, 3)
    np.testing.assert_allclose(found[0, 0], [0.0, 0.0, 0.5, 0.5, 0.0], atol=1e-7)


def test_projection_is_linear_in_the_atoms() -> None:
    def operations(size: int) -> float:
        support = Support(-1.0, 1.0, size)
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 8, size), (8,), (8,))]
        lowered = jax.jit(lambda p, r, m: bellman_projection(support, p, r, m, 0.99, 3)).lower(*shapes)
        return lowered.compile().cost_analysis()["flops"]

    assert operations(401) / operations(101) < 5.0


def test_project_points_clips_to_the_ends() -> None:
    support = Support(0.0, 2.0, 3)
    found = project_points(support, np.array([-5.0, 0.5, 9.0], np.float32))
    np.testing.assert_allclose(found, [[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]], atol=1e-7)


def test_cvar_by_hand() -> None:
    support = Support(0.0, 3.0, 4)
    probs = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    np.testing.assert_allclose(cvar(support, probs, 0.0), 0.2 + 0.6 + 1.2, rtol=1e-6)
    # The worst half: all of atoms 0 and 1, and 0.2 of atom 2.
    np.testing.assert_allclose(cvar(support, probs, 0.5), (0.0 + 0.2 + 0.4) / 0.5, rtol=1e-6)
    # The worst fifth: atom 0 and 0.1 of atom 1.
    np.testing.assert_allclose(cvar(support, probs, 0.8), 0.1 / 0.2, rtol=1e-5)


def test_cvar_at_risk_one_is_the_worst_atom_with_mass_and_differentiable() -> None:
    support = Support(-4.0, 4.0, 5)
    logits = jnp.array([-200.0, 1.0, 0.0, 2.0, 1.0])
    value, slope = jax.value_and_grad(lambda x: cvar(support, jax.nn.softmax(x), 1.0))(logits)
    np.testing.assert_allclose(value, -2.0, rtol=1e-5)
    assert np.all(np.isfinite(slope))


def test_cvar_falls_with_risk() -> None:
    support = Support(-10.0, 10.0, 41)
    probs = np.random.default_rng(0).dirichlet(np.ones(41), size=16).astype(np.float32)
    values = np.stack([cvar(support, probs, risk) for risk in (0.0, 0.25, 0.5, 0.8, 0.95, 1.0)])
    assert np.all(np.diff(values, axis=0) <= 1e-4)
