"""One ``update()`` call of PPO as one pure function: values, advantages, then every epoch and minibatch in one scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from racer.agents.ppo import distributions, losses
from racer.agents.ppo.config import PPOConfig
from racer.agents.ppo.gae import generalized_advantages
from racer.agents.ppo.spaces import ActionHead
from racer.agents.ppo.value_scale import ValueScale, followed, initial_value_scale, rescaled
from racer.agents.schedules import learning_rate_fraction
from racer.agents.state import Trainable, strong, trainable, tree_is_finite
from racer.agents.validation import Interfaces
from racer.networks.actor_critic import PolicyNetwork, ValueNetwork
from racer.networks.flax_encoders import EncoderSpec

__all__ = ["COMPONENTS", "LearnerState", "Recipe", "deterministic_actions", "initial_state", "sample", "update"]

COMPONENTS = ("actor", "critic", "value_scale")

_ADAM_EPSILON = 1e-5


class LearnerState(NamedTuple):
    """Everything that changes during training.

    Attributes:
        actor: policy network, a shared trunk included.
        critic: value network.
        value_scale: running mean and deviation of the returns.
        rng: ``[2]`` uint32 key of all further random numbers.
        transitions: int32, transitions learnt from so far (rows that are valid).
        updates: int32, update() calls so far.
        gradient_steps: int32, minibatches stepped on so far.
        nonfinite_updates: int32, steps refused so far because a gradient was not finite.
    """

    actor: Trainable
    critic: Trainable
    value_scale: ValueScale
    rng: jax.Array
    transitions: jax.Array
    updates: jax.Array
    gradient_steps: jax.Array
    nonfinite_updates: jax.Array


@dataclass(frozen=True)
class Recipe:
    """What the compiled functions are specialised on; hashable, so equal recipes share one compilation.

    Attributes:
        config: the agent's configuration.
        interfaces: sizes of observations and actions.
        head: the action distribution and its range.
    """

    config: PPOConfig
    interfaces: Interfaces
    head: ActionHead

    @property
    def encoder(self) -> EncoderSpec:
        """Observation encoder of both networks."""
        config = self.config
        return EncoderSpec(config.observation_scale, config.pointnet_dims, config.vehicle_features)

    @property
    def actor(self) -> PolicyNetwork:
        """The policy module."""
        config, head = self.config, self.head
        return PolicyNetwork(
            config.hidden_dims, head.size, head.distribution, config.initial_std, head.initial, self.encoder,
            config.activation, config.orthogonal_init,
        )  # fmt: skip

    @property
    def critic(self) -> ValueNetwork:
        """The value module: on observations, or with a shared trunk on its features."""
        config = self.config
        if config.shared_trunk:
            return ValueNetwork((), EncoderSpec(), config.activation, config.orthogonal_init)
        return ValueNetwork(config.value_hidden_dims, self.encoder, config.activation, config.orthogonal_init)

    @property
    def bounds(self) -> distributions.Bounds:
        """The action range, ``[A]`` each."""
        return jnp.array(self.head.low, jnp.float32), jnp.array(self.head.high, jnp.float32)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam without its step size, which follows the schedule."""
        return optax.scale_by_adam(eps=_ADAM_EPSILON)

    def policy(self, actor_params: Any, observations: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        """Return the distribution's parameters and the trunk's features."""
        return cast(Any, self.actor.apply({"params": actor_params}, observations))

    def values(self, actor_params: Any, critic_params: Any, observations: jax.Array) -> jax.Array:
        """Return normalized values ``[...]`` of observations ``[..., D]``."""
        inputs = self.policy(actor_params, observations)[1] if self.config.shared_trunk else observations
        return cast(Any, self.critic.apply({"params": critic_params}, inputs))

    def policy_and_values(
        self, actor_params: Any, critic_params: Any, observations: jax.Array
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Return the distribution's parameters and the normalized values, with one pass through a shared trunk."""
        params, features = self.policy(actor_params, observations)
        inputs = features if self.config.shared_trunk else observations
        return params, cast(Any, self.critic.apply({"params": critic_params}, inputs))


@partial(jax.jit, static_argnums=0)
def initial_state(recipe: Recipe, key: jax.Array) -> LearnerState:
    """Draw fresh parameters from ``key`` (``[2]`` uint32)."""
    actor_key, critic_key, rng = jax.random.split(key, 3)
    observation = jnp.zeros((1, recipe.interfaces.observation_dim), jnp.float32)
    actor = recipe.actor.init(actor_key, observation)["params"]
    features = recipe.policy(actor, observation)[1]
    critic = recipe.critic.init(critic_key, features if recipe.config.shared_trunk else observation)["params"]
    zero = jnp.zeros((), jnp.int32)
    optimizer = recipe.optimizer
    state = LearnerState(
        actor=trainable(optimizer, actor),
        critic=trainable(optimizer, critic),
        value_scale=initial_value_scale(),
        rng=rng,
        transitions=zero,
        updates=zero,
        gradient_steps=zero,
        nonfinite_updates=zero,
    )
    return strong(state)


@partial(jax.jit, static_argnums=0)
def sample(recipe: Recipe, actor_params: Any, rng: jax.Array, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw actions for observations ``[N, D]``; returns them and the next key."""
    rng, key = jax.random.split(rng)
    params, _ = recipe.policy(actor_params, observations)
    return distributions.draw(recipe.head.distribution, params, key, recipe.bounds), rng


@partial(jax.jit, static_argnums=0)
def deterministic_actions(recipe: Recipe, actor_params: Any, observations: jax.Array) -> jax.Array:
    """Return the deterministic actions for observations ``[N, D]``."""
    params, _ = recipe.policy(actor_params, observations)
    return distributions.deterministic(recipe.head.distribution, params, recipe.bounds)


class _Rows(NamedTuple):
    """Rows of the rollout as the losses want them, ``[B, ...]``; ``values`` and ``targets`` are normalized."""

    observations: jax.Array
    draws: jax.Array
    behaviour_log_probs: jax.Array
    initial_log_probs: jax.Array
    advantages: jax.Array
    values: jax.Array
    targets: jax.Array
    valid: jax.Array


class _Carry(NamedTuple):
    """What the scan over minibatches hands on."""

    actor: Trainable
    critic: Trainable
    stopped: jax.Array


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def update(
    recipe: Recipe, state: LearnerState, rollout: dict[str, jax.Array]
) -> tuple[LearnerState, dict[str, jax.Array]]:
    """Learn from one rollout.

    Args:
        recipe: static description.
        state: donated; do not use it afterwards.
        rollout: time-major fields, see :meth:`racer.agents.ppo.PPOLearner.update`; ``draws`` are what the density is
            taken at (for choices the indices).

    Returns:
        The next state, and scalars to log: means over the minibatches that were stepped on.
    """
    config = recipe.config
    rng, order_key, noise_key = jax.random.split(state.rng, 3)
    rows, critic, value_scale, info = _prepare(recipe, state, rollout)
    count = rows.valid.size
    steps = config.num_epochs * config.num_minibatches
    permute = jax.vmap(lambda key: jax.random.permutation(key, count))
    order = permute(jax.random.split(order_key, config.num_epochs)).reshape(steps, -1)
    fraction = learning_rate_fraction(
        config.lr_schedule, state.transitions, config.lr_decay_transitions, config.final_lr_fraction
    )

    def body(carry: _Carry, step: tuple[jax.Array, jax.Array]) -> tuple[_Carry, dict[str, jax.Array]]:
        index, key = step
        minibatch = jax.tree.map(lambda x: x[index], rows)
        take = partial(_minibatch_step, recipe, minibatch, key, fraction)
        shapes = jax.eval_shape(take, carry)[1]
        skip = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.cond(carry.stopped, lambda kept: (kept, skip), take, carry)

    start = _Carry(state.actor, critic, jnp.zeros((), bool))
    end, reports = jax.lax.scan(body, start, (order, jax.random.split(noise_key, steps)))
    taken, bad = jnp.sum(reports.pop("taken")), jnp.sum(reports.pop("nonfinite"))
    info |= {name: jnp.sum(values) / jnp.maximum(taken, 1.0) for name, values in reports.items()}
    transitions = state.transitions + jnp.sum(rows.valid).astype(jnp.int32)
    state = LearnerState(
        actor=end.actor,
        critic=end.critic,
        value_scale=value_scale,
        rng=rng,
        transitions=transitions,
        updates=state.updates + 1,
        gradient_steps=state.gradient_steps + taken.astype(jnp.int32),
        nonfinite_updates=state.nonfinite_updates + bad,
    )
    info |= {
        "minibatches": taken,
        "stopped_by_kl": end.stopped.astype(jnp.float32),
        "actor_lr": config.actor_lr * fraction,
        "nonfinite_updates": bad,
    }
    return state, info


def _prepare(
    recipe: Recipe, state: LearnerState, rollout: Mapping[str, jax.Array]
) -> tuple[_Rows, Trainable, ValueScale, dict[str, jax.Array]]:
    """Compute values, advantages and the policy before the update; rescale the value network to the new returns."""
    config, scale, valid = recipe.config, state.value_scale, rollout["valid"]
    policy_params, normal = recipe.policy_and_values(state.actor.params, state.critic.params, rollout["observations"])
    following = recipe.values(state.actor.params, state.critic.params, rollout["next_observations"])
    values = scale.raw(normal)
    advantages = generalized_advantages(
        rollout["rewards"], rollout["masks"], rollout["dones"], valid, values, scale.raw(following),
        config.discount, config.gae_lambda,
    )  # fmt: skip
    targets = advantages + values
    new_scale, critic = scale, state.critic
    if config.normalize_values:
        new_scale = followed(scale, targets, valid)
        critic = critic._replace(params=rescaled(critic.params, scale, new_scale))
    initial = distributions.log_probs(recipe.head.distribution, policy_params, rollout["draws"], recipe.bounds)
    rows = _Rows(
        observations=rollout["observations"],
        draws=rollout["draws"],
        behaviour_log_probs=rollout["log_probs"],
        initial_log_probs=initial,
        advantages=advantages,
        values=new_scale.normal(values),
        targets=new_scale.normal(targets),
        valid=valid,
    )
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
    residual = losses.masked_mean(jnp.square(targets - values), valid)
    mean_target = losses.masked_mean(targets, valid)
    variance = losses.masked_mean(jnp.square(targets - mean_target), valid)
    info = {
        "value_target": mean_target,
        "explained_variance": 1.0 - residual / jnp.maximum(variance, 1e-8),
        "lag_kl": losses.masked_mean(losses.divergence(initial, rollout["log_probs"]), valid),
        "reward": losses.masked_mean(rollout["rewards"], valid),
    }
    return flat, critic, new_scale, info


def _minibatch_step(
    recipe: Recipe, rows: _Rows, key: jax.Array, fraction: jax.Array, carry: _Carry
) -> tuple[_Carry, dict[str, jax.Array]]:
    """Take one gradient step on both networks, or none where the policy has moved too far or a gradient is bad."""
    config = recipe.config
    (_, report), grads = jax.value_and_grad(partial(_loss, recipe, rows, key), has_aux=True)(
        (carry.actor.params, carry.critic.params)
    )
    norm = optax.tree.norm(grads)
    grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, config.max_grad_norm / jnp.maximum(norm, 1e-12)), grads)
    finite = tree_is_finite(grads)
    stop = jnp.zeros((), bool)
    if config.target_kl is not None:
        stop = report["kl"] > config.target_kl
    accept = finite & ~stop
    actor = _step(recipe.optimizer, carry.actor, grads[0], config.actor_lr * fraction, accept)
    critic = _step(recipe.optimizer, carry.critic, grads[1], config.critic_lr * fraction, accept)
    # A minibatch that is not stepped on is not reported, lest one bad number hides the rest.
    report = {name: jnp.where(accept, value, 0.0) for name, value in {**report, "grad_norm": norm}.items()}
    report["taken"] = accept.astype(jnp.float32)
    report["nonfinite"] = (~finite).astype(jnp.int32)
    return _Carry(actor, critic, stop), report


def _step(
    optimizer: optax.GradientTransformation, old: Trainable, grads: Any, rate: jax.Array, accept: jax.Array
) -> Trainable:
    directions, opt_state = optimizer.update(grads, old.opt_state, old.params)
    params = jax.tree.map(lambda p, d: p - rate * d, old.params, directions)
    return jax.tree.map(lambda new, kept: jnp.where(accept, new, kept), Trainable(params, opt_state), old)


def _loss(recipe: Recipe, rows: _Rows, key: jax.Array, both: tuple[Any, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the objective of eq. 9 with its sign turned, and scalars to log."""
    config, head = recipe.config, recipe.head
    params, values = recipe.policy_and_values(*both, rows.observations)
    log_probs = distributions.log_probs(head.distribution, params, rows.draws, recipe.bounds)
    noise = jax.random.normal(key, rows.draws.shape) if head.distribution == "tanh_gaussian" else jnp.zeros(())
    mean = partial(losses.masked_mean, valid=rows.valid)
    advantages = rows.advantages
    if config.normalize_advantages:
        advantages = losses.normalized_advantages(advantages, rows.valid)
    policy = mean(losses.clipped_surrogate(log_probs, rows.behaviour_log_probs, advantages, config.clip_ratio))
    value = mean(losses.value_loss(values, rows.values, rows.targets, config.value_clip))
    entropy = mean(distributions.entropies(head.distribution, params, noise, recipe.bounds))
    ratio = jnp.exp(log_probs - rows.behaviour_log_probs)
    report = {
        "policy_loss": policy,
        "value_loss": value,
        "entropy": entropy,
        "kl": mean(losses.divergence(log_probs, rows.initial_log_probs)),
        "clip_fraction": mean((jnp.abs(ratio - 1.0) > config.clip_ratio).astype(jnp.float32)),
    }
    return policy + config.value_coef * value - config.entropy_coef * entropy, report
