"""A policy that follows the gradient of a differentiable cost, instead of an estimate from samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from racer.agents.cloning import with_policy
from racer.agents.learner import BaseLearner
from racer.agents.schedules import falling_fraction
from racer.agents.state import adam, trainable, tree_is_finite
from racer.core.errors import UsageError

__all__ = ["descend"]

Cost = Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]]

_DECAY = 0.03
"""Share of the first step size that is left at the end."""

_WARMUP = 50
"""Gradient steps until the step size is whole: Adam's first ones are of one size, whatever the gradient."""

_MAX_NORM = 5.0


def descend(
    learner: Any, cost: Callable[[Any], Cost], carry: Any, *, steps: int, learning_rate: float, seed: int
) -> tuple[Any, np.ndarray]:
    """Lower a cost by Adam on the deterministic policy; value network, counts and deviations stay as they are.

    Args:
        learner: of this house, without a memory; it is not changed.
        cost: given the policy's deterministic action, which maps parameters and observations ``[N, ...]`` to actions,
            returns what maps parameters, a carry and a random key to the cost and the next carry.
        carry: the first; arrays.
        steps: of the gradient.
        learning_rate: of Adam, after a short warm-up; it falls along half a cosine.
        seed: of the random keys.

    Returns:
        The learner, and the cost of every step, ``[steps]``.

    Raises:
        UsageError: a policy with a memory, one that makes choices, or a learner of another house.
    """
    if not isinstance(learner, BaseLearner) or learner.policy.has_memory or learner.policy.discrete:
        raise UsageError("descent is for agents of this house without a memory, whose actions are numbers")
    policy, bounds = learner.policy, type(learner).bounds(learner.static, learner.state)

    def act(params: Any, observations: Any) -> Any:
        distribution = policy.distribution(params, policy.features(params, policy.viewed(observations)))
        return policy.head.actions(policy.head.mode(distribution), bounds)

    rates = learning_rate * falling_fraction("cosine", jnp.arange(steps), steps, _DECAY)
    rates = rates * jnp.minimum(1.0, jnp.arange(1, steps + 1) / _WARMUP)
    keys = jax.random.split(jax.random.PRNGKey(seed), steps)
    actor, costs = _descended(cost(act), trainable(adam, learner.state.actor.params), carry, keys, rates)
    return with_policy(learner, actor.params), np.asarray(costs)


@partial(jax.jit, static_argnums=0)
def _descended(cost: Cost, actor: Any, carry: Any, keys: jax.Array, rates: jax.Array) -> tuple[Any, jax.Array]:
    clip = optax.clip_by_global_norm(_MAX_NORM)

    def step(state: Any, row: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        (actor, carry), (key, rate) = state, row
        (value, carry), grads = jax.value_and_grad(cost, has_aux=True)(actor.params, carry, key)
        clipped, _ = clip.update(grads, clip.init(grads))
        return (actor.step(adam, clipped, rate, tree_is_finite(grads)), carry), value

    (actor, _), costs = jax.lax.scan(step, (actor, carry), (keys, rates))
    return actor, costs
