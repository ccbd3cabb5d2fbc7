"""The policy protocol, and building a policy from its specification."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from racer.core.errors import UsageError, unknown_name

__all__ = ["Policy", "build_policy", "checked_fields"]

_KINDS: dict[str, tuple[str, str]] = {
    "beta": ("racer.agents.policy.beta", "BetaPolicy"),
    "categorical": ("racer.agents.policy.categorical", "CategoricalPolicy"),
    "squashed_gaussian": ("racer.agents.policy.squashed_gaussian", "SquashedGaussianPolicy"),
    "tanh_gaussian": ("racer.agents.policy.tanh_gaussian", "TanhGaussianPolicy"),
    "uniform": ("racer.agents.policy.uniform", "UniformRandomPolicy"),
}


@runtime_checkable
class Policy(Protocol):
    """A function from observations to actions whose parameters are handed in at every call."""

    @property
    def spec(self) -> dict[str, Any]:
        """JSON-able and complete: ``build_policy(policy.spec)`` is the same policy."""
        ...

    def act(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool = False,
    ) -> np.ndarray:
        """Return actions ``[N, A]`` float32 (of choices ``[N]`` int64) for observations ``[N, D]``."""
        ...

    def act_with_extras(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return actions and what the learner wants to know of them, arrays ``[N, ...]`` by name."""
        ...


def build_policy(spec: Mapping[str, Any]) -> Policy:
    """Build the policy that ``spec`` describes.

    Raises:
        UsageError: unknown kind, unknown or missing key, or a value of the wrong form.
    """
    kind = spec.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise unknown_name("policy kind", str(kind), _KINDS)
    module, name = _KINDS[kind]
    fields = {key: value for key, value in spec.items() if key != "kind"}
    return getattr(importlib.import_module(module), name).from_fields(fields)


def checked_fields(kind: str, fields: Mapping[str, Any], required: set[str], optional: set[str]) -> None:
    """Raise UsageError unless ``fields`` has every required key and none but the listed ones."""
    for key in fields:
        if key not in required | optional:
            raise unknown_name(f"key of policy kind {kind!r}", key, required | optional)
    missing = sorted(required - set(fields))
    if missing:
        raise UsageError(f"policy kind {kind!r} lacks: {', '.join(missing)}")
