"""The configuration of :class:`racer.agents.sac.SACLearner`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from racer.agents.named_actions import named_numbers
from racer.agents.schedules import require_schedule
from racer.agents.validation import require_dims, require_range, require_scale, require_type
from racer.core.errors import UsageError

__all__ = ["SACConfig"]


@dataclass(frozen=True)
class SACConfig:
    """Every key of the agent, checked when it is built.

    Attributes:
        actor_lr: Adam step size of the actor.
        critic_lr: Adam step size of the critics.
        temp_lr: Adam step size of the entropy temperature.
        lr_schedule: "constant", or "linear": the step sizes of actor and critics fall to final_lr_fraction of their
            first value over lr_decay_steps gradient steps, after lr_decay_begin gradient steps, and stay there.
        lr_decay_begin: see lr_schedule.
        lr_decay_steps: see lr_schedule.
        final_lr_fraction: see lr_schedule; in [0, 1].
        actor_hidden_dims: widths of the actor's hidden layers.
        critic_hidden_dims: widths of each critic's hidden layers.
        discount: factor on the next step's return, in (0, 1].
        num_qs: number of critics in the ensemble.
        num_min_qs: how many critics, drawn anew for every minibatch, the target's minimum runs over; None for
            all (clipped double Q with two, REDQ with a subset).
        policy_steps: steps of policy and temperature an update() call, each on a minibatch of its own; no more than
            ``utd_ratio`` are taken.
        tau: share of the critic that moves into its target after every critic step, in (0, 1].
        init_temperature: first value of the entropy temperature, above 0.
        target_entropy: entropy (nats) the temperature steers to; None for minus half the number of actions.
        critic_layer_norm: layer normalisation in the critics.
        critic_weight_decay: decoupled weight decay of the critics' kernels, or None.
        backup_entropy: whether the critics' target carries the entropy bonus of the next action.
        initial_action: where the first policy's mean lies, for actions by name in their own unit, as
            {"acceleration": 0.3}; actions not named start at the centre of their range.
        noise_correlation: correlation of the exploration noise from one step to the next, in [0, 1); 0 for white noise.
        pointnet_dims: widths of a PointNet's per-row layers; empty for no PointNet.
        vehicle_features: numbers in one vehicle row of the observation.
        observation_scale: factor on the observation: one number, one for each vehicle feature, or None.
    """

    actor_lr: float = 3e-4
    critic_lr: float = 3e-4
    temp_lr: float = 3e-4
    lr_schedule: str = "constant"
    lr_decay_begin: int = 0
    lr_decay_steps: int = 1_000_000
    final_lr_fraction: float = 0.0
    actor_hidden_dims: tuple[int, ...] = (256, 256)
    critic_hidden_dims: tuple[int, ...] = (256, 256)
    discount: float = 0.99
    num_qs: int = 2
    num_min_qs: int | None = None
    tau: float = 0.005
    policy_steps: int = 1
    init_temperature: float = 1.0
    target_entropy: float | None = None
    critic_layer_norm: bool = False
    critic_weight_decay: float | None = None
    backup_entropy: bool = True
    initial_action: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    noise_correlation: float = 0.0
    pointnet_dims: tuple[int, ...] = ()
    vehicle_features: int = 6
    observation_scale: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("actor_lr", "critic_lr", "temp_lr"):
            require_range(name, getattr(self, name), 0.0)
        require_range("init_temperature", self.init_temperature, 0.0, open_low=True)
        for name in ("discount", "tau"):
            require_range(name, getattr(self, name), 0.0, 1.0, open_low=True)
        if self.critic_weight_decay is not None:
            require_range("critic_weight_decay", self.critic_weight_decay, 0.0)
        if self.target_entropy is not None:
            require_range("target_entropy", self.target_entropy)
        for name in ("num_qs", "policy_steps", "vehicle_features"):
            require_type(name, getattr(self, name), int)
            require_range(name, getattr(self, name), 1)
        if self.num_min_qs is not None:
            require_type("num_min_qs", self.num_min_qs, int)
            if not 1 <= self.num_min_qs <= self.num_qs:
                raise UsageError(f"num_min_qs must lie in [1, num_qs={self.num_qs}], got {self.num_min_qs!r}")
        require_schedule(self)
        for name in ("critic_layer_norm", "backup_entropy"):
            require_type(name, getattr(self, name), bool)
        require_range("noise_correlation", self.noise_correlation, 0.0, 0.9999)
        require_dims("actor_hidden_dims", self.actor_hidden_dims)
        require_dims("critic_hidden_dims", self.critic_hidden_dims)
        require_dims("pointnet_dims", self.pointnet_dims, allow_empty=True)
        require_scale(self.observation_scale, self.vehicle_features)
        object.__setattr__(self, "initial_action", named_numbers("initial_action", self.initial_action))
