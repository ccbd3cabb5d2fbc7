"""The tanh-squashed Gaussian policy of on-policy agents, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.agents.policy.base import checked_fields
from racer.agents.policy.trunk import Trunk, dense
from racer.core.errors import UsageError

__all__ = ["TanhGaussianPolicy"]

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_LOG_TWO = math.log(2.0)


@dataclass(frozen=True)
class TanhGaussianPolicy:
    """``a = centre + half_width * tanh(u)``, ``u ~ N(mean(s), std)``; deterministically ``u = mean(s)``.

    Unlike :class:`racer.agents.policy.squashed_gaussian.SquashedGaussianPolicy` the standard deviation is the same in
    every state, and the policy writes down what an on-policy learner needs of each draw.

    Attributes:
        trunk: encoder and hidden layers.
        action_dim: A.
        log_std_min: lower clip of the logarithm of the standard deviation.
        log_std_max: upper clip.
        action_names: name of each action, in order, or empty.
    """

    trunk: Trunk
    action_dim: int
    log_std_min: float
    log_std_max: float
    action_names: tuple[str, ...] = ()

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> TanhGaussianPolicy:
        """Build from a specification without its ``kind``.

        Raises:
            UsageError: an unknown or missing key.
        """
        kind = "tanh_gaussian"
        checked_fields(kind, fields, {"trunk", "action_dim", "log_std_min", "log_std_max"}, {"action_names"})
        names = tuple(fields.get("action_names") or ())
        if names and len(names) != fields["action_dim"]:
            raise UsageError(f"policy has {fields['action_dim']} actions but {len(names)} action_names")
        return cls(
            trunk=Trunk.from_fields(kind, fields["trunk"]),
            action_dim=int(fields["action_dim"]),
            log_std_min=float(fields["log_std_min"]),
            log_std_max=float(fields["log_std_max"]),
            action_names=names,
        )

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`racer.agents.policy.base.Policy`."""
        return {
            "kind": "tanh_gaussian",
            "trunk": self.trunk.fields,
            "action_dim": self.action_dim,
            "log_std_min": self.log_std_min,
            "log_std_max": self.log_std_max,
            "action_names": list(self.action_names),
        }

    def act(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool = False,
    ) -> np.ndarray:
        """Return actions ``[N, A]`` float32 inside ``[action_low, action_high]``."""
        mean = dense(params, "mean", self.trunk.forward(params, observations))
        return _squash(mean if deterministic else mean + self._std(params) * _noise(rng, mean), params)

    def act_with_extras(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """As :meth:`act`, with ``log_probs`` ``[N]`` (density of the actions) and ``draws`` ``[N, A]`` (u)."""
        mean = dense(params, "mean", self.trunk.forward(params, observations))
        log_std = self._log_std(params)
        raw = mean if deterministic else mean + self._std(params) * _noise(rng, mean)
        noise = (raw - mean) * np.exp(-log_std)
        half_width = 0.5 * (params["action_high"] - params["action_low"])
        # log da/du = log(half_width) + log(1 - tanh(u)^2), the latter as 2 (log 2 - u - softplus(-2 u)).
        log_slope = 2.0 * (_LOG_TWO - raw - np.logaddexp(np.float32(0.0), -2.0 * raw)) + np.log(half_width)
        log_probs = np.sum(-0.5 * np.square(noise) - log_std - _HALF_LOG_TWO_PI - log_slope, axis=-1)
        return _squash(raw, params), {"log_probs": log_probs.astype(np.float32), "draws": raw.astype(np.float32)}

    def _log_std(self, params: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.clip(params["log_std"], self.log_std_min, self.log_std_max)

    def _std(self, params: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.exp(self._log_std(params))


def _noise(rng: np.random.Generator, mean: np.ndarray) -> np.ndarray:
    return rng.standard_normal(mean.shape, dtype=np.float32)


def _squash(raw: np.ndarray, params: Mapping[str, np.ndarray]) -> np.ndarray:
    low, high = params["action_low"], params["action_high"]
    # Clipping mends the rounding of the sum alone; the density is taken at u and does not know of it.
    return np.clip(0.5 * (high + low) + 0.5 * (high - low) * np.tanh(raw), low, high)
