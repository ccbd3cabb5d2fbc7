"""The fall of the step sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents.schedules import falling_fraction
from racer.core.errors import UsageError

Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_learning_rate_falls_linearly_and_stays() -> None:
    found = [float(falling_fraction("linear", jnp.int32(n), 1000, 0.2)) for n in (0, 250, 1000, 5000)]
    np.testing.assert_allclose(found, [1.0, 0.8, 0.2, 0.2], rtol=1e-6)
    found = [float(falling_fraction("linear", jnp.int32(n), 1000, 0.2, 500)) for n in (0, 500, 750, 2000)]
    np.testing.assert_allclose(found, [1.0, 1.0, 0.8, 0.2], rtol=1e-6)


def test_a_constant_learning_rate_stays() -> None:
    assert falling_fraction("constant", jnp.int32(10**6), 1000, 0.2) == 1.0


@pytest.mark.parametrize("name", ["SACLearner", "DistributionalSACLearner"])
def test_step_sizes_of_actor_and_critics_fall(name: str, make_agent: Make, make_batch: Make) -> None:
    falling = make_agent(name, lr_schedule="linear", lr_decay_steps=8, final_lr_fraction=0.5)
    falling, _ = falling.update(make_batch(), 2)
    first, sizes = falling.state_arrays(), falling.hyper

    # Critics step at 2/8 of the way to a half; the actor, two gradient steps later, at 4/8 of it.
    smaller = make_agent(name, critic_lr=float(sizes.critic_lr) * 0.875, actor_lr=float(sizes.actor_lr) * 0.75)
    expected = smaller.with_state_arrays(first).update(make_batch(), 2)[0].state
    found = falling.update(make_batch(), 2)[0].state
    for component in ("critic", "actor", "temp"):
        pairs = zip(*(jax.tree.leaves(getattr(state, component).params) for state in (found, expected)), strict=True)
        for got, wanted in pairs:
            np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["SACLearner", "DistributionalSACLearner"])
def test_before_the_fall_training_is_the_same_to_the_bit(name: str, make_agent: Make, make_batch: Make) -> None:
    constant, falling = make_agent(name), make_agent(name, lr_schedule="linear", lr_decay_begin=20)
    for seed in range(10):
        constant, falling = (agent.update(make_batch(seed), 2)[0] for agent in (constant, falling))
    for key, value in constant.state_arrays().items():
        np.testing.assert_array_equal(value, falling.state_arrays()[key], err_msg=key)


@pytest.mark.parametrize("name", ["SACLearner", "DistributionalSACLearner"])
def test_an_unknown_schedule_is_refused(name: str, make_agent: Make) -> None:
    with pytest.raises(UsageError, match="did you mean 'linear'"):
        make_agent(name, lr_schedule="linaer")


def test_learning_rate_falls_along_half_a_cosine() -> None:
    found = [float(falling_fraction("cosine", jnp.int32(n), 1000, 0.2)) for n in (0, 250, 500, 1000, 5000)]
    np.testing.assert_allclose(found, [1.0, 0.2 + 0.8 * (0.5 + 0.25 * 2**0.5), 0.6, 0.2, 0.2], rtol=1e-6)
