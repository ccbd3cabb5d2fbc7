"""What the learners share: shapes of observations, policy description, resetting."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from racer.agents.limits import ActionRange
from racer.agents.named_actions import initial_shares
from racer.agents.validation import Interfaces
from racer.core.errors import UsageError, unknown_name
from racer.networks.flax_encoders import EncoderSpec
from racer.networks.gaussian import LOG_STD_MAX, LOG_STD_MIN, GaussianActor

__all__ = [
    "gaussian_actor", "observation_rows", "policy_steps", "reset_components", "squashed_gaussian_spec", "trunk_spec",
]  # fmt: skip


S = TypeVar("S")

PolicyStep = Callable[[S, jax.Array, jax.Array], tuple[S, dict[str, jax.Array], jax.Array]]
"""State, observations ``[B, D]`` and key to the next state, scalars to log, and whether the step was taken."""


def policy_steps(
    step: PolicyStep[S], state: S, observations: jax.Array, key: jax.Array
) -> tuple[S, dict[str, jax.Array], jax.Array]:
    """Take one policy step on each of the minibatches ``[P, B, D]``.

    Returns:
        The next state, means of the scalars to log, and how many steps were not taken (int32).
    """
    if len(observations) == 1:
        state, info, accepted = step(state, observations[0], key)
        return state, info, 1 - accepted.astype(jnp.int32)

    def body(carried: S, rows: tuple[jax.Array, jax.Array]) -> tuple[S, tuple[dict[str, jax.Array], jax.Array]]:
        carried, info, accepted = step(carried, *rows)
        return carried, (info, 1 - accepted.astype(jnp.int32))

    keys = jax.random.split(key, len(observations))
    state, (infos, refused) = jax.lax.scan(body, state, (observations, keys))
    return state, {name: jnp.mean(values) for name, values in infos.items()}, jnp.sum(refused)


def observation_rows(observations: np.ndarray, interfaces: Interfaces) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return observations as ``[N, D]`` float32, and the shape the actions should have.

    Raises:
        UsageError: the observations are neither ``[D]`` nor ``[N, D]``.
    """
    rows = np.asarray(observations, dtype=np.float32)
    if rows.ndim not in (1, 2) or rows.shape[-1] != interfaces.observation_dim:
        size = interfaces.observation_dim
        raise UsageError(f"observations must be [{size}] or [N, {size}], got {list(rows.shape)}")
    return np.atleast_2d(rows), (*rows.shape[:-1], interfaces.action_dim)


def gaussian_actor(
    config: Any, interfaces: Interfaces, encoder: EncoderSpec, action_range: ActionRange
) -> GaussianActor:
    """Return the policy module of an actor-critic, whose first mean lies where ``config.initial_action`` says.

    Raises:
        UsageError: ``initial_action`` names an unknown action or lies outside the action range.
    """
    bounds = action_range.numpy_bounds(np.float32(action_range.initial))
    low, high = bounds["action_low"].tolist(), bounds["action_high"].tolist()
    first = initial_shares(config.initial_action, interfaces.action_names, low, high)
    return GaussianActor(config.actor_hidden_dims, interfaces.action_dim, encoder, initial_mean=first)


def trunk_spec(
    observation_dim: int, hidden_dims: tuple[int, ...], encoder: EncoderSpec, activation: str
) -> dict[str, Any]:
    """Describe an actor's encoder and hidden layers for the NumPy policy."""
    scale = encoder.observation_scale
    return {
        "observation_dim": observation_dim,
        "hidden_dims": list(hidden_dims),
        "activation": activation,
        "observation_scale": list(scale) if isinstance(scale, tuple) else scale,
        "pointnet_dims": list(encoder.pointnet_dims),
        "vehicle_features": encoder.vehicle_features,
    }


def squashed_gaussian_spec(
    interfaces: Interfaces,
    hidden_dims: tuple[int, ...],
    encoder: EncoderSpec,
    learned_action: str | None,
    noise_correlation: float,
) -> dict[str, Any]:
    """Describe a :class:`racer.networks.gaussian.GaussianActor` for the NumPy policy."""
    return {
        "kind": "squashed_gaussian",
        "trunk": trunk_spec(interfaces.observation_dim, hidden_dims, encoder, "relu"),
        "action_dim": interfaces.action_dim,
        "log_std_min": LOG_STD_MIN,
        "log_std_max": LOG_STD_MAX,
        "action_names": list(interfaces.action_names),
        "learned_action": learned_action,
        "noise_correlation": noise_correlation,
    }


def reset_components(state: Any, fresh: Any, components: Collection[str], exclude: Collection[str]) -> Any:
    """Return ``state`` with every component taken from ``fresh`` except those in ``exclude``.

    Arrays are copied, so that donating the result leaves ``state`` usable.

    Raises:
        UsageError: ``exclude`` is a bare string or names an unknown component.
    """
    if isinstance(exclude, str):
        raise UsageError(f"exclude takes a collection of component names, got the string {exclude!r}")
    for name in exclude:
        if name not in components:
            raise unknown_name("agent component (exclude)", name, components)
    taken = {name: getattr(fresh, name) for name in components if name not in exclude}
    return jax.tree.map(jnp.copy, state._replace(**taken))
