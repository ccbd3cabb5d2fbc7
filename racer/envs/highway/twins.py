"""Drop-in twins of highway-v0 and highway-fast-v0: the same episodes, from compiled code.

Importing this module is cheap; Numba and highway-env are loaded when the first environment is made.
"""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import register as register_id
from gymnasium.envs.registration import registry

__all__ = ["TWIN_IDS", "register"]

TWIN_IDS = {"racer/highway-v0": "Highway", "racer/highway-fast-v0": "HighwayFast"}


class VectorArguments(dict):
    """The ids' keyword arguments; hands ``wrappers`` and ``vector_kwargs`` of ``make_vec`` on to the entry point.

    ``gymnasium.make_vec`` refuses both where an id has a batched environment of its own, but takes them for
    highway-env's ids, which have none. It looks each up here first, with what its caller gave as the default.
    """

    batched = False

    def pop(self, key: Any, *default: Any) -> Any:
        value = super().pop(key, *default)
        if key == "vectorization_mode":
            self.batched = value is None or getattr(value, "value", value) == "vector_entry_point"
        if key in ("wrappers", "vector_kwargs") and self.batched and value:
            self[key] = value
            return type(value)()
        return value

    def copy(self) -> VectorArguments:
        return VectorArguments(self)


def register() -> None:
    """Register ``racer/highway-v0`` and ``racer/highway-fast-v0``; calling it again changes nothing."""
    for env_id, name in TWIN_IDS.items():
        if env_id not in registry:
            register_id(
                id=env_id,
                entry_point=f"racer.envs.highway.twin_env:{name}Twin",
                vector_entry_point=f"racer.envs.highway.twin_vector_env:make_{'fast_' if 'Fast' in name else ''}vector",
            )
            registry[env_id].kwargs = VectorArguments(registry[env_id].kwargs)
