"""RACER: risk-sensitive actor-critic with an ensemble of categorical critics and a learned action limit.

Stachowicz & Levine 2024, arXiv 2405.04714. Beside what every actor-critic does (:mod:`racer.agents.actor_critic`), the
learned limit steps with the policy, and the critic-entropy multiplier once an update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from racer.agents.actor_critic import (
    ActorCriticConfig,
    ActorCriticLearner,
    ActorCriticStatic,
    Info,
    critic_steps,
    finished,
    in_minibatches,
    log_scalar,
    policy_steps,
    step_policy,
)
from racer.agents.hyper import Fixed, Hyper
from racer.agents.interfaces import Interfaces
from racer.agents.limits import LIMIT_KINDS, make_action_range
from racer.agents.losses import distributional as losses
from racer.agents.state import Trainable, adam, trainable, tree_is_finite
from racer.core.config import option
from racer.core.errors import UsageError
from racer.networks.categorical import Support, projection_taps
from racer.networks.distributions import Bounds
from racer.networks.policy import MAX_RISK

__all__ = [
    "CVaRState", "DistributionalSACConfig", "DistributionalSACLearner", "DistributionalStatic", "initial_state",
    "update",
]  # fmt: skip


@dataclass(frozen=True)
class DistributionalSACConfig(ActorCriticConfig):
    """Every key of the agent, checked when it is built."""

    critic_layer_norm: bool = option(True, "Layer normalisation in the critics.")
    critic_weight_decay: float | None = option(
        1e-3, "Decoupled weight decay of the critics' kernels, or None.", low=0.0, swept=True
    )
    backup_entropy: bool = option(False, "Whether the critics' target carries the entropy bonus of the next action.")
    limits_lr: float = option(1e-5, "Adam step size of the learned action limit.", low=0.0, swept=True)
    q_entropy_lagrange_lr: float = option(1e-3, "Adam step size of the critic-entropy multiplier.", low=0.0, swept=True)
    num_atoms: int = option(101, "Atoms of each critic's distribution.", low=2, high=65_536)
    q_min: float = option(-50.0, "Return at the first atom.")
    q_max: float = option(50.0, "Return at the last atom, above q_min.")
    cvar_risk: float = option(
        0.8, "The actor maximises the mean of the worst 1 - cvar_risk share of returns.", low=0.0, high=1.0, swept=True
    )
    cvar_warmup_steps: int = option(
        0,
        "Gradient steps over which the risk levels of policy and limit rise from 0 to their values; 0 for none. The "
        "worst share of the returns of an agent that cannot act yet is the same for every action.",
        low=0,
        swept=True,
    )
    risk_conditioned: bool = option(
        False,
        "Whether one policy learns every risk level: actor and critics are told one, drawn anew for each replayed "
        "transition and for each episode, and cvar_risk is only where evaluation begins.",
    )
    limits_weight_decay: float | None = option(
        1e-3, "Decoupled weight decay of the learned limit, or None.", low=0.0, swept=True
    )
    independent_ensemble: bool = option(
        True, "Each critic bootstraps from its own target (True), or all from the mixture."
    )
    cvar_limits: float | str = option(
        "cvar_risk",
        'Risk level of the learned limit: a number in [0, 1], or "cvar_risk" for the actor\'s.',
        low=0.0,
        high=1.0,
        choices=("cvar_risk",),
        swept=True,
    )
    q_entropy_target_diff: float | None = option(
        -0.01,
        "Critic entropy on replayed actions may exceed that on out-of-distribution actions by at most this (nats); "
        "None switches the multiplier off.",
        swept=True,
    )
    q_entropy_lagrange_init: float = option(1e-3, "First value of the multiplier.", above=0.0)
    learned_action: str | None = option(None, "Name of the action with a learned limit; None learns no limit.")
    learned_action_initial_limit: float = option(0.2, "First value of the limit, in the action's own unit.")
    learned_action_limit_kind: str | None = option(
        None,
        '"symmetric" keeps the action in [-limit, limit], "upper" in [low, limit]; None takes symmetric where the '
        "action's range is.",
        choices=LIMIT_KINDS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.q_min < self.q_max:
            raise UsageError(f"q_min must lie below q_max, got q_min={self.q_min} and q_max={self.q_max}")
        if self.risk_conditioned and np.ndim(self.cvar_risk):
            raise UsageError("a risk_conditioned policy learns every level itself: cvar_risk cannot be swept beside it")


@dataclass(frozen=True)
class DistributionalStatic(ActorCriticStatic):
    """See :class:`racer.agents.actor_critic.ActorCriticStatic`.

    Attributes:
        support: atoms of the critics.
        taps: atoms that share in one atom of a backup.
    """

    support: Support
    taps: int


class CVaRState(NamedTuple):
    """Everything that changes during training.

    Attributes:
        actor: policy network.
        critic: ensemble of categorical critics.
        target_critic: slowly following copy of the critics' parameters.
        limits: ``{"limit": scalar}``, the learned action limit.
        temp: ``{"log_value": scalar}``, logarithm of the entropy temperature.
        q_entropy_lagrange: ``{"log_value": scalar}``, logarithm of the critic-entropy multiplier.
        rng: ``[2]`` uint32 key of all further random numbers.
        gradient_steps: int32, critic steps taken or refused so far.
        nonfinite_updates: int32, steps refused so far because a gradient was not finite.
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


class CriticRows(NamedTuple):
    """One minibatch of critic training; stacked ``[U, ...]`` over the ``utd_ratio`` minibatches.

    ``rewards`` carry the entropy bonus where the backup does; ``actions`` are ``[K, B, A]``.
    """

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    masks: jax.Array
    next_observations: jax.Array
    next_actions: jax.Array


def initial_state(static: DistributionalStatic, hyper: Hyper, key: jax.Array) -> CVaRState:
    """Draw a fresh state from ``key``."""
    limit = jnp.asarray(static.action_range.initial, jnp.float32)
    return CVaRState(
        **static.first_state(hyper, key),
        limits=trainable(adam, {"limit": limit}),
        q_entropy_lagrange=log_scalar(static.config.q_entropy_lagrange_init),
    )


def update(
    static: DistributionalStatic, hyper: Hyper, state: CVaRState, batch: dict[str, jax.Array], utd_ratio: int = 1
) -> tuple[CVaRState, Info]:
    """Take ``utd_ratio`` critic steps, then ``policy_steps`` of the policy and one of the multiplier.

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
    minibatches = in_minibatches(static, batch, utd_ratio, _drawn_levels(static, batch, rows_key))
    rows = critic_rows(static, hyper, state, minibatches, rows_key)
    lagrange = jnp.exp(state.q_entropy_lagrange.params["log_value"])
    loss = partial(_critic_loss, static, hyper, lagrange)
    state, info, refused = critic_steps(loss, static, hyper, state, rows)
    last = minibatches["observations"][-static.config.policy_steps :]
    state, policy_info, policy_refused = policy_steps(partial(policy_step, static, hyper), state, last, policy_key)
    state, multiplier_info = _multiplier_step(hyper, state, info)
    return finished(hyper, state, rng, utd_ratio, refused + policy_refused, {**info, **policy_info, **multiplier_info})


def _drawn_levels(static: DistributionalStatic, batch: Mapping[str, jax.Array], key: jax.Array) -> jax.Array | None:
    """Return a risk level for each transition ``[U * B]``, where the policy is told one.

    What a transition teaches does not depend on the level it was collected at, so each serves all levels.
    """
    if static.policy.risk is None:
        return None
    return jax.random.uniform(jax.random.fold_in(key, 1), batch["rewards"].shape, maxval=MAX_RISK)


def critic_rows(
    static: DistributionalStatic, hyper: Hyper, state: CVaRState, minibatches: dict[str, jax.Array], key: jax.Array
) -> CriticRows:
    """Draw the policy's actions for every minibatch at once and lay out the scan's inputs.

    The out-of-distribution actions are the policy's Gaussian draws *before* squashing and limiting: they
    reach beyond the learned limit and beyond the action range, where there is no data.
    """
    next_key, ood_key = jax.random.split(key)
    bounds, actor = _bounds(static, state), state.actor.params
    following = static.sample(actor, minibatches["next_observations"], next_key, bounds)
    rewards = minibatches["rewards"]
    if static.config.backup_entropy:
        bonus = jnp.exp(state.temp.params["log_value"]) * following.log_probs
        rewards = rewards - hyper.discount * minibatches["masks"] * bonus
    actions = minibatches["actions"][:, None]
    if hyper.q_entropy_target_diff is not None:
        raw = static.sample(actor, minibatches["observations"], ood_key, bounds).raw
        actions = jnp.concatenate([actions, raw[:, None]], axis=1)
    return CriticRows(
        minibatches["observations"],
        actions,
        rewards,
        minibatches["masks"],
        minibatches["next_observations"],
        following.actions[:, None],
    )


def _bounds(static: DistributionalStatic, state: CVaRState) -> Bounds:
    return static.action_range.bounds(state.limits.params["limit"])


def _critic_loss(
    static: DistributionalStatic, hyper: Hyper, lagrange: jax.Array, params: Any, target_params: Any, rows: CriticRows
) -> tuple[jax.Array, Info]:
    next_logits = static.critic(target_params, rows.next_observations, rows.next_actions)[:, 0]
    target_probs = losses.critic_target(
        static.support, next_logits, rows.rewards, rows.masks, hyper.discount, static.taps,
        static.config.independent_ensemble,
    )  # fmt: skip
    logits = static.critic(params, rows.observations, rows.actions)
    value, terms = losses.critic_loss(logits, target_probs, lagrange)
    info = {
        "critic_cross_entropy": terms.cross_entropy,
        "critic_entropy": terms.data_entropy,
        "ood_entropy": terms.ood_entropy,
        "target_mean": jnp.mean(target_probs @ static.support.atoms()),
    }
    return value, info


def risk_level(hyper: Hyper, level: jax.Array, gradient_steps: jax.Array) -> jax.Array:
    """Return the CVaR level after ``gradient_steps``: ``level``, or less while it is still rising to it."""
    share = jnp.minimum(gradient_steps.astype(jnp.float32) / jnp.maximum(hyper.cvar_warmup_steps, 1.0), 1.0)
    return level * jnp.where(hyper.cvar_warmup_steps > 0.0, share, 1.0)


def policy_step(
    static: DistributionalStatic, hyper: Hyper, state: CVaRState, observations: jax.Array, key: jax.Array
) -> tuple[CVaRState, Info, jax.Array]:
    """Step the actor, the learned limit and the temperature on one minibatch of observations.

    Actor and limit read one forward pass. Where both have the same risk level their losses are one function
    of disjoint parameters, and one backward pass gives both gradients.
    """
    action_range = static.action_range
    temperature = jnp.exp(state.temp.params["log_value"])

    def forward(actor: Any, limits: Any, level: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        drawn = static.sample(actor, observations, key, action_range.bounds(limits["limit"]))
        logits = static.critic(state.critic.params, observations, drawn.actions[None])
        values = losses.mixture_cvar(static.support, logits[:, 0], risk_level(hyper, level, state.gradient_steps))
        loss = losses.policy_objective(values, drawn.log_probs, temperature)
        return loss, (jnp.mean(values), -jnp.mean(drawn.log_probs))

    gradient = jax.value_and_grad(forward, argnums=(0, 1), has_aux=True)
    policy = static.policy
    level = hyper.cvar_risk if policy.risk is None else policy.told_risk(observations)
    (loss, (value, entropy)), (actor_grads, limit_grads) = gradient(state.actor.params, state.limits.params, level)
    if action_range.index is not None and hyper.cvar_limits is not None:
        _, (_, limit_grads) = gradient(state.actor.params, state.limits.params, hyper.cvar_limits)
    limits = state.limits
    state, info, accept = step_policy(static, hyper, state, actor_grads, entropy, limit_grads)
    info = {"actor_loss": loss, "cvar": value, **info}
    if action_range.index is not None:
        limits = limits.step(adam, limit_grads, hyper.limits_lr, accept, hyper.limits_weight_decay)
        limits = limits._replace(params={"limit": action_range.clamp(limits.params["limit"])})
        info["learned_limit"] = limits.params["limit"]
    return state._replace(limits=limits), info, accept


def _multiplier_step(hyper: Hyper, state: CVaRState, critic_info: Info) -> tuple[CVaRState, Info]:
    """Step the critic-entropy multiplier on the mean entropy difference over the scan."""
    target = hyper.q_entropy_target_diff
    if target is None:
        return state, {}
    difference = critic_info["critic_entropy"] - critic_info["ood_entropy"]
    grads = jax.grad(lambda params: losses.lagrange_loss(params["log_value"], difference, target))(
        state.q_entropy_lagrange.params
    )
    multiplier = state.q_entropy_lagrange.step(adam, grads, hyper.q_entropy_lagrange_lr, tree_is_finite(grads))
    info = {"q_entropy_difference": difference, "q_entropy_lagrange": jnp.exp(multiplier.params["log_value"])}
    return state._replace(q_entropy_lagrange=multiplier), info


@dataclass(frozen=True)
class DistributionalSACLearner(ActorCriticLearner):
    """See :class:`racer.agents.learner.BaseLearner` for the verbs and docs/agents.md for the maths."""

    config_class: ClassVar[type[DistributionalSACConfig]] = DistributionalSACConfig
    components = ("actor", "critic", "target_critic", "limits", "temp", "q_entropy_lagrange")
    initial_state = staticmethod(initial_state)
    pure_update = staticmethod(update)

    @staticmethod
    def prepare(config: DistributionalSACConfig, fixed: Fixed, interfaces: Interfaces) -> DistributionalStatic:
        """See :class:`racer.agents.learner.BaseLearner`."""
        interfaces.need_numbers("DistributionalSACLearner")
        action_range = make_action_range(
            interfaces, config.learned_action, config.learned_action_limit_kind, config.learned_action_initial_limit
        )
        told = {"risk": float(config.cvar_risk), "risk_drawn": True} if config.risk_conditioned else {}
        fields = DistributionalSACLearner.fields(config, fixed, interfaces, action_range, config.num_atoms, **told)
        support = Support(config.q_min, config.q_max, config.num_atoms)
        return DistributionalStatic(**fields, support=support, taps=projection_taps(float(np.min(config.discount))))

    @staticmethod
    def bounds(static: DistributionalStatic, state: CVaRState) -> Bounds:
        """Return the action space under the learned limit."""
        return _bounds(static, state)

    def return_distribution(self, observations: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the atoms ``[n]`` and the ensemble mixture's probabilities ``[B, n]``, float64.

        Args:
            observations: ``[B, *shape]``.
            actions: ``[B, A]`` as the policy chooses them.
        """
        viewed = self.static.policy.viewed(jnp.asarray(observations))
        logits = self.static.critic(self.state.critic.params, viewed, jnp.asarray(actions)[None])
        probs = jnp.mean(jax.nn.softmax(logits[:, 0], axis=-1), axis=0)
        return np.asarray(self.static.support.atoms(), np.float64), np.asarray(probs, np.float64)
