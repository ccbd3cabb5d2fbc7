"""Advantages against a plain loop in float64, and what an episode's end means."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents.gae import generalized_advantages

DISCOUNT, LAMBDA = 0.9, 0.7


def by_definition(fields: dict[str, np.ndarray]) -> np.ndarray:
    """Sum discounted residuals forwards from every row until the episode, the data or the rollout ends."""
    steps, envs = fields["rewards"].shape
    advantages = np.zeros((steps, envs))
    for n in range(envs):
        for t in range(steps):
            weight = 1.0
            for k in range(t, steps):
                row = {name: float(array[k, n]) for name, array in fields.items()}
                if not row["valid"]:
                    break
                future = DISCOUNT * row["next_values"] if row["bootstrap"] else 0.0
                advantages[t, n] += weight * (row["rewards"] + future - row["values"])
                if row["cut"]:
                    break
                weight *= DISCOUNT * LAMBDA
    return advantages


def random_rollout(seed: int, steps: int = 40, envs: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    # Inside, terminated, time limit, trial end, limbo: bootstrap, cut and valid of each.
    kinds = np.array([(1, 0, 1), (0, 1, 1), (1, 1, 1), (0, 1, 1), (0, 1, 0)], float)
    kind = rng.choice(5, (steps, envs), p=[0.6, 0.1, 0.1, 0.1, 0.1])
    assert set(kind.ravel()) == set(range(5))
    bootstrap, cut, valid = kinds[kind].transpose(2, 0, 1)
    return {
        "rewards": rng.normal(size=(steps, envs)),
        "bootstrap": bootstrap,
        "cut": cut,
        "valid": valid,
        "values": rng.normal(size=(steps, envs)),
        "next_values": rng.normal(size=(steps, envs)),
    }


def compute(fields: dict[str, np.ndarray]) -> np.ndarray:
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in fields.items()}
    return np.asarray(generalized_advantages(**arrays, discount=DISCOUNT, gae_lambda=LAMBDA))


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_definition(seed: int) -> None:
    fields = random_rollout(seed)
    np.testing.assert_allclose(compute(fields), by_definition(fields), rtol=1e-5, atol=1e-5)


def test_by_hand() -> None:
    column = {
        "rewards": [1.0, 2.0, 3.0],
        "bootstrap": [1.0, 0.0, 1.0],
        "cut": [0.0, 1.0, 0.0],
        "valid": [1.0, 1.0, 1.0],
        "values": [10.0, 20.0, 30.0],
        "next_values": [20.0, 99.0, 40.0],
    }
    got = compute({name: np.array(value)[:, None] for name, value in column.items()})[:, 0]
    # Row 1 ends its episode: 2 - 20. Row 0 reaches it: (1 + 0.9 * 20 - 10) + 0.63 * -18. Row 2 stands alone.
    np.testing.assert_allclose(got, [9.0 - 0.63 * 18.0, -18.0, 3.0 + 36.0 - 30.0], rtol=1e-6)


def test_truncation_bootstraps_with_its_final_observation_and_termination_does_not() -> None:
    fields = {name: np.zeros((2, 1)) for name in ("rewards", "cut", "values", "next_values")}
    fields |= {"bootstrap": np.ones((2, 1)), "valid": np.ones((2, 1))}
    fields["cut"][0] = 1.0
    fields["next_values"][0] = 5.0  # of the final observation
    fields["values"][1] = -7.0  # of the next episode's first: must not be seen by row 0
    assert compute(fields)[0, 0] == pytest.approx(DISCOUNT * 5.0)
    fields["bootstrap"][0] = 0.0
    assert compute(fields)[0, 0] == 0.0


def test_rows_that_are_no_transitions_cut_the_sequence() -> None:
    fields = random_rollout(7)
    fields["valid"][20] = 0.0
    later = {name: array.copy() for name, array in fields.items()}
    later["rewards"][20:] += 100.0
    later["values"][20], later["next_values"][20] = np.nan, np.inf
    before, after = compute(fields), compute(later)
    np.testing.assert_array_equal(before[:20], after[:20])
    np.testing.assert_array_equal(after[20], 0.0)
