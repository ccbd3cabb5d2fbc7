"""The T-maze as :class:`racer.envs.world.World`."""

from __future__ import annotations

from collections.abc import Mapping

from racer.core.config import sentences
from racer.core.drawing import GREEN, RED
from racer.envs.metric import BASE_METRICS, Metric
from racer.envs.tmaze.config import TMazeConfig, resolve_config
from racer.envs.tmaze.env import TMazeEnv
from racer.envs.tmaze.functional import functional_tmaze
from racer.envs.tmaze.replay import REPLAY
from racer.envs.tmaze.vector import TMazeVectorEnv
from racer.envs.world import Film, World

__all__ = ["WORLD"]


def _end_reason(metrics: Mapping[str, float], terminated: bool) -> str:
    if not terminated:
        return "time_limit"
    return "right_turn" if metrics["success"] > 0 else "wrong_turn"


WORLD = World(
    name="tmaze",
    resolve=resolve_config,
    make=lambda config, num_envs: TMazeVectorEnv(num_envs, config),
    sentences=sentences(TMazeConfig),
    metrics=(
        *BASE_METRICS,
        Metric(
            "discounted_return", "discounted_return", label="Mean discounted return", unit="reward", better="high",
            interval=True, curve=True,
        ),
        Metric("success", "success_rate", "rate", label="Right turns", better="high", interval=True, curve=True),
        Metric("wrong_turn", "wrong_turn_rate", "rate", label="Wrong turns", better="low"),
    ),
    end_reason=_end_reason,
    replay=REPLAY,
    film=Film(
        make=lambda config: TMazeEnv(config, render_mode="rgb_array_list"),
        clock=lambda config: (1.0 / TMazeEnv.metadata["render_fps"], int(config["max_episode_steps"])),
        ends={"right_turn": ("RIGHT TURN", GREEN), "wrong_turn": ("WRONG TURN", RED)},
    ),
    functional=functional_tmaze,
    # From the sign at the start to the junction.
    remembered_steps=lambda config: int(config["length"]) + 1,
    number_key="length",
    variants={"perfect_memory": {"observation": "perfect_memory"}, "action_concat": {"previous_action": True}},
)
