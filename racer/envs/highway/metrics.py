"""What an episode on the highway is judged by: an entry for each number of ``episode_metrics``, in the order of tables.

The shares of reverse driving, spinning and standing still are there because continuous control of highway-env is known
to be exploited that way: a return alone would not show it.
"""

from __future__ import annotations

from collections.abc import Mapping

from racer.envs.metric import BASE_METRICS, Metric

__all__ = ["METRICS", "TRADE_OFFS", "end_reason"]

METRICS: tuple[Metric, ...] = (
    *BASE_METRICS,
    Metric("base_return", "base_return", better="high"),
    Metric("success", "success_rate", "rate", "Success rate", better="high"),
    Metric("crashed", "collision_rate", "rate", "Collision rate", better="low", interval=True, curve=True,
           total="collisions"),
    Metric("off_road", "off_road_rate", "rate", "Off-road rate", better="low"),
    Metric("violation_rate", "safety_violation_rate", "share", "Safety violation rate (steps)", better="low",
           curve=True),
    # Infinite where no vehicle was ever observed.
    Metric("min_distance", "min_distance", "finite_mean", "Mean minimum distance [m]", "m", better="high"),
    Metric("mean_speed", "mean_ego_speed", "step_mean", "Mean ego speed [m/s]", "m/s"),
    Metric("mean_forward_speed", "mean_forward_speed", "step_mean", "Mean forward speed [m/s]", "m/s", better="high",
           curve=True),
    Metric("mean_safety_reward", "mean_safety_reward", "step_mean", better="high"),
    Metric("reverse_share", "reverse_share", "share", "Driving backwards (steps)", better="low", exploit=True),
    Metric("spin_share", "spin_share", "share", "Spinning (steps)", better="low", exploit=True),
    Metric("standstill_share", "standstill_share", "share", "Standing still (steps)", better="low", exploit=True),
)  # fmt: skip

TRADE_OFFS = (("collision_rate", "mean_forward_speed"), ("success_rate", "mean_forward_speed"))
"""A policy that leaves the road early collides with nobody: success counts that as well."""


def end_reason(metrics: Mapping[str, float], terminated: bool) -> str:
    """Return why an episode ended: "collision", "off_road", "terminated" or "time_limit"."""
    if metrics["crashed"] > 0:
        return "collision"
    if terminated:
        return "off_road" if metrics["off_road"] > 0 else "terminated"
    return "time_limit"
