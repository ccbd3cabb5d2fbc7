"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), clipped double Q or a random subset of an ensemble."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from racer.agents.actor_critic import (
    ActorCriticConfig,
    ActorCriticLearner,
    ActorCriticStatic,
    Info,
    critic_steps,
    finished,
    in_minibatches,
    policy_steps,
    step_policy,
)
from racer.agents.hyper import Fixed, Hyper
from racer.agents.interfaces import Interfaces
from racer.agents.limits import ActionRange
from racer.agents.losses import sac as losses
from racer.agents.state import Trainable
from racer.core.config import option
from racer.core.errors import UsageError
from racer.networks.distributions import Bounds

__all__ = ["SACConfig", "SACLearner", "SACState", "initial_state", "update"]


@dataclass(frozen=True)
class SACConfig(ActorCriticConfig):
    """Every key of the agent, checked when it is built."""

    num_min_qs: int | None = option(
        None,
        "How many critics, drawn anew for every minibatch, the target's minimum runs over; None for all (clipped "
        "double Q with two, REDQ with a subset).",
        low=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_min_qs is not None and self.num_min_qs > self.num_qs:
            raise UsageError(f"num_min_qs must lie in [1, num_qs={self.num_qs}], got {self.num_min_qs!r}")


class SACState(NamedTuple):
    """Everything that changes during training.

    Attributes:
        actor: policy network.
        critic: ensemble of scalar critics.
        target_critic: slowly following copy of the critics' parameters.
        temp: ``{"log_value": scalar}``, logarithm of the entropy temperature.
        rng: ``[2]`` uint32 key of all further random numbers.
        gradient_steps: int32, critic steps taken or refused so far.
        nonfinite_updates: int32, steps refused so far because a gradient was not finite.
    """

    actor: Trainable
    critic: Trainable
    target_critic: Any
    temp: Trainable
    rng: jax.Array
    gradient_steps: jax.Array
    nonfinite_updates: jax.Array


class CriticRows(NamedTuple):
    """One minibatch of critic training; stacked ``[U, ...]`` over the ``utd_ratio`` minibatches."""

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    masks: jax.Array
    next_observations: jax.Array
    next_actions: jax.Array
    entropy_bonus: jax.Array
    subset: jax.Array


def initial_state(static: ActorCriticStatic, hyper: Hyper, key: jax.Array) -> SACState:
    """Draw a fresh state from ``key``."""
    return SACState(**static.first_state(hyper, key))


def update(
    static: ActorCriticStatic, hyper: Hyper, state: SACState, batch: dict[str, jax.Array], utd_ratio: int = 1
) -> tuple[SACState, Info]:
    """Take ``utd_ratio`` critic steps, then ``policy_steps`` of actor and temperature on the last minibatches.

    Args:
        static: description.
        hyper: numbers.
        state: before.
        batch: fields ``[U * B, ...]`` float32.
        utd_ratio: U.

    Returns:
        The next state, and scalars to log.
    """
    rng, rows_key, policy_key = jax.random.split(state.rng, 3)
    minibatches = in_minibatches(static, batch, utd_ratio)
    rows = critic_rows(static, state, minibatches, rows_key)
    state, info, refused = critic_steps(partial(_critic_loss, static, hyper), static, hyper, state, rows)
    last = minibatches["observations"][-static.config.policy_steps :]
    state, policy_info, policy_refused = policy_steps(partial(_policy_step, static, hyper), state, last, policy_key)
    return finished(hyper, state, rng, utd_ratio, refused + policy_refused, {**info, **policy_info})


def critic_rows(
    static: ActorCriticStatic, state: SACState, minibatches: dict[str, jax.Array], key: jax.Array
) -> CriticRows:
    """Draw next actions and target subsets for every minibatch at once."""
    config = static.config
    noise_key, subset_key = jax.random.split(key)
    following = static.sample(
        state.actor.params, minibatches["next_observations"], noise_key, static.action_range.bounds()
    )
    bonus = -jnp.exp(state.temp.params["log_value"]) * following.log_probs
    keys = jax.random.split(subset_key, len(bonus))
    subsets = jax.vmap(lambda k: jax.random.permutation(k, config.num_qs))(keys)
    return CriticRows(
        minibatches["observations"],
        minibatches["actions"],
        minibatches["rewards"],
        minibatches["masks"],
        minibatches["next_observations"],
        following.actions,
        bonus if config.backup_entropy else jnp.zeros_like(bonus),
        subsets[:, : config.num_min_qs or config.num_qs],
    )


def _values(static: ActorCriticStatic, params: Any, observations: jax.Array, actions: jax.Array) -> jax.Array:
    """Return the critics' values ``[E, B]``."""
    return static.critic(params, observations, actions[None])[:, 0, :, 0]


def _critic_loss(
    static: ActorCriticStatic, hyper: Hyper, params: Any, target_params: Any, rows: CriticRows
) -> tuple[jax.Array, Info]:
    following = _values(static, target_params, rows.next_observations, rows.next_actions)[rows.subset]
    targets = losses.critic_target(following, rows.rewards, rows.masks, hyper.discount, rows.entropy_bonus)
    values = _values(static, params, rows.observations, rows.actions)
    return losses.critic_loss(values, targets), {"q": jnp.mean(values)}


def _policy_step(
    static: ActorCriticStatic, hyper: Hyper, state: SACState, observations: jax.Array, key: jax.Array
) -> tuple[SACState, Info, jax.Array]:
    """Step actor and temperature on one minibatch of observations."""
    temperature = jnp.exp(state.temp.params["log_value"])

    def loss(actor: Any) -> tuple[jax.Array, jax.Array]:
        drawn = static.sample(actor, observations, key, static.action_range.bounds())
        values = _values(static, state.critic.params, observations, drawn.actions)
        return losses.actor_loss(values, drawn.log_probs, temperature), -jnp.mean(drawn.log_probs)

    (value, entropy), grads = jax.value_and_grad(loss, has_aux=True)(state.actor.params)
    state, info, accept = step_policy(static, hyper, state, grads, entropy)
    return state, {"actor_loss": value, **info}, accept


@dataclass(frozen=True)
class SACLearner(ActorCriticLearner):
    """See :class:`racer.agents.learner.BaseLearner` for the verbs."""

    config_class: ClassVar[type[SACConfig]] = SACConfig
    components = ("actor", "critic", "target_critic", "temp")
    initial_state = staticmethod(initial_state)
    pure_update = staticmethod(update)

    @staticmethod
    def prepare(config: SACConfig, fixed: Fixed, interfaces: Interfaces) -> ActorCriticStatic:
        """See :class:`racer.agents.learner.BaseLearner`."""
        action_range = ActionRange(interfaces.low, interfaces.high)
        return ActorCriticStatic(**SACLearner.fields(config, fixed, interfaces, action_range, outputs=1))

    @staticmethod
    def bounds(static: ActorCriticStatic, state: SACState) -> Bounds:
        """Return all of the action space."""
        return static.action_range.bounds()
