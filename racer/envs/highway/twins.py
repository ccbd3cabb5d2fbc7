"""Drop-in twins of highway-v0 and highway-fast-v0: the same episodes, from compiled code.

Importing this module is cheap; Numba is loaded when the first environment is made.
"""

from __future__ import annotations

from gymnasium.envs.registration import register as register_id
from gymnasium.envs.registration import registry

__all__ = ["TWIN_IDS", "register"]

TWIN_IDS = {"racer/highway-v0": "Highway", "racer/highway-fast-v0": "HighwayFast"}


def register() -> None:
    """Register ``racer/highway-v0`` and ``racer/highway-fast-v0``; calling it again changes nothing."""
    for env_id, name in TWIN_IDS.items():
        if env_id not in registry:
            register_id(
                id=env_id,
                entry_point=f"racer.envs.highway.twin_env:{name}Twin",
                vector_entry_point=f"racer.envs.highway.twin_vector_env:{name}VectorTwin",
            )
