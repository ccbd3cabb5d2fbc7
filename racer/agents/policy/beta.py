"""The beta policy of on-policy agents, in NumPy (Chou et al. 2017, "Improving stochastic policy gradients")."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.agents.policy.base import checked_fields
from racer.agents.policy.trunk import Trunk, dense
from racer.core.errors import UsageError

__all__ = ["BetaPolicy"]

# With both parameters above 1 the density vanishes at the edges; rounding to float32 must not put a draw on them.
_UNIT_EDGE = 1e-6
_log_gamma = np.frompyfunc(math.lgamma, 1, 1)


@dataclass(frozen=True)
class BetaPolicy:
    """``a = low + (high - low) * x``, ``x ~ Beta(alpha(s), beta(s))`` with both above 1 (one hump).

    Deterministically ``x`` is the distribution's mean.

    Attributes:
        trunk: encoder and hidden layers.
        action_dim: A.
        action_names: name of each action, in order, or empty.
    """

    trunk: Trunk
    action_dim: int
    action_names: tuple[str, ...] = ()

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> BetaPolicy:
        """Build from a specification without its ``kind``.

        Raises:
            UsageError: an unknown or missing key.
        """
        checked_fields("beta", fields, {"trunk", "action_dim"}, {"action_names"})
        names = tuple(fields.get("action_names") or ())
        if names and len(names) != fields["action_dim"]:
            raise UsageError(f"policy has {fields['action_dim']} actions but {len(names)} action_names")
        return cls(Trunk.from_fields("beta", fields["trunk"]), int(fields["action_dim"]), names)

    @property
    def spec(self) -> dict[str, Any]:
        """See :class:`racer.agents.policy.base.Policy`."""
        return {
            "kind": "beta",
            "trunk": self.trunk.fields,
            "action_dim": self.action_dim,
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
        return _stretch(_draw(*self._parameters(params, observations), rng, deterministic), params)

    def act_with_extras(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """As :meth:`act`, with ``log_probs`` ``[N]`` (density of the actions) and ``draws`` ``[N, A]`` (x)."""
        alpha, beta = self._parameters(params, observations)
        unit = _draw(alpha, beta, rng, deterministic)
        x = unit.astype(np.float64)
        normalizer = (_log_gamma(alpha) + _log_gamma(beta) - _log_gamma(alpha + beta)).astype(np.float64)
        density = (alpha - 1.0) * np.log(x) + (beta - 1.0) * np.log1p(-x) - normalizer
        width = (params["action_high"] - params["action_low"]).astype(np.float64)
        log_probs = np.sum(density - np.log(width), axis=-1)
        return _stretch(unit, params), {"log_probs": log_probs.astype(np.float32), "draws": unit}

    def _parameters(self, params: Mapping[str, np.ndarray], observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = self.trunk.forward(params, observations)
        alpha, beta = (
            1.0 + np.logaddexp(0.0, dense(params, name, features).astype(np.float64)) for name in ("alpha", "beta")
        )
        return alpha, beta


def _draw(alpha: np.ndarray, beta: np.ndarray, rng: np.random.Generator, deterministic: bool) -> np.ndarray:
    unit = alpha / (alpha + beta) if deterministic else rng.beta(alpha, beta)
    return np.clip(unit, _UNIT_EDGE, 1.0 - _UNIT_EDGE).astype(np.float32)


def _stretch(unit: np.ndarray, params: Mapping[str, np.ndarray]) -> np.ndarray:
    low, high = params["action_low"], params["action_high"]
    return np.minimum(low + (high - low) * unit, high)
