"""One ``update()`` call of PPO as one pure function: values, advantages, then every epoch and minibatch in one scan.

A minibatch holds *units*: rows of a policy without memory, whole sequences (one environment each) of one with a memory.
Data lies unit first, ``[U, ...]`` or ``[U, T, ...]``; the losses are means over valid rows and see no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from racer.agents.gae import generalized_advantages
from racer.agents.hyper import Hyper
from racer.agents.learner import Static
from racer.agents.losses import ppo as losses
from racer.agents.schedules import falling_fraction, progress
from racer.agents.state import Trainable, trainable, tree_is_finite
from racer.agents.value_scale import ValueScale, followed, initial_value_scale, rescaled
from racer.networks.critics import ValueHeads
from racer.networks.distributions import ENTROPY_NOISE, Bounds, Distribution

__all__ = ["PPOState", "PPOStatic", "initial_state", "update"]

ADAM = optax.scale_by_adam(eps=1e-5)

Info = dict[str, jax.Array]


class PPOState(NamedTuple):
    """Everything that changes during training.

    Attributes:
        actor: policy network, a shared trunk and a memory included.
        critic: value network, or value heads alone.
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
class PPOStatic(Static):
    """See :class:`racer.agents.learner.Static`.

    Attributes:
        low: lower end of each action as the policy uses it; empty for choices.
        high: upper end.
        values: the value heads.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    values: ValueHeads

    @property
    def bounds(self) -> Bounds | None:
        """The action range, ``[A]`` each; None for choices."""
        if self.policy.discrete:
            return None
        return jnp.array(self.low, jnp.float32), jnp.array(self.high, jnp.float32)

    def evaluate(self, critic: Any, features: jax.Array | None, observations: jax.Array) -> jax.Array:
        """Return normalized values ``[..., K]`` of the features or (viewed) observations, whichever it reads."""
        return self.values(critic, features, observations)  # type: ignore[arg-type]

    def forward(self, actor: Any, critic: Any, rows: Rows) -> tuple[Distribution, jax.Array]:
        """Return the distribution's parameters and normalized values ``[..., K]`` of units."""
        policy = self.policy
        if not policy.has_memory:
            features = policy.features(actor, rows.observations)
            return policy.distribution(actor, features), self.evaluate(critic, features, rows.observations)
        observations, forget, valid = map(_unit_first, (rows.observations, rows.forget, rows.valid))
        distribution, features, _ = policy.unroll(actor, observations, rows.memory, forget, valid)
        values = self.evaluate(critic, features, observations)
        return jax.tree.map(_unit_first, distribution), _unit_first(values)


class Rows(NamedTuple):
    """A rollout as the losses want it, ``[U, ...]`` or ``[U, T, ...]``; ``values`` and ``targets`` are normalized.

    ``observations`` are what the policy's view gives; ``forget`` and ``memory`` (before the first row, ``[U, ...]`` by
    name) are empty for a policy without memory.
    """

    observations: jax.Array
    draws: jax.Array
    behaviour_log_probs: jax.Array
    initial_log_probs: jax.Array
    advantages: jax.Array
    values: jax.Array
    targets: jax.Array
    valid: jax.Array
    forget: Any
    memory: dict[str, jax.Array]


class _Carry(NamedTuple):
    """What the scan over minibatches hands on."""

    actor: Trainable
    critic: Trainable
    stopped: jax.Array


def _unit_first(array: jax.Array) -> jax.Array:
    """``[T, N, ...] -> [N, T, ...]``, which is its own inverse; parameters without these axes stay."""
    return jnp.swapaxes(array, 0, 1) if array.ndim > 1 else array


def initial_state(static: PPOStatic, hyper: Hyper, key: jax.Array) -> PPOState:
    """Draw a fresh state from ``key``."""
    actor_key, critic_key, rng = jax.random.split(key, 3)
    zero = jnp.zeros((), jnp.int32)
    return PPOState(
        actor=trainable(ADAM, static.policy.init(actor_key, static.start)),
        critic=trainable(ADAM, static.values.init(critic_key)),
        value_scale=initial_value_scale(),
        rng=rng,
        transitions=zero,
        updates=zero,
        gradient_steps=zero,
        nonfinite_updates=zero,
    )


def update(
    static: PPOStatic, hyper: Hyper, state: PPOState, rollout: dict[str, jax.Array], utd_ratio: int = 1
) -> tuple[PPOState, Info]:
    """Learn from one rollout.

    Args:
        static: description.
        hyper: numbers.
        state: before.
        rollout: as :func:`racer.replay.sequence.join_rollouts` gives it, all float32 but ``final_index``; ``draws`` are
            what the density is taken at (for choices the indices).
        utd_ratio: not used; the configuration has epochs and minibatches.

    Returns:
        The next state, and scalars to log: means over the minibatches that were stepped on.
    """
    config = static.config
    rng, order_key, noise_key = jax.random.split(state.rng, 3)
    rows, critic, value_scale, info = prepare(static, hyper, state, rollout)
    steps = config.num_epochs * config.num_minibatches
    permute = jax.vmap(lambda key: jax.random.permutation(key, len(rows.valid)))
    order = permute(jax.random.split(order_key, config.num_epochs)).reshape(steps, -1)
    fraction = falling_fraction(
        config.lr_schedule, state.transitions, hyper.lr_decay_transitions, hyper.final_lr_fraction
    )

    actor_fraction = jnp.where(state.updates < config.critic_warmup, 0.0, fraction)

    def body(carry: _Carry, step: tuple[jax.Array, jax.Array]) -> tuple[_Carry, Info]:
        index, key = step

        def take(carry: _Carry) -> tuple[_Carry, Info]:
            minibatch = jax.tree.map(lambda x: x[index], rows)
            return _minibatch_step(static, hyper, minibatch, key, (actor_fraction, fraction), carry)

        shapes = jax.eval_shape(take, carry)[1]
        skip = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.cond(carry.stopped, lambda kept: (kept, skip), take, carry)

    start = _Carry(state.actor, critic, jnp.zeros((), bool))
    end, reports = jax.lax.scan(body, start, (order, jax.random.split(noise_key, steps)))
    taken, bad = jnp.sum(reports.pop("taken")), jnp.sum(reports.pop("nonfinite"))
    info |= {name: jnp.sum(values) / jnp.maximum(taken, 1.0) for name, values in reports.items()}
    info |= {
        "minibatches": taken,
        "stopped_by_kl": end.stopped.astype(jnp.float32),
        "actor_lr": hyper.actor_lr * actor_fraction,
        "nonfinite_updates": bad,
    }
    transitions = state.transitions + jnp.sum(rows.valid).astype(jnp.int32)
    state = PPOState(
        actor=_with_scheduled_std(static, hyper, end.actor, transitions),
        critic=end.critic,
        value_scale=value_scale,
        rng=rng,
        transitions=transitions,
        updates=state.updates + 1,
        gradient_steps=state.gradient_steps + taken.astype(jnp.int32),
        nonfinite_updates=state.nonfinite_updates + bad,
    )
    return state, info


def _with_scheduled_std(static: PPOStatic, hyper: Hyper, actor: Trainable, transitions: jax.Array) -> Trainable:
    """Return the actor with the standard deviation that the schedule has reached, where there is one."""
    if hyper.final_std is None:
        return actor
    first = static.config.initial_std
    std = first + (hyper.final_std - first) * progress(transitions, hyper.std_decay_transitions)
    log_std = jnp.broadcast_to(jnp.log(std), actor.params["log_std"].shape)
    return actor._replace(params={**actor.params, "log_std": log_std})


def prepare(
    static: PPOStatic, hyper: Hyper, state: PPOState, rollout: Mapping[str, jax.Array]
) -> tuple[Rows, Trainable, ValueScale, Info]:
    """Compute values, advantages and the policy before the update; rescale the value network to the new returns."""
    scale, valid, policy = state.value_scale, rollout["valid"], static.policy
    viewed = {name: policy.viewed(rollout[name]) for name in ("observations", "final_observations")}
    rollout = {**rollout, **viewed}
    distribution, normal, following = _look_ahead(static, state, rollout)
    values = scale.raw(normal)
    lambdas = jnp.stack([hyper.gae_lambda, hyper.second_gae_lambda][: values.shape[-1]])
    flags = (rollout["rewards"], rollout["bootstrap"], rollout["cut"], valid)
    estimate = jax.vmap(partial(generalized_advantages, *flags), in_axes=(-1, -1, None, 0), out_axes=-1)
    advantages = estimate(values, scale.raw(following), hyper.discount, lambdas)
    targets = advantages + values
    new_scale, critic = scale, state.critic
    if static.config.normalize_values:
        new_scale = followed(scale, targets, jnp.broadcast_to(valid[..., None], targets.shape))
        critic = critic._replace(params=rescaled(critic.params, scale, new_scale))
    initial = policy.head.log_probs(distribution, rollout["draws"], static.bounds)
    rows = Rows(
        observations=rollout["observations"][:-1],
        draws=rollout["draws"],
        behaviour_log_probs=rollout["log_probs"],
        initial_log_probs=initial,
        advantages=advantages[..., 0],
        values=new_scale.normal(values),
        targets=new_scale.normal(targets),
        valid=valid,
        forget=rollout["forget"] if policy.has_memory else None,
        memory={},
    )
    if policy.has_memory:
        rows = jax.tree.map(_unit_first, rows)._replace(memory=_memory(rollout))
    else:
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
    return rows, critic, new_scale, _rollout_info(rollout, values[..., 0], targets[..., 0], initial)


def _look_ahead(
    static: PPOStatic, state: PPOState, rollout: Mapping[str, jax.Array]
) -> tuple[Distribution, jax.Array, jax.Array]:
    """Return the policy on every row, and the normalized values ``[T, N, K]`` of rows and of their successors."""
    policy, actor, critic = static.policy, state.actor.params, state.critic.params
    observations, final = rollout["observations"], rollout["final_observations"]
    time, place = rollout["final_index"].T
    if policy.has_memory:
        following = observations[1:].at[time, place].set(final.reshape(-1, *observations.shape[2:]), mode="drop")
        distribution, features, peeked = policy.unroll(
            actor, observations[:-1], _memory(rollout), rollout["forget"], rollout["valid"], peek=following
        )
        return (
            distribution,
            static.evaluate(critic, features, observations[:-1]),
            static.evaluate(critic, peeked, following),
        )
    features = policy.features(actor, observations)
    values = static.evaluate(critic, features, observations)
    ends = static.evaluate(critic, policy.features(actor, final), final)
    distribution = policy.distribution(actor, features[:-1])
    return distribution, values[:-1], values[1:].at[time, place].set(ends, mode="drop")


def _memory(rollout: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    prefix = "memory/"
    return {name.removeprefix(prefix): x for name, x in rollout.items() if name.startswith(prefix)}


def _rollout_info(rollout: Mapping[str, jax.Array], values: jax.Array, targets: jax.Array, initial: jax.Array) -> Info:
    mean = partial(losses.masked_mean, valid=rollout["valid"])
    mean_target = mean(targets)
    variance = mean(jnp.square(targets - mean_target))
    return {
        "value_target": mean_target,
        "explained_variance": 1.0 - mean(jnp.square(targets - values)) / jnp.maximum(variance, 1e-8),
        "lag_kl": mean(losses.divergence(initial, rollout["log_probs"])),
        "reward": mean(rollout["rewards"]),
    }


def _minibatch_step(
    static: PPOStatic,
    hyper: Hyper,
    rows: Rows,
    key: jax.Array,
    fractions: tuple[jax.Array, jax.Array],
    carry: _Carry,
) -> tuple[_Carry, Info]:
    """Take one gradient step on both networks, or none where the policy has moved too far or a gradient is bad.

    ``fractions`` are the factors on the step sizes of the policy and of the value network.
    """
    loss = partial(_loss, static, hyper, rows, key)
    (_, report), grads = jax.value_and_grad(loss, has_aux=True)((carry.actor.params, carry.critic.params))
    if hyper.final_std is not None:
        grads = ({**grads[0], "log_std": jnp.zeros_like(grads[0]["log_std"])}, grads[1])
    norm = optax.tree.norm(grads)
    grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, hyper.max_grad_norm / jnp.maximum(norm, 1e-12)), grads)
    finite = tree_is_finite(grads)
    stop = jnp.zeros((), bool) if hyper.target_kl is None else report["kl"] > hyper.target_kl
    accept = finite & ~stop
    actor = carry.actor.step(ADAM, grads[0], hyper.actor_lr * fractions[0], accept)
    critic = carry.critic.step(ADAM, grads[1], hyper.critic_lr * fractions[1], accept)
    # A minibatch that is not stepped on is not reported, lest one bad number hides the rest.
    report = {name: jnp.where(accept, value, 0.0) for name, value in {**report, "grad_norm": norm}.items()}
    report["taken"] = accept.astype(jnp.float32)
    report["nonfinite"] = (~finite).astype(jnp.int32)
    return _Carry(actor, critic, stop), report


def _loss(static: PPOStatic, hyper: Hyper, rows: Rows, key: jax.Array, both: tuple[Any, Any]) -> tuple[jax.Array, Info]:
    """Return the objective of eq. 9 with its sign turned, and scalars to log."""
    head, bounds = static.policy.head, static.bounds
    distribution, values = static.forward(*both, rows)
    log_probs = head.log_probs(distribution, rows.draws, bounds)
    noise = jnp.zeros(())
    if static.policy.kind in ENTROPY_NOISE:
        noise = jax.random.normal(key, rows.draws.shape)
    mean = partial(losses.masked_mean, valid=rows.valid)
    advantages = rows.advantages
    if static.config.normalize_advantages:
        advantages = losses.normalized_advantages(advantages, rows.valid)
    policy = mean(losses.clipped_surrogate(log_probs, rows.behaviour_log_probs, advantages, hyper.clip_ratio))
    value = mean(jnp.mean(losses.value_loss(values, rows.values, rows.targets, hyper.value_clip), axis=-1))
    entropy = mean(head.entropies(distribution, noise, bounds))
    ratio = jnp.exp(log_probs - rows.behaviour_log_probs)
    report = {
        "policy_loss": policy,
        "value_loss": value,
        "entropy": entropy,
        "kl": mean(losses.divergence(log_probs, rows.initial_log_probs)),
        "clip_fraction": mean((jnp.abs(ratio - 1.0) > hyper.clip_ratio).astype(jnp.float32)),
    }
    if values.shape[-1] == 2:
        report["lambda_discrepancy"] = mean(losses.lambda_discrepancy(values))
        value = hyper.ld_weight * report["lambda_discrepancy"] + (1.0 - hyper.ld_weight) * value
    return policy + hyper.value_coef * value - hyper.entropy_coef * entropy, report
