"""The tanh-squashed Gaussian policy of the SAC family, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.agents.policy.base import checked_fields
from racer.agents.policy.trunk import Trunk, dense
from racer.core.errors import UsageError

__all__ = ["SquashedGaussianPolicy"]


@dataclass(frozen=True)
class SquashedGaussianPolicy:
    """``a = centre + half_width * tanh(u)``, ``u ~ N(mean, std)``; deterministically ``u = mean``.

    The range ``[action_low, action_high]`` (each ``[A]``) is part of the *parameters*, not of the
    specification: a learned limit moves it during training, and a policy always acts inside the range it was
    published with.

    Attributes:
        trunk: encoder and hidden layers.
        action_dim: A.
        log_std_min: lower clip of the logarithm of the standard deviation.
        log_std_max: upper clip.
        action_names: name of each action, in order, or empty.
        learned_action: name of the action with a learned limit, or None.
        noise_correlation: of the noise from one step of collecting to the next, see
            :func:`racer.agents.policy.noise.exploration_generator`.
    """

    trunk: Trunk
    action_dim: int
    log_std_min: float
    log_std_max: float
    action_names: tuple[str, ...] = ()
    learned_action: str | None = None
    noise_correlation: float = 0.0

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> SquashedGaussianPolicy:
        """Build from a specification without its ``kind``.

        Raises:
            UsageError: an unknown or missing key.
        """
        kind = "squashed_gaussian"
        required = {"trunk", "action_dim", "log_std_min", "log_std_max"}
        checked_fields(kind, fields, required, {"action_names", "learned_action", "noise_correlation"})
        names = tuple(fields.get("action_names") or ())
        if names and len(names) != fields["action_dim"]:
            raise UsageError(f"policy has {fields['action_dim']} actions but {len(names)} action_names")
        return cls(
            trunk=Trunk.from_fields(kind, fields["trunk"]),
            action_dim=int(fields["action_dim"]),
            log_std_min=float(fields["log_std_min"]),
            log_std_max=float(fields["log_std_max"]),
            action_names=names,
            learned_action=fields.get("learned_action"),
            noise_correlation=float(fields.get("noise_correlation", 0.0)),
        )

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`racer.agents.policy.base.Policy`."""
        return {
            "kind": "squashed_gaussian",
            "trunk": self.trunk.fields,
            "action_dim": self.action_dim,
            "log_std_min": self.log_std_min,
            "log_std_max": self.log_std_max,
            "action_names": list(self.action_names),
            "learned_action": self.learned_action,
            "noise_correlation": self.noise_correlation,
        }

    def act(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool = False,
    ) -> np.ndarray:
        """Return actions ``[N, A]`` float32 inside ``[action_low, action_high]``."""
        features = self.trunk.forward(params, observations)
        raw = dense(params, "mean", features)
        if not deterministic:
            log_std = np.clip(dense(params, "log_std", features), self.log_std_min, self.log_std_max)
            raw += np.exp(log_std) * rng.standard_normal(raw.shape, dtype=np.float32)
        low, high = params["action_low"], params["action_high"]
        return np.clip(0.5 * (high + low) + 0.5 * (high - low) * np.tanh(raw), low, high)

    def act_with_extras(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """As :meth:`act`, with no extras: an off-policy learner asks for none."""
        return self.act(params, observations, rng, deterministic), {}
