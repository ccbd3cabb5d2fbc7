"""Agents by name. Everything is imported on demand, so that looking a name up costs no JAX."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from racer.core.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from racer.agents.protocol import Agent

__all__ = ["agent_class", "agent_config", "agent_names"]

_AGENTS: dict[str, tuple[str, str]] = {
    "DistributionalSACLearner": ("racer.agents.distributional_sac", "DistributionalSACConfig"),
    "PPOLearner": ("racer.agents.ppo", "PPOConfig"),
    "SACLearner": ("racer.agents.sac", "SACConfig"),
}


def agent_names() -> tuple[str, ...]:
    """Return the names of the built-in agents, sorted."""
    return tuple(sorted(_AGENTS))


def agent_class(name: str) -> type[Agent]:
    """Return the agent class called ``name``.

    Args:
        name: a built-in name (:func:`agent_names`), or ``package.module:Class`` for an agent of one's own.

    Raises:
        UsageError: no such agent; the message names the nearest one.
    """
    if ":" in name:
        return _import_attribute(name)
    if name not in _AGENTS:
        raise unknown_name("agent (model_cls)", name, _AGENTS)
    return getattr(importlib.import_module(_AGENTS[name][0]), name)


def agent_config(name: str) -> type[Any]:
    """Return the configuration dataclass of the agent called ``name``.

    A plug-in (``package.module:Class``) offers its own as the class attribute ``config_class``.

    Raises:
        UsageError: no such agent, or a plug-in without ``config_class``.
    """
    if ":" in name:
        found = getattr(_import_attribute(name), "config_class", None)
        if found is None:
            raise UsageError(f"agent {name!r} has no attribute 'config_class' (a frozen dataclass)")
        return found
    if name not in _AGENTS:
        raise unknown_name("agent (model_cls)", name, _AGENTS)
    module, config_name = _AGENTS[name]
    return getattr(importlib.import_module(f"{module}.config"), config_name)


def _import_attribute(path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f"agent {path!r}: cannot import module {module_name!r} ({error})") from error
    if not hasattr(module, attribute):
        raise unknown_name(f"agent in module {module_name!r}", attribute, dir(module))
    return getattr(module, attribute)
