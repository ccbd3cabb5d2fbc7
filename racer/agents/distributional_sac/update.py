"""One ``update()`` call as one pure function: a scan of critic steps, then the steps of everything else.

As in the jaxrl family, each of the ``utd_ratio`` minibatches trains the critics; the actor, the learned limit and the
temperature then take ``policy_steps`` steps (one there), on the last minibatches, and the critic-entropy
multiplier one. The policy stands still during the scan, so its forward passes for all minibatches are one large
product before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from racer.agents.distributional_sac import losses
from racer.agents.distributional_sac.config import DistributionalSACConfig
from racer.agents.limits import ActionRange
from racer.agents.schedules import actor_critic_fraction
from racer.agents.shared import gaussian_actor, policy_steps
from racer.agents.state import QUICK_TO_COMPILE, Trainable, adamw, strong, trainable, tree_is_finite
from racer.agents.temperature import temperature_loss
from racer.agents.validation import Interfaces
from racer.networks.categorical import Support
from racer.networks.critics import EnsembleCritic
from racer.networks.flax_encoders import EncoderSpec
from racer.networks.gaussian import GaussianActor, sample_squashed, squash

__all__ = ["COMPONENTS", "LearnerState", "Recipe", "deterministic_actions", "initial_state", "sample", "update"]

COMPONENTS = ("actor", "critic", "target_critic", "limits", "temp", "q_entropy_lagrange")


class LearnerState(NamedTuple):
    """Everything that changes during training.

    Attributes:
        actor: policy network.
        critic: ensemble of categorical critics.
        target_critic: slowly following copy of the critics' parameters.
        limits: ``{"limit": scalar}``, the learned action limit.
        temp: ``{"log_value": scalar}``, logarithm of the entropy temperature.
        q_entropy_lagrange: ``{"log_value": scalar}``, logarithm of the critic-entropy multiplier.
        rng: ``[2]`` uint32 key of all further random numbers.
        gradient_steps: int32, critic steps taken or skipped so far.
        nonfinite_updates: int32, steps skipped so far because a gradient was not finite.
    """

    actor: Trainable
    critic: Trainable
    target_critic: Any
    limits: Trainable
    temp: Trainable
    q_entropy_lagrange: Trainable
    rng: jax.Array
    gradient_steps: jax.Array
    nonfinite_updates: jax.Array


@dataclass(frozen=True)
class Recipe:
    """What the compiled functions are specialised on; hashable, so equal recipes share one compilation.

    Attributes:
        config: the agent's configuration.
        interfaces: sizes and ranges of observations and actions.
        action_range: the box of the policy with its learned limit.
    """

    config: DistributionalSACConfig
    interfaces: Interfaces
    action_range: ActionRange

    @property
    def support(self) -> Support:
        """Atoms of the critics."""
        return Support(self.config.q_min, self.config.q_max, self.config.num_atoms)

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
        return EnsembleCritic(
            config.num_qs, config.critic_hidden_dims, config.num_atoms, self.encoder, config.critic_layer_norm
        )

    def gaussian(self, actor_params: Any, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the policy's mean and log standard deviation, ``[..., A]`` each."""
        return cast(Any, self.actor.apply({"params": actor_params}, observations))

    def logits(self, critic_params: Any, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Return the critics' logits ``[E, K, B, n]`` for ``[B, D]`` and ``[K, B, A]``."""
        return cast(jax.Array, self.critic.apply({"params": critic_params}, observations, actions))

    @property
    def target_entropy(self) -> float:
        """Entropy the temperature steers to, nats."""
        given = self.config.target_entropy
        return -0.5 * self.interfaces.action_dim if given is None else float(given)

    def risk(self, level: float, gradient_steps: jax.Array) -> float | jax.Array:
        """Return the CVaR level after ``gradient_steps``: ``level``, or less while it is still rising to it."""
        warmup = self.config.cvar_warmup_steps
        if warmup == 0:
            return level
        return level * jnp.minimum(gradient_steps.astype(jnp.float32) / warmup, 1.0)

    def optimizers(self, gradient_steps: jax.Array) -> dict[str, Any]:
        """Return the optimizer of each trained component after ``gradient_steps``."""
        config = self.config
        fraction = actor_critic_fraction(config, gradient_steps)
        return {
            "actor": adamw(config.actor_lr * fraction, None),
            "critic": adamw(config.critic_lr * fraction, config.critic_weight_decay),
            "limits": adamw(config.limits_lr, config.limits_weight_decay),
            "temp": adamw(config.temp_lr, None),
            "q_entropy_lagrange": adamw(config.q_entropy_lagrange_lr, None),
        }


@partial(jax.jit, static_argnums=0, compiler_options=QUICK_TO_COMPILE)
def initial_state(recipe: Recipe, key: jax.Array) -> LearnerState:
    """Draw fresh parameters from ``key`` (``[2]`` uint32)."""
    config, interfaces = recipe.config, recipe.interfaces
    actor_key, critic_key, rng = jax.random.split(key, 3)
    observation = jnp.zeros((1, interfaces.observation_dim), jnp.float32)
    action = jnp.zeros((1, 1, interfaces.action_dim), jnp.float32)
    actor = recipe.actor.init(actor_key, observation)["params"]
    critic = recipe.critic.init(critic_key, observation, action)["params"]
    optimizers = recipe.optimizers(jnp.int32(0))
    scalar = partial(jnp.asarray, dtype=jnp.float32)
    state = LearnerState(
        actor=trainable(optimizers["actor"], actor),
        critic=trainable(optimizers["critic"], critic),
        target_critic=jax.tree.map(jnp.copy, critic),
        limits=trainable(optimizers["limits"], {"limit": scalar(recipe.action_range.initial)}),
        temp=trainable(optimizers["temp"], {"log_value": jnp.log(scalar(config.init_temperature))}),
        q_entropy_lagrange=trainable(
            optimizers["q_entropy_lagrange"], {"log_value": jnp.log(scalar(config.q_entropy_lagrange_init))}
        ),
        rng=rng,
        gradient_steps=jnp.zeros((), jnp.int32),
        nonfinite_updates=jnp.zeros((), jnp.int32),
    )
    return strong(state)


@partial(jax.jit, static_argnums=0)
def sample(
    recipe: Recipe, actor_params: Any, limit: jax.Array, rng: jax.Array, observations: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Draw actions ``[N, A]`` for observations ``[N, D]``; returns them and the next key."""
    rng, key = jax.random.split(rng)
    mean, log_std = recipe.gaussian(actor_params, observations)
    noise = jax.random.normal(key, mean.shape)
    return sample_squashed(mean, log_std, noise, *recipe.action_range.bounds(limit)).actions, rng


@partial(jax.jit, static_argnums=0)
def deterministic_actions(recipe: Recipe, actor_params: Any, limit: jax.Array, observations: jax.Array) -> jax.Array:
    """Return the squashed, limited mean actions ``[N, A]``."""
    mean, _ = recipe.gaussian(actor_params, observations)
    return squash(mean, *recipe.action_range.bounds(limit))


class _CriticData(NamedTuple):
    """One minibatch of critic training; stacked ``[U, ...]`` over the ``utd_ratio`` minibatches.

    ``rewards`` carry the entropy bonus where the backup does; ``actions`` are ``[K, B, A]``.
    """

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    masks: jax.Array
    next_observations: jax.Array
    next_actions: jax.Array


@partial(jax.jit, static_argnums=(0, 3), donate_argnums=1)
def update(
    recipe: Recipe, state: LearnerState, batch: dict[str, jax.Array], utd_ratio: int
) -> tuple[LearnerState, dict[str, jax.Array]]:
    """Take ``utd_ratio`` critic steps, then ``policy_steps`` of the policy and one of the multiplier.

    Args:
        recipe: static description.
        state: donated; do not use it afterwards.
        batch: fields ``[U * B, ...]`` float32.
        utd_ratio: U.

    Returns:
        The next state, and scalars to log.
    """
    config = recipe.config
    rng, policy_key, actor_key = jax.random.split(state.rng, 3)
    minibatches = {name: x.reshape(utd_ratio, -1, *x.shape[1:]) for name, x in batch.items()}
    data = _critic_data(recipe, state, minibatches, policy_key)
    lagrange = jnp.exp(state.q_entropy_lagrange.params["log_value"])
    optimizer = recipe.optimizers(state.gradient_steps)["critic"]

    def body(carry: tuple[Trainable, Any], rows: _CriticData) -> tuple[tuple[Trainable, Any], dict[str, jax.Array]]:
        return _critic_step(recipe, optimizer, *carry, rows, lagrange)

    (critic, target_critic), steps = jax.lax.scan(body, (state.critic, state.target_critic), data)
    skipped = jnp.sum(steps.pop("skipped"))
    state = state._replace(
        critic=critic, target_critic=target_critic, gradient_steps=state.gradient_steps + utd_ratio
    )
    info = {name: jnp.mean(values) for name, values in steps.items()}

    last = minibatches["observations"][-config.policy_steps :]
    state, policy_info, policy_bad = policy_steps(partial(_policy_step, recipe), state, last, actor_key)
    state, multiplier_info = _multiplier_step(recipe, state, info)
    bad = skipped + policy_bad
    state = state._replace(
        rng=rng,
        nonfinite_updates=state.nonfinite_updates + bad,
    )
    return state, {**info, **policy_info, **multiplier_info, "nonfinite_updates": bad}


def _critic_data(recipe: Recipe, state: LearnerState, minibatches: dict[str, jax.Array], key: jax.Array) -> _CriticData:
    """Draw the policy's actions for every minibatch at once and lay out the scan's inputs.

    The out-of-distribution actions are the policy's Gaussian draws *before* squashing and limiting: they
    reach beyond the learned limit and beyond the action range, where there is no data.
    """
    config = recipe.config
    next_key, ood_key = jax.random.split(key)
    low, high = recipe.action_range.bounds(state.limits.params["limit"])
    params = state.actor.params
    mean, log_std = recipe.gaussian(params, minibatches["next_observations"])
    following = sample_squashed(mean, log_std, jax.random.normal(next_key, mean.shape), low, high)
    rewards = minibatches["rewards"]
    if config.backup_entropy:
        bonus = jnp.exp(state.temp.params["log_value"]) * following.log_probs
        rewards = rewards - config.discount * minibatches["masks"] * bonus
    actions = minibatches["actions"][:, None]
    if config.q_entropy_target_diff is not None:
        mean, log_std = recipe.gaussian(params, minibatches["observations"])
        raw = mean + jnp.exp(log_std) * jax.random.normal(ood_key, mean.shape)
        actions = jnp.concatenate([actions, raw[:, None]], axis=1)
    return _CriticData(
        minibatches["observations"],
        actions,
        rewards,
        minibatches["masks"],
        minibatches["next_observations"],
        following.actions[:, None],
    )


def _critic_step(
    recipe: Recipe,
    optimizer: optax.GradientTransformation,
    critic: Trainable,
    target_critic: Any,
    rows: _CriticData,
    lagrange: jax.Array,
) -> tuple[tuple[Trainable, Any], dict[str, jax.Array]]:
    """Take one critic step, then let the target follow (``target += tau * (critic - target)``)."""
    config, support = recipe.config, recipe.support
    next_logits = recipe.logits(target_critic, rows.next_observations, rows.next_actions)
    target_probs = losses.critic_target(
        support, next_logits[:, 0], rows.rewards, rows.masks, config.discount, config.independent_ensemble
    )

    def loss(params: Any) -> tuple[jax.Array, losses.CriticTerms]:
        logits = recipe.logits(params, rows.observations, rows.actions)
        return losses.critic_loss(logits, target_probs, lagrange)

    (value, terms), grads = jax.value_and_grad(loss, has_aux=True)(critic.params)
    accept = tree_is_finite(grads)
    stepped = critic.step(optimizer, grads, accept)
    # A skipped step leaves the target alone too: tau becomes 0.
    share = jnp.where(accept, jnp.float32(config.tau), 0.0)
    followed = jax.tree.map(lambda old, new: old + share * (new - old), target_critic, stepped.params)
    info = {
        "critic_loss": value,
        "critic_cross_entropy": terms.cross_entropy,
        "critic_entropy": terms.data_entropy,
        "ood_entropy": terms.ood_entropy,
        "target_mean": jnp.mean(target_probs @ support.atoms()),
        "skipped": 1 - accept.astype(jnp.int32),
    }
    return (stepped, followed), info


def _policy_step(
    recipe: Recipe, state: LearnerState, observations: jax.Array, key: jax.Array
) -> tuple[LearnerState, dict[str, jax.Array], jax.Array]:
    """Step the actor, the learned limit and the temperature on one minibatch of observations ``[B, D]``.

    Actor and limit read one forward pass. Where both have the same risk level their losses are one function
    of disjoint parameters, and one backward pass gives both gradients.
    """
    config, support = recipe.config, recipe.support
    optimizers = recipe.optimizers(state.gradient_steps)
    temperature = jnp.exp(state.temp.params["log_value"])
    noise = jax.random.normal(key, (len(observations), recipe.interfaces.action_dim))

    def forward(actor: Any, limits: Any, risk: float | jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        mean, log_std = recipe.gaussian(actor, observations)
        drawn = sample_squashed(mean, log_std, noise, *recipe.action_range.bounds(limits["limit"]))
        logits = recipe.logits(state.critic.params, observations, drawn.actions[None])
        values = losses.mixture_cvar(support, logits[:, 0], risk)
        loss = losses.policy_objective(values, drawn.log_probs, temperature)
        return loss, (jnp.mean(values), -jnp.mean(drawn.log_probs))

    gradient = jax.value_and_grad(forward, argnums=(0, 1), has_aux=True)
    (loss, (value, entropy)), (actor_grads, limit_grads) = gradient(
        state.actor.params, state.limits.params, recipe.risk(config.cvar_risk, state.gradient_steps)
    )
    if recipe.action_range.index is not None and config.limits_risk != config.cvar_risk:
        risk = recipe.risk(config.limits_risk, state.gradient_steps)
        _, (_, limit_grads) = gradient(state.actor.params, state.limits.params, risk)
    temp_value, temp_grads = jax.value_and_grad(
        lambda params: temperature_loss(params["log_value"], entropy, recipe.target_entropy)
    )(state.temp.params)

    accept = tree_is_finite((actor_grads, limit_grads, temp_grads))
    actor = state.actor.step(optimizers["actor"], actor_grads, accept)
    temp = state.temp.step(optimizers["temp"], temp_grads, accept)
    limits = state.limits
    if recipe.action_range.index is not None:
        limits = limits.step(optimizers["limits"], limit_grads, accept)
        limits = limits._replace(params={"limit": recipe.action_range.clamp(limits.params["limit"])})
    info = {
        "actor_loss": loss,
        "cvar": value,
        "entropy": entropy,
        "temperature": temperature,
        "temperature_loss": temp_value,
    }
    if recipe.action_range.index is not None:
        info["learned_limit"] = limits.params["limit"]
    return state._replace(actor=actor, temp=temp, limits=limits), info, accept


def _multiplier_step(
    recipe: Recipe, state: LearnerState, critic_info: dict[str, jax.Array]
) -> tuple[LearnerState, dict[str, jax.Array]]:
    """Step the critic-entropy multiplier on the mean entropy difference over the scan."""
    target = recipe.config.q_entropy_target_diff
    if target is None:
        return state, {}
    difference = critic_info["critic_entropy"] - critic_info["ood_entropy"]
    grads = jax.grad(lambda params: losses.lagrange_loss(params["log_value"], difference, target))(
        state.q_entropy_lagrange.params
    )
    optimizer = recipe.optimizers(state.gradient_steps)["q_entropy_lagrange"]
    multiplier = state.q_entropy_lagrange.step(optimizer, grads, tree_is_finite(grads))
    info = {"q_entropy_difference": difference, "q_entropy_lagrange": jnp.exp(multiplier.params["log_value"])}
    return state._replace(q_entropy_lagrange=multiplier), info
