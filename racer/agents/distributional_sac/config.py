"""The configuration of :class:`racer.agents.distributional_sac.DistributionalSACLearner`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from racer.agents.named_actions import named_numbers
from racer.agents.schedules import require_schedule
from racer.agents.validation import require_dims, require_range, require_scale, require_type
from racer.core.errors import UsageError, unknown_name

__all__ = ["DistributionalSACConfig"]


@dataclass(frozen=True)
class DistributionalSACConfig:
    """Every key of the agent, checked when it is built.

    Attributes:
        actor_lr: Adam step size of the actor.
        critic_lr: Adam step size of the critics.
        temp_lr: Adam step size of the entropy temperature.
        limits_lr: Adam step size of the learned action limit.
        q_entropy_lagrange_lr: Adam step size of the critic-entropy multiplier.
        lr_schedule: "constant", or "linear": the step sizes of actor and critics fall to final_lr_fraction of their
            first value over lr_decay_steps gradient steps, after lr_decay_begin gradient steps, and stay there.
        lr_decay_begin: see lr_schedule.
        lr_decay_steps: see lr_schedule.
        final_lr_fraction: see lr_schedule; in [0, 1].
        actor_hidden_dims: widths of the actor's hidden layers.
        critic_hidden_dims: widths of each critic's hidden layers.
        discount: factor on the next step's return, in (0, 1].
        num_qs: number of critics in the ensemble.
        policy_steps: steps of policy and temperature an update() call, each on a minibatch of its own; no more than
            ``utd_ratio`` are taken.
        tau: share of the critic that moves into its target after every critic step, in (0, 1].
        init_temperature: first value of the entropy temperature, above 0.
        target_entropy: entropy (nats) the temperature steers to; None for minus half the number of actions.
        num_atoms: atoms of each critic's distribution, at least 2.
        q_min: return at the first atom.
        q_max: return at the last atom, above ``q_min``.
        cvar_risk: the actor maximises the mean of the worst ``1 - cvar_risk`` share of returns, in [0, 1].
        cvar_warmup_steps: gradient steps over which the risk levels of policy and limit rise from 0 to their values; 0
            for none. The worst share of the returns of an agent that cannot drive is the same for every action.
        critic_layer_norm: layer normalisation in the critics.
        critic_weight_decay: decoupled weight decay of the critics' kernels, or None.
        limits_weight_decay: decoupled weight decay of the learned limit, or None.
        backup_entropy: whether the critics' target carries the entropy bonus of the next action.
        independent_ensemble: each critic bootstraps from its own target (True), or all from the mixture.
        cvar_limits: risk level of the learned limit: a number in [0, 1], or "cvar_risk" for the actor's.
        q_entropy_target_diff: critic entropy on replayed actions may exceed that on out-of-distribution
            actions by at most this (nats); None switches the multiplier off.
        q_entropy_lagrange_init: first value of the multiplier, above 0.
        learned_action: name of the action with a learned limit; None, or "none" where only text can be typed,
            learns no limit.
        learned_action_initial_limit: first value of the limit, in the action's own unit.
        learned_action_limit_kind: "symmetric" or "upper"; None takes symmetric for steering, else upper.
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
    limits_lr: float = 1e-5
    q_entropy_lagrange_lr: float = 1e-3
    lr_schedule: str = "constant"
    lr_decay_begin: int = 0
    lr_decay_steps: int = 1_000_000
    final_lr_fraction: float = 0.0
    actor_hidden_dims: tuple[int, ...] = (256, 256)
    critic_hidden_dims: tuple[int, ...] = (256, 256)
    discount: float = 0.99
    num_qs: int = 2
    tau: float = 0.005
    policy_steps: int = 1
    init_temperature: float = 1.0
    target_entropy: float | None = None
    num_atoms: int = 101
    q_min: float = -50.0
    q_max: float = 50.0
    cvar_risk: float = 0.8
    cvar_warmup_steps: int = 0
    critic_layer_norm: bool = True
    critic_weight_decay: float | None = 1e-3
    limits_weight_decay: float | None = 1e-3
    backup_entropy: bool = False
    independent_ensemble: bool = True
    cvar_limits: float | str = "cvar_risk"
    q_entropy_target_diff: float | None = -0.01
    q_entropy_lagrange_init: float = 1e-3
    learned_action: str | None = "steering"
    learned_action_initial_limit: float = 0.2
    learned_action_limit_kind: str | None = None
    initial_action: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    noise_correlation: float = 0.0
    pointnet_dims: tuple[int, ...] = ()
    vehicle_features: int = 6
    observation_scale: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.learned_action == "none":
            object.__setattr__(self, "learned_action", None)
        for name in ("actor_lr", "critic_lr", "temp_lr", "limits_lr", "q_entropy_lagrange_lr"):
            require_range(name, getattr(self, name), 0.0)
        for name in ("init_temperature", "q_entropy_lagrange_init"):
            require_range(name, getattr(self, name), 0.0, open_low=True)
        for name in ("discount", "tau"):
            require_range(name, getattr(self, name), 0.0, 1.0, open_low=True)
        require_range("cvar_risk", self.cvar_risk, 0.0, 1.0)
        for name in ("critic_weight_decay", "limits_weight_decay"):
            if getattr(self, name) is not None:
                require_range(name, getattr(self, name), 0.0)
        for name in ("target_entropy", "q_entropy_target_diff"):
            if getattr(self, name) is not None:
                require_range(name, getattr(self, name))
        require_range("learned_action_initial_limit", self.learned_action_initial_limit)
        for name in ("cvar_warmup_steps", "num_qs", "policy_steps", "vehicle_features", "num_atoms"):
            least = {"cvar_warmup_steps": 0, "num_atoms": 2}.get(name, 1)
            require_type(name, getattr(self, name), int)
            require_range(name, getattr(self, name), least)
        require_schedule(self)
        for name in ("critic_layer_norm", "backup_entropy", "independent_ensemble"):
            require_type(name, getattr(self, name), bool)
        require_range("noise_correlation", self.noise_correlation, 0.0, 0.9999)
        require_dims("actor_hidden_dims", self.actor_hidden_dims)
        require_dims("critic_hidden_dims", self.critic_hidden_dims)
        require_dims("pointnet_dims", self.pointnet_dims, allow_empty=True)
        require_scale(self.observation_scale, self.vehicle_features)
        object.__setattr__(self, "initial_action", named_numbers("initial_action", self.initial_action))
        require_range("q_min", self.q_min)
        require_range("q_max", self.q_max)
        if not self.q_min < self.q_max:
            raise UsageError(f"q_min must lie below q_max, got q_min={self.q_min} and q_max={self.q_max}")
        if isinstance(self.cvar_limits, str):
            if self.cvar_limits != "cvar_risk":
                raise unknown_name("cvar_limits", self.cvar_limits, ["cvar_risk"])
        else:
            require_range("cvar_limits", self.cvar_limits, 0.0, 1.0)

    @property
    def limits_risk(self) -> float:
        """CVaR level of the learned limit as a number."""
        return self.cvar_risk if isinstance(self.cvar_limits, str) else self.cvar_limits
