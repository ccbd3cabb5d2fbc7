"""The T-maze: a bit that is seen once decides which way to turn at the end of a corridor. ``racer/TMaze-v0``."""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

__all__ = ["ENV_ID", "register_tmaze"]

ENV_ID = "racer/TMaze-v0"


def register_tmaze() -> None:
    """Make the id known to gymnasium; calling it again changes nothing."""
    if ENV_ID not in registry:
        register(
            id=ENV_ID,
            entry_point="racer.envs.tmaze.env:TMazeEnv",
            vector_entry_point="racer.envs.tmaze.vector:TMazeVectorEnv",
        )
