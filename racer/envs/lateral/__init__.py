"""Lateral control: follow a target lateral acceleration by steering, on a plant that may be a neural network.

``racer/LateralControl-v0``; the task is comma.ai's controls challenge v2.
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

__all__ = ["ENV_ID", "register_lateral"]

ENV_ID = "racer/LateralControl-v0"


def register_lateral() -> None:
    """Make the id known to gymnasium; calling it again changes nothing."""
    if ENV_ID not in registry:
        register(
            id=ENV_ID,
            entry_point="racer.envs.lateral.env:LateralControlEnv",
            vector_entry_point="racer.envs.lateral.vector:VectorizedLateralControlEnv",
        )
