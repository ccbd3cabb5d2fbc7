"""What an environment reports of its episodes, and all that there is to such a number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from racer.core.errors import unknown_name
from racer.core.statistics import weighted_mean

__all__ = ["BASE_METRICS", "METRIC_KINDS", "Metric"]

METRIC_KINDS: Mapping[str, str] = {
    "mean": "{:.2f}",
    "finite_mean": "{:.2f}",
    "rate": "{:.1%}",
    "step_mean": "{:.2f}",
    "share": "{:.2%}",
}
"""How a metric is averaged, and how its average is written; see :attr:`Metric.kind`."""


@dataclass(frozen=True)
class Metric:
    """One number that an environment reports of every episode that ends. This entry is all that there is to a metric.

    Attributes:
        key: its name in ``episode_metrics``.
        name: its name in logs and aggregates ("collision_rate" of the key "crashed").
        kind: "mean" (over episodes), "finite_mean" (over the episodes in which it is finite), "rate" (share of
            episodes in which it is above 0), "step_mean" (of a mean over an episode's steps: pooled over all steps) or
            "share" (the same of a share of an episode's steps).
        label: its row in a table, with its unit; empty for none.
        unit: of its axis in a picture.
        better: "high", "low", or "" where neither is.
        form: how its average is written in a table; its kind's way where empty.
        interval: whether a table shows the confidence interval of a mean over episodes or of a rate.
        bounds: the least and the greatest value that it can have, beyond which no interval of its mean reaches.
        curve: whether it has a panel among the learning curves.
        total: name under which training counts how often it happened, for rates that matter so; empty for none.
        exploit: whether it is a share of steps that a policy gains by what nobody wants.
    """

    key: str
    name: str
    kind: str = "mean"
    label: str = ""
    unit: str = ""
    better: str = ""
    form: str = ""
    interval: bool = False
    bounds: tuple[float, float] = (-math.inf, math.inf)
    curve: bool = False
    total: str = ""
    exploit: bool = False

    def __post_init__(self) -> None:
        if self.kind not in METRIC_KINDS:
            raise unknown_name("kind of metric", self.kind, METRIC_KINDS)
        if self.interval and self.kind not in ("mean", "rate"):
            raise ValueError(f"metric {self.name!r}: only a mean over episodes and a rate have intervals")

    @property
    def aggregate(self) -> str:
        """Its name in an evaluation's aggregate."""
        return f"mean_{self.name}" if self.kind in ("mean", "finite_mean") else self.name

    @property
    def is_percentage(self) -> bool:
        """Whether its average lies in [0, 1] and reads best as a percentage."""
        return self.kind in ("rate", "share")

    @property
    def title(self) -> str:
        """Its label without the unit, for pictures."""
        return (self.label or self.name.replace("_", " ").capitalize()).split(" [")[0]

    @property
    def axis(self) -> str:
        """What an axis that shows it says."""
        return self.unit or {"rate": "share of episodes", "share": "share of steps"}.get(self.kind, "")

    def weighted(self, values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return what is averaged of episodes ``[N]`` of ``lengths`` steps ``[N]`` with its weights, ``[N, 2]``."""
        weights = np.ones(len(values))
        if self.kind in ("step_mean", "share"):
            weights = lengths
        elif self.kind == "rate":
            # However often it happened; a part is the share of an environment's egos to which it did.
            values = np.where(values > 0, np.minimum(values, 1.0), 0.0)
        elif self.kind == "finite_mean":
            weights = np.isfinite(values).astype(np.float64)
            values = np.where(weights > 0, values, 0.0)
        return np.stack([values, weights], axis=-1).astype(np.float64)

    def average(self, values: np.ndarray, lengths: np.ndarray) -> float:
        """Return the average over episodes ``[N]`` of ``lengths`` steps ``[N]``, as its kind says; NaN over nothing."""
        return float(weighted_mean(self.weighted(values, lengths)))

    def write(self, value: float) -> str:
        """Return an average as text."""
        return (self.form or METRIC_KINDS[self.kind]).format(value)


BASE_METRICS: tuple[Metric, ...] = (
    Metric("return", "return", label="Mean return", unit="reward", better="high", interval=True, curve=True),
    Metric("length", "length", label="Mean episode length [steps]", unit="steps", form="{:.1f}", curve=True),
)
"""What every world reports; a world's own metrics follow."""
