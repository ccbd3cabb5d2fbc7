"""Trial mode: several attempts at one scene in one episode, with one memory. ``racer/HighwayTrials-v0``."""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

__all__ = ["ENV_ID", "register_trials"]

ENV_ID = "racer/HighwayTrials-v0"


def register_trials() -> None:
    """Make the id known to gymnasium; calling it again changes nothing."""
    if ENV_ID not in registry:
        register(
            id=ENV_ID,
            entry_point="racer.envs.trials.env:HighwayTrialsEnv",
            vector_entry_point="racer.envs.trials.vector:HighwayTrialsVectorEnv",
        )
