"""One ``update()`` call of SAC as one pure function; the same order of steps as the distributional learner."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from racer.agents.limits import ActionRange
from racer.agents.sac import losses
from racer.agents.sac.config import SACConfig
from racer.agents.schedules import actor_critic_fraction
from racer.agents.shared import gaussian_actor, policy_steps
from racer.agents.state import QUICK_TO_COMPILE, Trainable, adamw, strong, trainable, tree_is_finite
from racer.agents.temperature import temperature_loss
from racer.agents.validation import Interfaces
from racer.networks.critics import EnsembleCritic
from racer.networks.flax_encoders import EncoderSpec
from racer.networks.gaussian import GaussianActor, sample_squashed, squash

__all__ = ["COMPONENTS", "LearnerState", "Recipe", "deterministic_actions", "initial_state", "sample", "update"]

COMPONENTS = ("actor", "critic", "target_critic", "temp")


class LearnerState(NamedTuple):
    """Everything that changes during training.

    Attributes:
        actor: policy network.
        critic: ensemble of scalar critics.
        target_critic: slowly following copy of the critics' parameters.
        temp: ``{"log_value": scalar}``, logarithm of the entropy temperature.
        rng: ``[2]`` uint32 key of all further random numbers.
        gradient_steps: int32, critic steps taken or skipped so far.
        nonfinite_updates: int32, steps skipped so far because a gradient was not finite.
    """

    actor: Trainable
    critic: Trainable
    target_critic: Any
    temp: Trainable
    rng: jax.Array
    gradient_steps: jax.Array
    nonfinite_updates: jax.Array


@dataclass(frozen=True)
class Recipe:
    """What the compiled functions are specialised on; hashable, so equal recipes share one compilation.

    Attributes:
        config: the agent's configuration.
        interfaces: sizes and ranges of observations and actions.
    """

    config: SACConfig
    interfaces: Interfaces

    @property
    def action_range(self) -> ActionRange:
        """The box of the policy: all of the action space."""
        return ActionRange(self.interfaces.action_low, self.interfaces.action_high)

    @property
    def encoder(self) -> EncoderSpec:
        """Observation encoder of actor and critics."""
        config = self.config
        return EncoderSpec(config.observation_scale, config.pointnet_dims, config.vehicle_features)

    @property
    def actor(self) -> GaussianActor:
        """The policy module."""
        return gaussian_actor(self.config, self.interfaces, self.encoder, self.action_range)

    @property
    def critic(self) -> EnsembleCritic:
        """The critic module."""
        config = self.config
        return EnsembleCritic(config.num_qs, config.critic_hidden_dims, 1, self.encoder, config.critic_layer_norm)

    def gaussian(self, actor_params: Any, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the policy's mean and log standard deviation, ``[..., A]`` each."""
        return cast(Any, self.actor.apply({"params": actor_params}, observations))

    def values(self, critic_params: Any, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Return the critics' values ``[E, B]`` for ``[B, D]`` and ``[B, A]``."""
        found = self.critic.apply({"params": critic_params}, observations, actions[None])
        return cast(jax.Array, found)[:, 0, :, 0]

    @property
    def target_entropy(self) -> float:
        """Entropy the temperature steers to, nats."""
        given = self.config.target_entropy
        return -0.5 * self.interfaces.action_dim if given is None else float(given)

    def optimizers(self, gradient_steps: jax.Array) -> dict[str, Any]:
        """Return the optimizer of each trained component after ``gradient_steps``."""
        config = self.config
        fraction = actor_critic_fraction(config, gradient_steps)
        return {
            "actor": adamw(config.actor_lr * fraction, None),
            "critic": adamw(config.critic_lr * fraction, config.critic_weight_decay),
            "temp": adamw(config.temp_lr, None),
        }


@partial(jax.jit, static_argnums=0, compiler_options=QUICK_TO_COMPILE)
def initial_state(recipe: Recipe, key: jax.Array) -> LearnerState:
    """Draw fresh parameters from ``key`` (``[2]`` uint32)."""
    actor_key, critic_key, rng = jax.random.split(key, 3)
    observation = jnp.zeros((1, recipe.interfaces.observation_dim), jnp.float32)
    action = jnp.zeros((1, 1, recipe.interfaces.action_dim), jnp.float32)
    actor = recipe.actor.init(actor_key, observation)["params"]
    critic = recipe.critic.init(critic_key, observation, action)["params"]
    optimizers = recipe.optimizers(jnp.int32(0))
    log_temperature = jnp.log(jnp.asarray(recipe.config.init_temperature, jnp.float32))
    state = LearnerState(
        actor=trainable(optimizers["actor"], actor),
        critic=trainable(optimizers["critic"], critic),
        target_critic=jax.tree.map(jnp.copy, critic),
        temp=trainable(optimizers["temp"], {"log_value": log_temperature}),
        rng=rng,
        gradient_steps=jnp.zeros((), jnp.int32),
        nonfinite_updates=jnp.zeros((), jnp.int32),
    )
    return strong(state)


@partial(jax.jit, static_argnums=0)
def sample(recipe: Recipe, actor_params: Any, rng: jax.Array, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw actions ``[N, A]`` for observations ``[N, D]``; returns them and the next key."""
    rng, key = jax.random.split(rng)
    mean, log_std = recipe.gaussian(actor_params, observations)
    low, high = recipe.action_range.bounds(jnp.float32(0.0))
    return sample_squashed(mean, log_std, jax.random.normal(key, mean.shape), low, high).actions, rng


@partial(jax.jit, static_argnums=0)
def deterministic_actions(recipe: Recipe, actor_params: Any, observations: jax.Array) -> jax.Array:
    """Return the squashed mean actions ``[N, A]``."""
    mean, _ = recipe.gaussian(actor_params, observations)
    return squash(mean, *recipe.action_range.bounds(jnp.float32(0.0)))


class _CriticData(NamedTuple):
    """One minibatch of critic training; stacked ``[U, ...]`` over the ``utd_ratio`` minibatches."""

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    masks: jax.Array
    next_observations: jax.Array
    next_actions: jax.Array
    entropy_bonus: jax.Array
    subset: jax.Array


@partial(jax.jit, static_argnums=(0, 3), donate_argnums=1)
def update(
    recipe: Recipe, state: LearnerState, batch: dict[str, jax.Array], utd_ratio: int
) -> tuple[LearnerState, dict[str, jax.Array]]:
    """Take ``utd_ratio`` critic steps and ``policy_steps`` steps of actor and temperature on the last minibatches.

    Args:
        recipe: static description.
        state: donated; do not use it afterwards.
        batch: fields ``[U * B, ...]`` float32.
        utd_ratio: U.

    Returns:
        The next state, and scalars to log.
    """
    rng, policy_key, actor_key = jax.random.split(state.rng, 3)
    minibatches = {name: x.reshape(utd_ratio, -1, *x.shape[1:]) for name, x in batch.items()}
    data = _critic_data(recipe, state, minibatches, policy_key)
    optimizer = recipe.optimizers(state.gradient_steps)["critic"]

    def body(carry: tuple[Trainable, Any], rows: _CriticData) -> tuple[tuple[Trainable, Any], dict[str, jax.Array]]:
        return _critic_step(recipe, optimizer, *carry, rows)

    (critic, target_critic), steps = jax.lax.scan(body, (state.critic, state.target_critic), data)
    skipped = jnp.sum(steps.pop("skipped"))
    state = state._replace(
        critic=critic, target_critic=target_critic, gradient_steps=state.gradient_steps + utd_ratio
    )
    info = {name: jnp.mean(values) for name, values in steps.items()}
    last = minibatches["observations"][-recipe.config.policy_steps :]
    state, policy_info, policy_bad = policy_steps(partial(_policy_step, recipe), state, last, actor_key)
    bad = skipped + policy_bad
    state = state._replace(
        rng=rng,
        nonfinite_updates=state.nonfinite_updates + bad,
    )
    return state, {**info, **policy_info, "nonfinite_updates": bad}


def _critic_data(recipe: Recipe, state: LearnerState, minibatches: dict[str, jax.Array], key: jax.Array) -> _CriticData:
    """Draw next actions and target subsets for every minibatch at once."""
    config = recipe.config
    noise_key, subset_key = jax.random.split(key)
    mean, log_std = recipe.gaussian(state.actor.params, minibatches["next_observations"])
    noise = jax.random.normal(noise_key, mean.shape)
    following = sample_squashed(mean, log_std, noise, *recipe.action_range.bounds(jnp.float32(0.0)))
    bonus = -jnp.exp(state.temp.params["log_value"]) * following.log_probs
    keys = jax.random.split(subset_key, len(mean))
    subsets = jax.vmap(lambda k: jax.random.permutation(k, config.num_qs))(keys)
    return _CriticData(
        minibatches["observations"],
        minibatches["actions"],
        minibatches["rewards"],
        minibatches["masks"],
        minibatches["next_observations"],
        following.actions,
        bonus if config.backup_entropy else jnp.zeros_like(bonus),
        subsets[:, : config.num_min_qs or config.num_qs],
    )


def _critic_step(
    recipe: Recipe,
    optimizer: optax.GradientTransformation,
    critic: Trainable,
    target_critic: Any,
    rows: _CriticData,
) -> tuple[tuple[Trainable, Any], dict[str, jax.Array]]:
    """Take one critic step, then let the target follow (``target += tau * (critic - target)``)."""
    config = recipe.config
    next_values = recipe.values(target_critic, rows.next_observations, rows.next_actions)[rows.subset]
    targets = losses.critic_target(next_values, rows.rewards, rows.masks, config.discount, rows.entropy_bonus)

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        values = recipe.values(params, rows.observations, rows.actions)
        return losses.critic_loss(values, targets), jnp.mean(values)

    (value, mean_value), grads = jax.value_and_grad(loss, has_aux=True)(critic.params)
    accept = tree_is_finite(grads)
    stepped = critic.step(optimizer, grads, accept)
    # A skipped step leaves the target alone too: tau becomes 0.
    share = jnp.where(accept, jnp.float32(config.tau), 0.0)
    followed = jax.tree.map(lambda old, new: old + share * (new - old), target_critic, stepped.params)
    info = {"critic_loss": value, "q": mean_value, "skipped": 1 - accept.astype(jnp.int32)}
    return (stepped, followed), info


def _policy_step(
    recipe: Recipe, state: LearnerState, observations: jax.Array, key: jax.Array
) -> tuple[LearnerState, dict[str, jax.Array], jax.Array]:
    """Step actor and temperature on one minibatch of observations ``[B, D]``."""
    optimizers = recipe.optimizers(state.gradient_steps)
    temperature = jnp.exp(state.temp.params["log_value"])
    noise = jax.random.normal(key, (len(observations), recipe.interfaces.action_dim))

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        mean, log_std = recipe.gaussian(params, observations)
        drawn = sample_squashed(mean, log_std, noise, *recipe.action_range.bounds(jnp.float32(0.0)))
        values = recipe.values(state.critic.params, observations, drawn.actions)
        return losses.actor_loss(values, drawn.log_probs, temperature), -jnp.mean(drawn.log_probs)

    (value, entropy), actor_grads = jax.value_and_grad(loss, has_aux=True)(state.actor.params)
    temp_value, temp_grads = jax.value_and_grad(
        lambda params: temperature_loss(params["log_value"], entropy, recipe.target_entropy)
    )(state.temp.params)
    accept = tree_is_finite((actor_grads, temp_grads))
    actor = state.actor.step(optimizers["actor"], actor_grads, accept)
    temp = state.temp.step(optimizers["temp"], temp_grads, accept)
    info = {
        "actor_loss": value,
        "entropy": entropy,
        "temperature": temperature,
        "temperature_loss": temp_value,
    }
    return state._replace(actor=actor, temp=temp), info, accept
