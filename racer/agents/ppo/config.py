"""The configuration of :class:`racer.agents.ppo.PPOLearner`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from racer.agents.named_actions import named_numbers
from racer.agents.schedules import SCHEDULES
from racer.agents.validation import require_dims, require_range, require_scale, require_type
from racer.core.errors import UsageError, unknown_name

__all__ = ["PPOConfig"]

_DISTRIBUTIONS = ("auto", "tanh_gaussian", "beta", "categorical")
_ACTIVATIONS = ("tanh", "relu")


@dataclass(frozen=True)
class PPOConfig:
    """Every key of the agent, checked when it is built.

    Attributes:
        rollout_length: steps of every environment between two updates.
        num_epochs: times an update goes over its rollout.
        num_minibatches: gradient steps an epoch; must divide num_envs * rollout_length.
        actor_lr: Adam step size of the policy network (and of a shared trunk).
        critic_lr: Adam step size of the value network.
        lr_schedule: "constant", or "linear": both step sizes fall to final_lr_fraction of their first value over
            lr_decay_transitions transitions and stay there.
        lr_decay_transitions: see lr_schedule.
        final_lr_fraction: see lr_schedule; in [0, 1].
        discount: factor on the next step's return, in (0, 1].
        gae_lambda: decay of later temporal differences in the advantage, in [0, 1].
        clip_ratio: how far the probability ratio may leave 1 and still raise the objective, above 0.
        value_clip: greatest change of a value in one update that still lowers the loss, in standard deviations of the
            returns where normalize_values is on; None for no limit.
        value_coef: weight of the value loss.
        entropy_coef: weight of the policy's entropy (nats), 0 for none.
        max_grad_norm: joint norm above which the gradients of both networks are scaled down.
        target_kl: divergence (nats) from the policy before the update at which the rest of the update is skipped;
            None for no limit.
        normalize_advantages: whether every minibatch's advantages are shifted and scaled to mean 0, variance 1.
        normalize_values: whether the value network learns returns relative to their running mean and standard
            deviation.
        distribution: "tanh_gaussian" or "beta" for continuous actions, "categorical" for choices; "auto": the
            Gaussian, or the categorical where the action space is Discrete.
        initial_std: first standard deviation of every action, as a share of half its range, above 0; below 0.57 for
            the beta distribution, which has two humps otherwise.
        initial_action: where the first policy's mean lies, for actions by name in their own unit, as
            {"acceleration": 0.3}; actions not named start at the centre of the range that the policy uses.
        action_scale: share of its range that the policy uses, for actions by name, as {"steering": 0.1}: the range
            shrinks around its centre. Actions not named keep all of theirs.
        hidden_dims: widths of the policy network's hidden layers.
        value_hidden_dims: widths of the value network's; not used with a shared trunk.
        shared_trunk: whether the value is a linear function of the policy network's features.
        activation: "tanh" or "relu".
        orthogonal_init: orthogonal initialisation of the dense layers.
        pointnet_dims: widths of a PointNet's per-row layers; empty for no PointNet.
        vehicle_features: numbers in one vehicle row of the observation.
        observation_scale: factor on the observation: one number, one for each vehicle feature, or None.
    """

    rollout_length: int = 128
    num_epochs: int = 10
    num_minibatches: int = 8
    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    lr_schedule: str = "constant"
    lr_decay_transitions: int = 1_000_000
    final_lr_fraction: float = 0.0
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip_ratio: float = 0.2
    value_clip: float | None = None
    value_coef: float = 0.5
    entropy_coef: float = 0.0
    max_grad_norm: float = 0.5
    target_kl: float | None = None
    normalize_advantages: bool = True
    normalize_values: bool = True
    distribution: str = "auto"
    initial_std: float = 0.5
    initial_action: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    action_scale: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    hidden_dims: tuple[int, ...] = (256, 256)
    value_hidden_dims: tuple[int, ...] = (256, 256)
    shared_trunk: bool = False
    activation: str = "tanh"
    orthogonal_init: bool = True
    pointnet_dims: tuple[int, ...] = ()
    vehicle_features: int = 6
    observation_scale: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("rollout_length", "num_epochs", "num_minibatches", "lr_decay_transitions", "vehicle_features"):
            require_type(name, getattr(self, name), int)
            require_range(name, getattr(self, name), 1)
        for name in ("actor_lr", "critic_lr", "value_coef", "entropy_coef"):
            require_range(name, getattr(self, name), 0.0)
        for name in ("final_lr_fraction", "gae_lambda"):
            require_range(name, getattr(self, name), 0.0, 1.0)
        require_range("discount", self.discount, 0.0, 1.0, open_low=True)
        for name in ("clip_ratio", "max_grad_norm", "initial_std"):
            require_range(name, getattr(self, name), 0.0, open_low=True)
        for name in ("value_clip", "target_kl"):
            if getattr(self, name) is not None:
                require_range(name, getattr(self, name), 0.0, open_low=True)
        for name in ("normalize_advantages", "normalize_values", "shared_trunk", "orthogonal_init"):
            require_type(name, getattr(self, name), bool)
        for name, choices in (
            ("lr_schedule", SCHEDULES),
            ("distribution", _DISTRIBUTIONS),
            ("activation", _ACTIVATIONS),
        ):
            if getattr(self, name) not in choices:
                raise unknown_name(f"value of {name}", str(getattr(self, name)), choices)
        if self.distribution == "beta" and self.initial_std > 0.57:
            raise UsageError(f"initial_std of a beta policy must lie in (0, 0.57], got {self.initial_std!r}")
        require_dims("hidden_dims", self.hidden_dims)
        require_dims("value_hidden_dims", self.value_hidden_dims)
        require_dims("pointnet_dims", self.pointnet_dims, allow_empty=True)
        require_scale(self.observation_scale, self.vehicle_features)
        object.__setattr__(self, "initial_action", named_numbers("initial_action", self.initial_action))
        object.__setattr__(self, "action_scale", named_numbers("action_scale", self.action_scale))
        for name, scale in dict(self.action_scale).items():
            require_range(f"action_scale of {name!r}", scale, 0.0, 1.0, open_low=True)

    def check_rows(self, rollout_length: int, num_envs: int) -> None:
        """Raise UsageError unless ``rollout_length * num_envs`` rows divide into the minibatches of an epoch."""
        rows = rollout_length * num_envs
        if rows == 0 or rows % self.num_minibatches:
            raise UsageError(
                f"rollouts of {rollout_length} steps x {num_envs} environments = {rows} rows do not divide into "
                f"num_minibatches={self.num_minibatches}"
            )
