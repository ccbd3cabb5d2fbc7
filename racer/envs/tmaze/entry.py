"""The T-maze as :class:`racer.envs.registry.World`."""

from __future__ import annotations

from collections.abc import Mapping

from racer.envs.registry import BASE_METRICS, Metric, World
from racer.envs.tmaze.config import resolve_config
from racer.envs.tmaze.functional import functional_tmaze
from racer.envs.tmaze.vector import TMazeVectorEnv

__all__ = ["WORLD"]


def _end_reason(metrics: Mapping[str, float], terminated: bool) -> str:
    if not terminated:
        return "time_limit"
    return "right_turn" if metrics["success"] > 0 else "wrong_turn"


WORLD = World(
    name="tmaze",
    resolve=resolve_config,
    make=lambda config, num_envs: TMazeVectorEnv(num_envs, config),
    metrics=(
        *BASE_METRICS,
        Metric("discounted_return", "discounted_return", label="Mean discounted return", unit="reward", better="high"),
        Metric("success", "success_rate", "rate", label="Right turns", better="high"),
        Metric("wrong_turn", "wrong_turn_rate", "rate", label="Wrong turns", better="low"),
    ),
    end_reason=_end_reason,
    functional=functional_tmaze,
)
