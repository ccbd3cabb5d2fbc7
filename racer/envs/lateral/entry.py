"""Lateral control as :class:`racer.envs.world.World`."""

from __future__ import annotations

from racer.core.config import sentences
from racer.envs.lateral.config import LateralConfig, resolve_config
from racer.envs.lateral.drivers import DRIVERS
from racer.envs.lateral.env import LateralControlEnv
from racer.envs.lateral.replay import REPLAY
from racer.envs.lateral.rules import STEP
from racer.envs.lateral.vector import VectorizedLateralControlEnv
from racer.envs.lateral.views import VIEWS
from racer.envs.metric import BASE_METRICS, Metric
from racer.envs.world import Film, World

__all__ = ["WORLD"]

WORLD = World(
    name="lateral",
    resolve=resolve_config,
    make=lambda config, num_envs: VectorizedLateralControlEnv(num_envs, config),
    sentences=sentences(LateralConfig),
    metrics=(
        *BASE_METRICS,
        Metric("total_cost", "total_cost", label="Mean total cost", better="low", interval=True, curve=True),
        Metric("lataccel_cost", "lataccel_cost", label="Mean lataccel cost", better="low", interval=True),
        Metric("jerk_cost", "jerk_cost", label="Mean jerk cost", better="low", interval=True),
    ),
    action_names=lambda config: (config["action"],),
    views=VIEWS,
    drivers=DRIVERS,
    driver_config={"action": "steer"},
    held_out=lambda config: {**config, "split": "validation"} if config["split"] == "train" else config,
    replay=REPLAY,
    film=Film(
        make=lambda config: LateralControlEnv(config, render_mode="rgb_array_list"),
        clock=lambda config: (STEP, int(config["max_steps"])),
    ),
)
