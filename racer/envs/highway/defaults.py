"""highway-env's own defaults for its two highways (highway_env/envs/highway_env.py, ``default_config``).

They are written out so that a worker on the compiled engine never has to import highway-env (pygame, pandas); a test
compares them with the library's.
"""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["FAST_DEFAULTS", "HIGHWAY_DEFAULTS", "highway_defaults"]

HIGHWAY_DEFAULTS: dict[str, Any] = {
    "observation": {"type": "Kinematics"},
    "action": {"type": "DiscreteMetaAction"},
    "simulation_frequency": 15,
    "policy_frequency": 1,
    "other_vehicles_type": "highway_env.vehicle.behavior.IDMVehicle",
    "screen_width": 600,
    "screen_height": 150,
    "centering_position": [0.3, 0.5],
    "scaling": 5.5,
    "show_trajectories": False,
    "render_agent": True,
    "offscreen_rendering": None,
    "manual_control": False,
    "real_time_rendering": False,
    "neighbour_vehicles_connected_lanes": False,
    "lanes_count": 4,
    "vehicles_count": 50,
    "controlled_vehicles": 1,
    "initial_lane_id": None,
    "duration": 40,
    "ego_spacing": 2,
    "vehicles_density": 1,
    "collision_reward": -1,
    "right_lane_reward": 0.1,
    "high_speed_reward": 0.4,
    "lane_change_reward": 0,
    "reward_speed_range": [20, 30],
    "normalize_reward": True,
    "offroad_terminal": False,
}
FAST_DEFAULTS: dict[str, Any] = {
    **HIGHWAY_DEFAULTS,
    "simulation_frequency": 5,
    "lanes_count": 3,
    "vehicles_count": 20,
    "duration": 30,
    "ego_spacing": 1.5,
}


def highway_defaults(fast: bool) -> dict[str, Any]:
    """Return highway-fast-v0's or highway-v0's default configuration, as a copy of its own."""
    return copy.deepcopy(FAST_DEFAULTS if fast else HIGHWAY_DEFAULTS)
