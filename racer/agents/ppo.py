"""Proximal policy optimization (Schulman et al. 2017, arXiv 1707.06347): configuration, spaces and the agent object."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from racer.agents import ppo_update
from racer.agents.hyper import Fixed
from racer.agents.interfaces import Interfaces, read_fields
from racer.agents.learner import AgentConfig, BaseLearner, agent_policy
from racer.agents.named_actions import initial_shares, numbers_by_name
from racer.agents.ppo_update import PPOState, PPOStatic
from racer.agents.protocol import ROLLOUT, ROW_FLAGS
from racer.agents.schedules import SCHEDULES, filled, need_lengths
from racer.core.config import NamedNumbers, check_fields, option
from racer.core.errors import UsageError
from racer.networks.critics import ValueHeads
from racer.networks.distributions import Bounds, Start
from racer.networks.layers import ACTIVATIONS
from racer.networks.policy import LOG_STD_LIMITS, Policy
from racer.networks.torso import build_torso

__all__ = ["PPOConfig", "PPOLearner"]


log = logging.getLogger(__name__)

@dataclass(frozen=True)
class PPOConfig(AgentConfig):
    """Every key of the agent, checked when it is built."""

    rollout_length: int = option(128, "Steps of every environment between two updates.", low=1)
    num_epochs: int = option(10, "Times an update goes over its rollout.", low=1)
    num_minibatches: int = option(
        8,
        "Gradient steps an epoch; must divide num_envs * rollout_length, and with a memory num_envs, as a minibatch "
        "then holds whole sequences.",
        low=1,
    )
    actor_lr: float = option(3e-4, "Adam step size of the policy network (and of a shared trunk).", low=0.0, swept=True)
    critic_lr: float = option(3e-4, "Adam step size of the value network.", low=0.0, swept=True)
    lr_schedule: str = option(
        "constant",
        '"constant", or "linear" or "cosine": both step sizes fall to final_lr_fraction of their first value over '
        "lr_decay_transitions transitions and stay there.",
        choices=SCHEDULES,
    )
    lr_decay_transitions: int | None = option(
        None, "See lr_schedule; None in a training program: all of the run.", low=1, swept=True
    )
    final_lr_fraction: float = option(0.0, "See lr_schedule.", low=0.0, high=1.0, swept=True)
    critic_warmup: int = option(
        0,
        "First updates, in which the value network learns alone: the policy that training begins with is kept.",
        low=0,
    )
    discount: float = option(0.99, "Factor on the next step's return.", above=0.0, high=1.0, swept=True)
    gae_lambda: float = option(
        0.95, "Decay of later temporal differences in the advantage.", low=0.0, high=1.0, swept=True
    )
    clip_ratio: float = option(
        0.2, "How far the probability ratio may leave 1 and still raise the objective.", above=0.0, swept=True
    )
    value_clip: float | None = option(
        None,
        "Greatest change of a value in one update that still lowers the loss, in standard deviations of the returns "
        "where normalize_values is on; None for no limit.",
        above=0.0,
        swept=True,
    )
    value_coef: float = option(0.5, "Weight of the value loss.", low=0.0, swept=True)
    value_heads: int = option(1, "1, or 2: a second value head learns returns of second_gae_lambda.", low=1, high=2)
    second_gae_lambda: float = option(
        0.1, "gae_lambda of the second value head; the policy follows the first.", low=0.0, high=1.0, swept=True
    )
    ld_weight: float = option(
        0.0,
        "Share w of the squared difference of both value heads in the value loss, w (V0 - V1)^2 + (1 - w) V, where V "
        "is the mean of the heads' own losses.",
        low=0.0,
        high=1.0,
        swept=True,
    )
    entropy_coef: float = option(0.0, "Weight of the policy's entropy (nats), 0 for none.", low=0.0, swept=True)
    max_grad_norm: float = option(
        0.5, "Joint norm above which the gradients of both networks are scaled down.", above=0.0, swept=True
    )
    target_kl: float | None = option(
        None,
        "Divergence (nats) from the policy before the update at which the rest of the update is skipped; None for no "
        "limit.",
        above=0.0,
        swept=True,
    )
    normalize_advantages: bool = option(
        True, "Whether every minibatch's advantages are shifted and scaled to mean 0, variance 1."
    )
    normalize_values: bool = option(
        True, "Whether the value network learns returns relative to their running mean and standard deviation."
    )
    distribution: str = option(
        "auto",
        '"tanh_gaussian" or "beta" for continuous actions, "categorical" for choices; "auto": the Gaussian, or the '
        "categorical where the action space is Discrete.",
        choices=("auto", "tanh_gaussian", "beta", "categorical"),
    )
    initial_std: float = option(
        0.5,
        "First standard deviation of every action, as a share of half its range; at most 0.57 for the beta "
        "distribution, which has two humps otherwise.",
        above=0.0,
    )
    final_std: float | None = option(
        None,
        "Standard deviation of a tanh_gaussian policy in the end: it is not learned then, but falls from initial_std "
        "over std_decay_transitions transitions; None: it is learned.",
        above=0.0,
        swept=True,
    )
    std_decay_transitions: int | None = option(
        None, "See final_std; None in a training program: all of the run.", low=1, swept=True
    )
    action_scale: NamedNumbers = option(
        (),
        'Share of its range that the policy uses, for actions by name, as {"acceleration": 0.1}: the range shrinks '
        "around its centre. Actions not named keep all of theirs.",
        above=0.0,
        high=1.0,
    )
    initial_choices: tuple[float, ...] = option(
        (),
        "First probability of every choice, where actions are choices; none given: about equal ones.",
        above=0.0,
        high=1.0,
    )
    hidden_dims: tuple[int, ...] = option((256, 256), "Widths of the policy network's hidden layers.", empty=False)
    value_hidden_dims: tuple[int, ...] = option(
        (256, 256), "Widths of the value network's; not used with a shared trunk.", empty=False
    )
    shared_trunk: bool = option(
        False,
        "Whether the value is a linear function of the policy network's features; with a memory it always is.",
    )
    activation: str = option("tanh", "Of the hidden layers.", choices=tuple(ACTIVATIONS))
    orthogonal_init: bool = option(True, "Orthogonal initialisation of the dense layers.")

    def __post_init__(self) -> None:
        check_fields(self, "agent config key")
        if self.distribution == "beta" and self.initial_std > 0.57:
            raise UsageError(f"initial_std of a beta policy must lie in (0, 0.57], got {self.initial_std!r}")
        if self.final_std is not None and self.distribution not in ("auto", "tanh_gaussian"):
            raise UsageError(f"final_std is for a tanh_gaussian policy, not for {self.distribution!r}: set it to None")
        if self.value_heads == 1 and np.any(np.asarray(self.ld_weight) > 0.0):
            raise UsageError("ld_weight compares two value heads: set value_heads to 2, or ld_weight to 0")

    def fitted(self, transitions: int, gradient_steps: int) -> Self:
        """See :class:`racer.agents.learner.AgentConfig`."""
        return filled(self, {"lr_decay_transitions": transitions, "std_decay_transitions": transitions})

    def check_num_envs(self, num_envs: int) -> None:
        """See :class:`racer.agents.learner.AgentConfig`."""
        _check_rows(self.rollout_length, num_envs, self.num_minibatches, self.memory is not None)


@dataclass(frozen=True)
class PPOLearner(BaseLearner):
    """See :class:`racer.agents.learner.BaseLearner` for the verbs and docs/ppo.md for the maths."""

    wants: ClassVar[str] = ROLLOUT
    config_class: ClassVar[type[PPOConfig]] = PPOConfig
    components = ("actor", "critic", "value_scale")
    initial_state = staticmethod(ppo_update.initial_state)
    pure_update = staticmethod(ppo_update.update)

    @staticmethod
    def prepare(config: PPOConfig, fixed: Fixed, interfaces: Interfaces) -> PPOStatic:
        """See :class:`racer.agents.learner.BaseLearner`."""
        if config.lr_schedule != "constant":
            need_lengths(config, "lr_schedule", ("lr_decay_transitions",))
        if config.final_std is not None:
            need_lengths(config, "final_std", ("std_decay_transitions",))
        if interfaces.choices and (config.action_scale or config.initial_action):
            log.warning("action_scale and initial_action are left out: the actions are choices")
            config = replace(config, action_scale=(), initial_action=())
        kind = _distribution(config, interfaces)
        low, high = _scaled_range(config, interfaces)
        limits = LOG_STD_LIMITS.get(kind)
        fields = {} if limits is None else {"log_std_min": limits[0], "log_std_max": limits[1]}
        policy = agent_policy(config, interfaces, kind, config.hidden_dims, config.activation, **fields)
        first = initial_shares(config.initial_action, interfaces.names, low, high)
        return PPOStatic(
            fixed, interfaces, policy,
            Start(first, config.initial_std, config.orthogonal_init, _initial_choices(config, policy)),
            low=low, high=high, values=_value_heads(config, policy),
        )  # fmt: skip

    @staticmethod
    def bounds(static: PPOStatic, state: PPOState) -> Bounds | None:
        """Return the range that the policy uses; None for choices."""
        return static.bounds

    @property
    def rollout_length(self) -> int:
        """Steps of every environment between two updates."""
        return self.static.config.rollout_length

    def values(self, observations: np.ndarray, memory: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the discounted return expected from ``[N, ...]`` observations on, ``[N]`` in units of the reward.

        Args:
            observations: of the world.
            memory: before them, as :meth:`racer.networks.policy.Policy.act` takes it.
        """
        static, state, policy = self.static, self.state, self.policy
        seen = policy.viewed(policy.shaped(np.asarray(observations, np.float32)))
        # Copies, as a step writes into a cache.
        own = {name: np.array(value) for name, value in memory.items()}
        features, _ = policy.torso.step(state.actor.params, seen, own)
        normal = static.evaluate(state.critic.params, features, seen)[..., 0]
        return np.asarray(state.value_scale.raw(normal))

    def check_num_envs(self, num_envs: int) -> None:
        """Raise UsageError unless rollouts of ``num_envs`` environments divide into minibatches."""
        self._check_rows(self.rollout_length, num_envs)

    def checked(self, data: Mapping[str, np.ndarray], utd_ratio: int) -> dict[str, np.ndarray]:
        """Return the fields the update reads, after checking names, shapes and divisibility.

        Raises:
            UsageError: a field is missing or misshapen, a choice is none, or the rows do not divide into minibatches.
        """
        interfaces, policy = self.static.interfaces, self.policy
        memory = {f"memory/{name}": value.shape[1:] for name, value in policy.initial_memory(1).items()}
        drawn = "actions" if policy.discrete else "draws"
        names = (
            "observations",
            drawn,
            "log_probs",
            "rewards",
            *ROW_FLAGS,
            "final_observations",
            "final_index",
            *memory,
        )
        arrays = read_fields("rollout", data, names)
        lead = arrays["rewards"].shape
        if len(lead) != 2:
            raise UsageError(f"rollout field 'rewards' must be time-major [T, N], got {list(lead)}")
        (steps, envs), finals = lead, len(arrays["final_index"])
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("log_probs", "rewards", *ROW_FLAGS), lead)
        shapes |= {drawn: (*lead, *interfaces.action_shape), "observations": (steps + 1, envs)}
        shapes |= {"final_observations": (finals,), "final_index": (finals, 2)}
        shapes |= {name: (envs, *tail) for name, tail in memory.items()}
        interfaces.check_fields("rollout", arrays, shapes)
        self._check_rows(steps, envs)
        if policy.discrete:
            arrays["draws"] = self._choices(arrays.pop("actions"))
        kinds = {"draws": np.int32, "final_index": np.int32} if policy.discrete else {"final_index": np.int32}
        typed = {name: np.asarray(array, dtype=kinds.get(name, np.float32)) for name, array in arrays.items()}
        return _with_room(typed, steps, envs)

    def _choices(self, actions: np.ndarray) -> np.ndarray:
        """Return choices counted from 0."""
        start, count = self.static.interfaces.start, self.static.interfaces.choices
        chosen = actions.astype(np.int32) - start
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < count):
            raise UsageError(f"actions must lie in [{start}, {start + count}), as the action space says")
        return chosen

    def _check_rows(self, steps: int, envs: int) -> None:
        _check_rows(steps, envs, self.static.config.num_minibatches, self.policy.has_memory)


def _check_rows(steps: int, envs: int, parts: int, has_memory: bool) -> None:
    """Raise UsageError unless rollouts of ``envs`` environments, ``steps`` each, divide into ``parts`` minibatches."""
    if has_memory:
        if envs == 0 or envs % parts:
            raise UsageError(
                f"sequences of {envs} environments do not divide into num_minibatches={parts}; with a memory a "
                "minibatch holds whole sequences"
            )
    elif steps * envs == 0 or steps * envs % parts:
        raise UsageError(
            f"rollouts of {steps} steps x {envs} environments = {steps * envs} rows do not divide into "
            f"num_minibatches={parts}"
        )


def _with_room(arrays: dict[str, np.ndarray], steps: int, envs: int) -> dict[str, np.ndarray]:
    """Fill final observations up to a sixteenth of the rows, so that fewer ends seldom mean another compilation.

    What fills them up points one past the end, as in :func:`racer.replay.sequence.join_rollouts`.
    """
    index, finals = arrays["final_index"], arrays["final_observations"]
    missing = (1 << max(steps * envs // 16 - 1, 0).bit_length()) - len(index)
    if missing <= 0:
        return arrays
    filling = np.tile(np.array([[steps, 0]], np.int32), (missing, 1))
    zeros = np.zeros((missing, *finals.shape[1:]), np.float32)
    return {
        **arrays,
        "final_index": np.concatenate([index, filling]),
        "final_observations": np.concatenate([finals, zeros]),
    }


def _distribution(config: PPOConfig, interfaces: Interfaces) -> str:
    kind = config.distribution
    if interfaces.choices:
        if kind not in ("auto", "categorical"):
            raise UsageError(f"distribution {kind!r} is for continuous actions; use 'categorical' here")
        if config.final_std is not None:
            raise UsageError("final_std has no meaning for a Discrete action space: set it to None")
        return "categorical"
    if kind == "categorical":
        raise UsageError("distribution 'categorical' needs a Discrete action space; use 'tanh_gaussian' or 'beta'")
    return "tanh_gaussian" if kind == "auto" else kind


def _scaled_range(config: PPOConfig, interfaces: Interfaces) -> tuple[tuple[float, ...], tuple[float, ...]]:
    scales = numbers_by_name("action_scale", config.action_scale, interfaces.names)
    names = interfaces.names or ("",) * len(interfaces.low)
    low, high = [], []
    for name, least, greatest in zip(names, interfaces.low, interfaces.high, strict=True):
        centre, half = 0.5 * (least + greatest), 0.5 * scales.get(name, 1.0) * (greatest - least)
        low.append(centre - half)
        high.append(centre + half)
    return tuple(low), tuple(high)


def _value_heads(config: PPOConfig, policy: Policy) -> ValueHeads:
    if config.shared_trunk or policy.has_memory:
        return ValueHeads(None, policy.torso.width, config.value_heads, config.orthogonal_init)
    torso = build_torso(policy.torso.shape, {**policy.torso.spec, "hidden_dims": config.value_hidden_dims})
    return ValueHeads(torso, torso.width, config.value_heads, config.orthogonal_init)


def _initial_choices(config: PPOConfig, policy: Policy) -> tuple[float, ...]:
    """Return the first probability of every choice; nothing where they are about equal."""
    given = config.initial_choices
    if not given:
        return ()
    if not policy.discrete:
        raise UsageError("initial_choices is for actions that are choices: set it to ()")
    if len(given) != policy.size or abs(sum(given) - 1.0) > 1e-6:
        raise UsageError(
            f"initial_choices must be {policy.size} probabilities, one for every choice, that add up to 1, got "
            f"{list(given)}"
        )
    return given
