"""What the actor-critics share: keys, the order of an update's steps, targets that follow, the temperature.

As in the jaxrl family, each of the ``utd_ratio`` minibatches trains the critics; the policy (and the temperature with
it) then takes ``policy_steps`` steps (one there), on the last minibatches. The policy stands still during the critics'
scan, so its forward passes for all minibatches are one large product before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from racer.agents.hyper import Fixed, Hyper
from racer.agents.interfaces import Interfaces, read_fields
from racer.agents.learner import AgentConfig, BaseLearner, Static, agent_policy
from racer.agents.limits import ActionRange
from racer.agents.losses.sac import temperature_loss
from racer.agents.named_actions import initial_shares
from racer.agents.protocol import BATCH_FIELDS, REPLAY
from racer.agents.schedules import SCHEDULES, falling_fraction, filled, need_lengths
from racer.agents.state import Trainable, adam, trainable, tree_is_finite
from racer.core.config import check_fields, option
from racer.core.errors import UsageError
from racer.networks.critics import EnsembleCritic
from racer.networks.distributions import Bounds, Start, TanhGaussianHead

__all__ = [
    "ActionSample", "ActorCriticConfig", "ActorCriticLearner", "ActorCriticStatic", "critic_steps", "finished",
    "in_minibatches", "log_scalar", "policy_steps", "step_policy",
]  # fmt: skip

Info = dict[str, jax.Array]


@dataclass(frozen=True)
class ActorCriticConfig(AgentConfig):
    """The keys that the actor-critics have in common."""

    actor_lr: float = option(3e-4, "Adam step size of the actor.", low=0.0, swept=True)
    critic_lr: float = option(3e-4, "Adam step size of the critics.", low=0.0, swept=True)
    temp_lr: float = option(3e-4, "Adam step size of the entropy temperature.", low=0.0, swept=True)
    lr_schedule: str = option(
        "constant",
        '"constant", or "linear": the step sizes of actor and critics fall to final_lr_fraction of their first value '
        "over lr_decay_steps gradient steps, after lr_decay_begin gradient steps, and stay there.",
        choices=SCHEDULES,
    )
    lr_decay_begin: int | None = option(
        None, "See lr_schedule; None in a program: three fifths of the run's gradient steps.", low=0, swept=True
    )
    lr_decay_steps: int | None = option(
        None, "See lr_schedule; None in a program: two fifths of the run's gradient steps.", low=1, swept=True
    )
    final_lr_fraction: float = option(0.0, "See lr_schedule.", low=0.0, high=1.0, swept=True)
    average_actor: bool = option(
        False,
        "Whether the policy that acts and is saved is the mean of the actor's weights since average_begin gradient "
        "steps (Izmailov et al. 2018, arXiv 1803.05407); until then it is the actor itself.",
    )
    average_begin: int | None = option(
        None, "See average_actor; None in a program: four fifths of the run's gradient steps.", low=0, swept=True
    )
    actor_hidden_dims: tuple[int, ...] = option((256, 256), "Widths of the actor's hidden layers.", empty=False)
    critic_hidden_dims: tuple[int, ...] = option((256, 256), "Widths of each critic's hidden layers.", empty=False)
    discount: float = option(0.99, "Factor on the next step's return.", above=0.0, high=1.0, swept=True)
    num_qs: int = option(2, "Number of critics in the ensemble.", low=1, high=1024)
    policy_steps: int = option(
        1,
        "Steps of policy and temperature an update() call, each on a minibatch of its own; no more than utd_ratio.",
        low=1,
    )
    tau: float = option(
        0.005,
        "Share of the critic that moves into its target after every critic step.",
        above=0.0,
        high=1.0,
        swept=True,
    )
    init_temperature: float = option(1.0, "First value of the entropy temperature.", above=0.0)
    target_entropy: float | None = option(
        None, "Entropy (nats) the temperature steers to; None for minus half the number of actions.", swept=True
    )
    critic_layer_norm: bool = option(False, "Layer normalisation in the critics.")
    critic_weight_decay: float | None = option(
        None, "Decoupled weight decay of the critics' kernels, or None.", low=0.0, swept=True
    )
    backup_entropy: bool = option(True, "Whether the critics' target carries the entropy bonus of the next action.")
    noise_correlation: float = option(
        0.0, "Correlation of the exploration noise from one step to the next; 0 for white noise.", low=0.0, high=0.9999
    )

    def fitted(self, transitions: int, gradient_steps: int) -> Self:
        """See :class:`racer.agents.learner.AgentConfig`."""
        fifths = {"lr_decay_begin": 3, "lr_decay_steps": 2, "average_begin": 4}
        lengths = {name: count * gradient_steps // 5 for name, count in fifths.items()}
        return filled(self, lengths)

    def check_utd_ratio(self, utd_ratio: int) -> None:
        """See :class:`racer.agents.learner.AgentConfig`."""
        _check_policy_steps(self.policy_steps, utd_ratio)

    def __post_init__(self) -> None:
        check_fields(self, "agent config key")
        if self.memory is not None:
            raise UsageError("an actor-critic learns from single transitions and has no memory: set memory to None")


def _check_policy_steps(policy_steps: int, utd_ratio: int) -> None:
    """Each step of the policy needs a minibatch of its own."""
    if policy_steps > utd_ratio:
        raise UsageError(f"policy_steps ({policy_steps}) must be no more than utd_ratio ({utd_ratio})")


class ActionSample(NamedTuple):
    """One draw from the policy.

    Attributes:
        raw: ``[..., A]`` the Gaussian draw before squashing.
        actions: ``[..., A]`` inside the action range.
        log_probs: ``[...]`` density of ``actions``.
    """

    raw: jax.Array
    actions: jax.Array
    log_probs: jax.Array


@dataclass(frozen=True)
class ActorCriticStatic(Static):
    """See :class:`racer.agents.learner.Static`.

    Attributes:
        action_range: the box of the policy, with its learned limit if it has one.
        ensemble: the critics.
    """

    action_range: ActionRange
    ensemble: EnsembleCritic

    def sample(self, actor: Any, observations: jax.Array, key: jax.Array, bounds: Bounds) -> ActionSample:
        """Draw actions for (viewed) observations ``[..., *shape]`` by reparametrisation."""
        policy, head = self.policy, self.policy.head
        assert isinstance(head, TanhGaussianHead)
        distribution = policy.distribution(actor, policy.features(actor, observations))
        raw = head.draw_with(distribution, jax.random.normal(key, distribution["mean"].shape))
        return ActionSample(raw, head.actions(raw, bounds), head.log_probs(distribution, raw, bounds))

    def critic(self, params: Any, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Return the critics' outputs ``[E, K, B, O]`` for (viewed) ``[B, *shape]`` and ``[K, B, A]``."""
        return self.ensemble(params, observations, actions)

    def first_state(self, hyper: Hyper, key: jax.Array) -> dict[str, Any]:
        """Draw the components that every actor-critic has, and set the counts to zero."""
        actor_key, critic_key, rng = jax.random.split(key, 3)
        critic = self.ensemble.init(critic_key)
        return {
            "actor": trainable(adam, self.policy.init(actor_key, self.start), average=self.config.average_actor),
            "critic": trainable(adam, critic),
            "target_critic": jax.tree.map(jnp.copy, critic),
            "temp": log_scalar(self.config.init_temperature),
            "rng": rng,
            "gradient_steps": jnp.zeros((), jnp.int32),
            "nonfinite_updates": jnp.zeros((), jnp.int32),
        }


def log_scalar(value: float) -> Trainable:
    """Return a positive number that is trained through its logarithm."""
    return trainable(adam, {"log_value": jnp.log(jnp.asarray(value, jnp.float32))})


class ActorCriticLearner(BaseLearner):
    """The checks that the actor-critics share; see :class:`racer.agents.learner.BaseLearner`."""

    wants = REPLAY

    @staticmethod
    def fields(
        config: ActorCriticConfig,
        fixed: Fixed,
        interfaces: Interfaces,
        action_range: ActionRange,
        outputs: int,
        **more: Any,
    ) -> dict[str, Any]:
        """Return the fields of an :class:`ActorCriticStatic`.

        Args:
            config: checked.
            fixed: what of it is static.
            interfaces: observations and actions.
            action_range: the box of the policy.
            outputs: numbers that each critic answers with.
            more: further fields of the policy.
        """
        interfaces.need_numbers("an actor-critic")
        if config.lr_schedule != "constant":
            need_lengths(config, "lr_schedule", ("lr_decay_begin", "lr_decay_steps"))
        if config.average_actor:
            need_lengths(config, "average_actor", ("average_begin",))
        learned = None if action_range.index is None else interfaces.names[action_range.index]
        policy = agent_policy(
            config, interfaces, "squashed_gaussian", config.actor_hidden_dims, "relu",
            learned_action=learned, noise_correlation=config.noise_correlation, **more,
        )  # fmt: skip
        low, high = (np.asarray(ends, np.float64) for ends in action_range.bounds(action_range.initial))
        first = initial_shares(config.initial_action, interfaces.names, low.tolist(), high.tolist())
        ensemble = EnsembleCritic(
            policy.torso, len(interfaces.low), config.num_qs, config.critic_hidden_dims, outputs,
            config.critic_layer_norm,
        )  # fmt: skip
        return {
            "config": fixed, "interfaces": interfaces, "policy": policy, "start": Start(first),
            "action_range": action_range, "ensemble": ensemble,
        }  # fmt: skip

    def checked(self, data: Mapping[str, np.ndarray], utd_ratio: int) -> dict[str, np.ndarray]:
        """Return the batch's float32 fields after checking names, shapes and divisibility.

        Raises:
            UsageError: a field is missing or misshapen, or the rows do not divide into ``utd_ratio`` minibatches, or
            the policy takes more steps than there are minibatches.
        """
        if isinstance(utd_ratio, bool) or not isinstance(utd_ratio, int) or utd_ratio < 1:
            raise UsageError(f"utd_ratio must be a positive integer, got {utd_ratio!r}")
        _check_policy_steps(self.static.config.policy_steps, utd_ratio)
        arrays = {name: np.asarray(x, np.float32) for name, x in read_fields("batch", data, BATCH_FIELDS).items()}
        interfaces, rows = self.static.interfaces, len(arrays["rewards"])
        shapes = {name: (rows, *(interfaces.action_shape if name == "actions" else ())) for name in BATCH_FIELDS}
        interfaces.check_fields("batch", arrays, shapes)
        if rows == 0 or rows % utd_ratio:
            raise UsageError(f"a batch of {rows} rows does not divide into utd_ratio={utd_ratio} minibatches")
        return arrays


def in_minibatches(
    static: ActorCriticStatic, batch: Mapping[str, jax.Array], utd_ratio: int, risk: jax.Array | None = None
) -> dict[str, jax.Array]:
    """Return fields ``[U * B, ...]`` as ``[U, B, ...]``, the observations as policy and critics read them.

    Args:
        static: description.
        batch: fields of transitions.
        utd_ratio: U.
        risk: the level ``[U * B]`` that both observations of a transition are read with, where the policy is told one.
    """
    viewed = {name: static.policy.viewed(batch[name], risk) for name in ("observations", "next_observations")}
    return {name: x.reshape(utd_ratio, -1, *x.shape[1:]) for name, x in {**batch, **viewed}.items()}


CriticLoss = Callable[[Any, Any, Any], tuple[jax.Array, Info]]
"""Critics' parameters, their target's and one minibatch to the loss and scalars to log."""


def critic_steps(
    loss: CriticLoss, static: ActorCriticStatic, hyper: Hyper, state: Any, minibatches: Any
) -> tuple[Any, Info, jax.Array]:
    """Take one critic step on each of the minibatches ``[U, ...]``, the target following each.

    Returns:
        The next state, means of the scalars to log, and how many steps were refused (int32).
    """
    rate = hyper.critic_lr * step_fraction(static, hyper, state.gradient_steps)

    def body(carry: tuple[Trainable, Any], rows: Any) -> tuple[tuple[Trainable, Any], tuple[Info, jax.Array]]:
        critic, target = carry
        (value, info), grads = jax.value_and_grad(loss, has_aux=True)(critic.params, target, rows)
        accept = tree_is_finite(grads)
        stepped = critic.step(adam, grads, rate, accept, hyper.critic_weight_decay)
        # A refused step leaves the target alone too: tau becomes 0.
        share = jnp.where(accept, hyper.tau, 0.0)
        followed = jax.tree.map(lambda old, new: old + share * (new - old), target, stepped.params)
        return (stepped, followed), ({"critic_loss": value, **info}, 1 - accept.astype(jnp.int32))

    (critic, target), (infos, refused) = jax.lax.scan(body, (state.critic, state.target_critic), minibatches)
    taken = state.gradient_steps + len(refused)
    state = state._replace(critic=critic, target_critic=target, gradient_steps=taken)
    return state, {name: jnp.mean(values) for name, values in infos.items()}, jnp.sum(refused)


PolicyStep = Callable[[Any, jax.Array, jax.Array], tuple[Any, Info, jax.Array]]
"""State, observations ``[B, *shape]`` and key to the next state, scalars to log, and whether the step was taken."""


def policy_steps(step: PolicyStep, state: Any, observations: jax.Array, key: jax.Array) -> tuple[Any, Info, jax.Array]:
    """Take one policy step on each of the minibatches ``[P, B, *shape]``.

    Returns:
        The next state, means of the scalars to log, and how many steps were refused (int32).
    """

    def body(carried: Any, rows: tuple[jax.Array, jax.Array]) -> tuple[Any, tuple[Info, jax.Array]]:
        carried, info, accepted = step(carried, *rows)
        return carried, (info, 1 - accepted.astype(jnp.int32))

    keys = jax.random.split(key, len(observations))
    state, (infos, refused) = jax.lax.scan(body, state, (observations, keys))
    return state, {name: jnp.mean(values) for name, values in infos.items()}, jnp.sum(refused)


def step_policy(
    static: ActorCriticStatic, hyper: Hyper, state: Any, actor_grads: Any, entropy: jax.Array, others: Any = ()
) -> tuple[Any, Info, jax.Array]:
    """Step the actor, and the temperature towards the target entropy.

    Args:
        static: description.
        hyper: numbers.
        state: with ``actor`` and ``temp``.
        actor_grads: gradients of the actor.
        entropy: of the policy, nats.
        others: further gradients that must be finite for the step to be taken.

    Returns:
        The next state, scalars to log, and whether the step was taken.
    """
    target = hyper.target_entropy
    if target is None:
        target = -0.5 * len(static.interfaces.low)
    temperature = jnp.exp(state.temp.params["log_value"])
    loss, temp_grads = jax.value_and_grad(lambda params: temperature_loss(params["log_value"], entropy, target))(
        state.temp.params
    )
    accept = tree_is_finite((actor_grads, temp_grads, others))
    rate = hyper.actor_lr * step_fraction(static, hyper, state.gradient_steps)
    state = state._replace(
        actor=state.actor.step(adam, actor_grads, rate, accept),
        temp=state.temp.step(adam, temp_grads, hyper.temp_lr, accept),
    )
    return state, {"entropy": entropy, "temperature": temperature, "temperature_loss": loss}, accept


def step_fraction(static: ActorCriticStatic, hyper: Hyper, gradient_steps: jax.Array) -> jax.Array:
    """Return the factor on the step sizes of actor and critics after ``gradient_steps``, float32."""
    return falling_fraction(
        static.config.lr_schedule, gradient_steps, hyper.lr_decay_steps, hyper.final_lr_fraction, hyper.lr_decay_begin
    )


def finished(
    hyper: Hyper, state: Any, rng: jax.Array, utd_ratio: int, refused: jax.Array, info: Info
) -> tuple[Any, Info]:
    """Return the state at the end of an update: key, count of refused steps and the actor's mean; and scalars to log.

    Args:
        hyper: numbers.
        state: after the update's steps.
        rng: the next random key.
        utd_ratio: critic steps that the update took.
        refused: steps that were not taken, int32.
        info: scalars to log.
    """
    counted = state._replace(rng=rng, nonfinite_updates=state.nonfinite_updates + refused)
    if state.actor.average is not None:
        since = state.gradient_steps.astype(jnp.float32) - hyper.average_begin
        counted = counted._replace(actor=state.actor.averaged(utd_ratio / jnp.maximum(since, utd_ratio)))
    return counted, {**info, "nonfinite_updates": refused}
