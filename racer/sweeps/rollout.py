"""Collecting inside ``jit``: a policy with memory in environments that are pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from racer.envs.world import Functional
from racer.networks.memory import cleared
from racer.networks.policy import Policy

__all__ = ["Episodes", "Scene", "begin", "collect"]


class Scene(NamedTuple):
    """N environments between two steps.

    Attributes:
        world: their states, arrays ``[N, ...]``.
        observations: ``[N, ...]``, what the policy sees next.
        memory: of the policy, by name ``[N, ...]``.
    """

    world: Any
    observations: jax.Array
    memory: dict[str, jax.Array]


class Episodes(NamedTuple):
    """Episodes that ended in a rollout.

    Attributes:
        ended: how many, ``[]``.
        sums: of every metric over them, by key, ``[]``.
    """

    ended: jax.Array
    sums: dict[str, jax.Array]


def begin(functional: Functional, policy: Policy, num_envs: int, key: jax.Array) -> Scene:
    """Start ``num_envs`` episodes."""
    world, observations = jax.vmap(functional.reset)(jax.random.split(key, num_envs))
    return Scene(world, observations, {k: jnp.asarray(v) for k, v in policy.initial_memory(num_envs).items()})


def collect(
    functional: Functional, policy: Policy, params: Mapping[str, Any], scene: Scene, key: jax.Array, num_steps: int
) -> tuple[Scene, dict[str, jax.Array], Episodes]:
    """Take ``num_steps`` steps in every environment.

    Args:
        functional: one environment.
        policy: acts.
        params: what it acts with.
        scene: where the environments stand.
        key: of all draws.
        num_steps: T.

    Returns:
        Where they stand then; the rollout, and the episodes that ended. The rollout has the fields that
        :func:`racer.replay.sequence.join_rollouts` gives, ``draws`` for choices too, and a final observation for
        each of the ``T * N`` rows, since how many episodes end is not known when it is compiled.
    """

    def advance(scene: Scene, key: jax.Array) -> tuple[Scene, Any]:
        act_key, world_key = jax.random.split(key)
        actions, memory, extras = policy.act(params, scene.observations, scene.memory, act_key)
        keys = jax.random.split(world_key, len(scene.observations))
        step = jax.vmap(functional.step)(scene.world, actions, keys)
        ended = step.terminated | step.truncated
        row = {
            "observations": scene.observations,
            "actions": actions,
            "rewards": step.reward,
            "bootstrap": (~step.terminated).astype(jnp.float32),
            "cut": ended.astype(jnp.float32),
            "forget": ended.astype(jnp.float32),
            "valid": jnp.ones_like(step.reward),
            **extras,
        }
        if policy.discrete:
            row["draws"] = actions - policy.start
        after = Scene(step.state, step.observation, cleared(memory, ended))
        return after, (row, step.final_observation, ended, step.metrics)

    after, (rows, finals, ended, metrics) = jax.lax.scan(advance, scene, jax.random.split(key, num_steps))
    rows["observations"] = jnp.concatenate([rows["observations"], after.observations[None]])
    rows["final_observations"] = finals.reshape(-1, *finals.shape[2:])
    rows["final_index"] = _final_index(ended)
    rows |= {f"memory/{name}": value for name, value in scene.memory.items()}
    episodes = Episodes(jnp.sum(ended), {name: jnp.sum(jnp.where(ended, v, 0.0)) for name, v in metrics.items()})
    return after, rows, episodes


def _final_index(ended: jax.Array) -> jax.Array:
    """Return ``[T * N, 2]``: (t, n) of every row that ended an episode, elsewhere ``(T, 0)``, one past the end."""
    steps, envs = jnp.indices(ended.shape)
    index = jnp.stack([steps, envs], axis=-1)
    return jnp.where(ended[..., None], index, jnp.array([len(ended), 0])).reshape(-1, 2)
