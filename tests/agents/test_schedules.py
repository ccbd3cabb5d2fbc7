"""The fall of the step sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents.registry import agent_class, agent_settings, fitted_settings
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
    falling = make_agent(name, lr_schedule="linear", lr_decay_begin=0, lr_decay_steps=8, final_lr_fraction=0.5)
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
    constant, falling = make_agent(name), make_agent(name, lr_schedule="linear", lr_decay_begin=20, lr_decay_steps=9)
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


@pytest.mark.parametrize(
    ("name", "values", "missing"),
    [
        ("SACLearner", {"lr_schedule": "linear", "lr_decay_begin": 0}, "lr_decay_steps"),
        ("PPOLearner", {"lr_schedule": "linear"}, "lr_decay_transitions"),
        ("PPOLearner", {"final_std": 0.1}, "std_decay_transitions"),
    ],
)
def test_a_schedule_without_a_length_is_refused(name: str, values: dict[str, Any], missing: str) -> None:
    box = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    with pytest.raises(UsageError, match=f"{missing} must be a number"):
        agent_class(name).create(0, box, box, **values)


def test_programs_fit_schedules_to_the_length_of_the_run() -> None:
    given = agent_settings("SACLearner", {"lr_decay_steps": 7})
    found = fitted_settings("SACLearner", given, 1000, 500)
    assert (found["lr_decay_begin"], found["lr_decay_steps"]) == (300, 7)
    found = fitted_settings("PPOLearner", agent_settings("PPOLearner", {}), 1000, 0)
    assert (found["lr_decay_transitions"], found["std_decay_transitions"]) == (1000, 1000)
