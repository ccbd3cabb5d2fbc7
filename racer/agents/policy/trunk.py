"""The forward passes of :mod:`racer.networks` in NumPy, shared by every kind of policy.

Parameter names are the paths of the flax modules joined by ``/``; the layer functions look their arrays up
by name, so a parameter that is missing shows up as a KeyError with that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.agents.policy.base import checked_fields
from racer.core.errors import UsageError, unknown_name

__all__ = ["ACTIVATIONS", "Trunk", "dense"]


def _relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0.0, out=values)


def _tanh(values: np.ndarray) -> np.ndarray:
    return np.tanh(values, out=values)


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"relu": _relu, "tanh": _tanh}


def dense(params: Mapping[str, np.ndarray], name: str, inputs: np.ndarray) -> np.ndarray:
    """Return ``inputs @ kernel + bias`` for the layer called ``name``; ``[..., D] -> [..., H]``."""
    out = inputs @ params[f"{name}/kernel"]
    out += params[f"{name}/bias"]
    return out


@dataclass(frozen=True)
class Trunk:
    """Encoder and hidden layers of an actor.

    Attributes:
        observation_dim: D.
        hidden_dims: widths of the hidden layers.
        activation: a name in ``ACTIVATIONS``.
        observation_scale: factor on the observation: one, one a vehicle feature, or None.
        pointnet_dims: widths of the per-row perceptron; empty for no PointNet.
        vehicle_features: numbers in one vehicle row.
    """

    observation_dim: int
    hidden_dims: tuple[int, ...]
    activation: str
    observation_scale: float | tuple[float, ...] | None
    pointnet_dims: tuple[int, ...]
    vehicle_features: int

    @classmethod
    def from_fields(cls, kind: str, fields: Mapping[str, Any]) -> Trunk:
        """Build from the ``trunk`` part of a specification.

        Raises:
            UsageError: an unknown or missing key, or an unknown activation.
        """
        names = {"observation_dim", "hidden_dims", "activation", "observation_scale", "pointnet_dims"}
        checked_fields(f"{kind} trunk", fields, names | {"vehicle_features"}, set())
        if fields["activation"] not in ACTIVATIONS:
            raise unknown_name("activation", str(fields["activation"]), ACTIVATIONS)
        scale = fields["observation_scale"]
        return cls(
            observation_dim=int(fields["observation_dim"]),
            hidden_dims=tuple(int(width) for width in fields["hidden_dims"]),
            activation=fields["activation"],
            observation_scale=tuple(map(float, scale)) if isinstance(scale, list | tuple) else scale,
            pointnet_dims=tuple(int(width) for width in fields["pointnet_dims"]),
            vehicle_features=int(fields["vehicle_features"]),
        )

    @property
    def fields(self) -> dict[str, Any]:
        """JSON-able inverse of :meth:`from_fields`."""
        scale = self.observation_scale
        return {
            "observation_dim": self.observation_dim,
            "hidden_dims": list(self.hidden_dims),
            "activation": self.activation,
            "observation_scale": list(scale) if isinstance(scale, tuple) else scale,
            "pointnet_dims": list(self.pointnet_dims),
            "vehicle_features": self.vehicle_features,
        }

    def forward(self, params: Mapping[str, np.ndarray], observations: np.ndarray) -> np.ndarray:
        """Map observations ``[N, D]`` to features ``[N, H]``, both float32.

        Raises:
            UsageError: the observations are not ``[N, D]`` for the policy's D.
        """
        if observations.ndim != 2 or observations.shape[1] != self.observation_dim:
            raise UsageError(
                f"the policy takes observations [N, {self.observation_dim}], got {list(observations.shape)}"
            )
        hidden = self._encode(params, self._scaled(np.asarray(observations, dtype=np.float32)))
        activate = ACTIVATIONS[self.activation]
        for index in range(len(self.hidden_dims)):
            hidden = activate(dense(params, f"trunk/hidden_{index}", hidden))
        return hidden

    def _scaled(self, observations: np.ndarray) -> np.ndarray:
        if self.observation_scale is None:
            return observations
        factors = np.asarray(self.observation_scale, dtype=np.float32)
        if factors.ndim == 1:
            factors = np.tile(factors, self.observation_dim // factors.size)
        return observations * factors

    def _encode(self, params: Mapping[str, np.ndarray], observations: np.ndarray) -> np.ndarray:
        if not self.pointnet_dims:
            return observations
        rows = observations.reshape(len(observations), -1, self.vehicle_features)
        hidden = rows
        for index in range(len(self.pointnet_dims)):
            hidden = _relu(dense(params, f"encoder/row_{index}", hidden))
        return np.concatenate([rows[:, 0, :], hidden.max(axis=1)], axis=1)
