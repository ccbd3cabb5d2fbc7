"""The highway worlds: ``racer/RiskHighway-v0`` and its engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register, registry

if TYPE_CHECKING:
    from racer.envs.highway.vector import RiskHighwayVectorEnv

__all__ = ["ENV_ID", "make_vector_env", "register_highway"]

ENV_ID = "racer/RiskHighway-v0"


def register_highway() -> None:
    """Make the ids of this package known to gymnasium; calling it again changes nothing."""
    if ENV_ID not in registry:
        register(
            id=ENV_ID,
            entry_point="racer.envs.highway.env:RiskHighwayEnv",
            vector_entry_point="racer.envs.highway.vector:RiskHighwayVectorEnv",
        )


def make_vector_env(config: Mapping[str, Any] | None, num_envs: int, **options: Any) -> RiskHighwayVectorEnv:
    """Build the batched environment without gymnasium's wrappers; ``options`` as for the class."""
    from racer.envs.highway.vector import RiskHighwayVectorEnv

    return RiskHighwayVectorEnv(num_envs=num_envs, config=config, **options)
