"""Behaviour cloning: a policy that begins where somebody else's actions are, not at random (Pomerleau 1991)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from racer.agents.learner import BaseLearner
from racer.agents.schedules import falling_fraction
from racer.agents.state import adam, trainable, tree_is_finite
from racer.core.errors import UsageError

__all__ = ["clone_actions", "with_policy"]

_DECAY = 0.01
"""Share of the first step size that is left at the end."""


def clone_actions(
    learner: Any,
    observations: NDArray[np.floating],
    actions: NDArray[np.floating],
    *,
    epochs: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> tuple[Any, float]:
    """Teach a learner's policy to take given actions deterministically; value network and counts stay as they are.

    Numbers are learnt by their squared error as a share of half the range, choices by their log-probability. How far a
    continuous policy spreads around its mean is no matter of the demonstrations.

    Args:
        learner: of this house, without a memory; it is not changed.
        observations: of the world, ``[M, *shape]``.
        actions: what was done there, ``[M, A]`` inside the policy's range, or choices ``[M]``.
        epochs: times over all of them, in a new order each.
        batch_size: demonstrations in a gradient step; M where there are fewer.
        learning_rate: of Adam; it falls along half a cosine.
        seed: of the orders.

    Returns:
        The learner, and its mean loss in the last epoch.

    Raises:
        UsageError: no demonstrations, a policy with a memory, or arrays that do not fit it or are not finite.
    """
    seen, done = _checked(learner, observations, actions)
    size = min(batch_size, len(seen))
    state, losses = _cloned(
        type(learner), learner.static, learner.state, seen, done, jax.random.PRNGKey(seed),
        (epochs, len(seen) // size, size), jnp.float32(learning_rate),
    )  # fmt: skip
    loss = float(losses[-(len(seen) // size) :].mean()) if epochs else float("nan")
    return with_policy(learner, state), loss


def with_policy(learner: Any, params: Any) -> Any:
    """Return the learner with these parameters of its policy."""
    # Without the mean of the weights before, where one is kept: it begins at these.
    others = {name: x for name, x in learner.state_arrays().items() if not name.startswith("actor/average/")}
    trained = {f"actor/params/{name}": np.asarray(value) for name, value in params.items()}
    return learner.with_components({**others, **trained})


def _checked(learner: Any, observations: Any, actions: Any) -> tuple[jax.Array, jax.Array]:
    if not isinstance(learner, BaseLearner) or learner.policy.has_memory:
        raise UsageError("behaviour cloning is for agents of this house without a memory")
    policy = learner.policy
    seen = policy.viewed(np.asarray(observations, np.float32))
    done = np.asarray(actions)
    if not len(seen) or done.shape != (len(seen), *policy.action_shape):
        raise UsageError(
            f"demonstrations must be observations [M, ...] and actions {['M', *policy.action_shape]}, got "
            f"{list(seen.shape)} and {list(done.shape)}"
        )
    if not (np.isfinite(seen).all() and np.isfinite(done).all()):
        raise UsageError("demonstrations must be finite numbers")
    return jnp.asarray(seen), jnp.asarray(done - policy.start if policy.discrete else done)


@partial(jax.jit, static_argnums=(0, 1, 6))
def _cloned(
    cls: type[BaseLearner],
    static: Any,
    state: Any,
    seen: jax.Array,
    done: jax.Array,
    key: jax.Array,
    sizes: tuple[int, int, int],
    learning_rate: jax.Array,
) -> tuple[Any, jax.Array]:
    """Return the policy's parameters after all epochs, and the loss of every step."""
    epochs, batches, size = sizes
    policy, bounds = static.policy, cls.bounds(static, state)
    half = None if bounds is None else 0.5 * (bounds[1] - bounds[0])
    keys = jax.random.split(key, epochs)
    order = jax.vmap(lambda k: jax.random.permutation(k, len(seen))[: batches * size])(keys).reshape(-1, size)

    def loss(params: Any, index: jax.Array) -> jax.Array:
        distribution = policy.distribution(params, policy.features(params, seen[index]))
        if half is None:
            return -jnp.mean(policy.head.log_probs(distribution, done[index], None))
        chosen = policy.head.actions(policy.head.mode(distribution), bounds)
        return jnp.mean(jnp.square((chosen - done[index]) / half))

    def step(actor: Any, row: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        index, rate = row
        value, grads = jax.value_and_grad(loss)(actor.params, index)
        return actor.step(adam, grads, rate, tree_is_finite(grads)), value

    rates = learning_rate * falling_fraction("cosine", jnp.arange(len(order)), max(len(order), 1), _DECAY)
    actor, losses = jax.lax.scan(step, trainable(adam, state.actor.params), (order, rates))
    return actor.params, losses
