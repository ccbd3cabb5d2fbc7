"""Agents by name. Everything is imported on demand, so that looking a name up costs no JAX."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from racer.core.config import from_mapping
from racer.core.errors import UsageError, shown, unknown_name
from racer.core.trust import import_named

__all__ = [
    "agent_class",
    "agent_config",
    "agent_names",
    "agent_settings",
    "agents_described",
    "check_num_envs",
    "check_utd_ratio",
    "fitted_settings",
    "full_name",
]

_AGENTS: dict[str, str] = {
    "DistributionalSACLearner": "racer.agents.distributional_sac",
    "PPOLearner": "racer.agents.ppo",
    "SACLearner": "racer.agents.sac",
}
_SHORT = {"cvar": "DistributionalSACLearner", "ppo": "PPOLearner", "sac": "SACLearner"}
_ABOUT = {
    "cvar": "distributional soft actor-critic that maximises the CVaR of its return",
    "ppo": "proximal policy optimization",
    "sac": "soft actor-critic",
}


def agents_described() -> dict[str, str]:
    """Return what each agent is, in a line, by what a person types for it; none of them is imported."""
    own = {name: f"{about} ({_SHORT[name]})" for name, about in _ABOUT.items()}
    return {**own, "package.module:Class": "an agent of your own"}


def agent_names() -> tuple[str, ...]:
    """Return the names of the built-in agents, sorted."""
    return tuple(sorted(_AGENTS))


def full_name(name: str) -> str:
    """Return the class name that a short name ("ppo", "sac", "cvar") stands for; other names come back as they are."""
    return _SHORT.get(name, name)


def agent_class(name: str) -> type[Any]:
    """Return the learner class called ``name``, a :class:`racer.agents.protocol.Learner` with the verb ``create``.

    Args:
        name: a built-in name (:func:`agent_names`) or its short form, or ``package.module:Class`` for an agent of one's
            own. A class that knows the jaxrl verbs alone is given the others by an adapter.

    Raises:
        UsageError: no such agent; the message names the nearest one. Or nobody named its code
            (:func:`racer.core.trust.name_code`).
    """
    if not isinstance(name, str):
        raise UsageError(f"an agent (model_cls) is given by its name, not {shown(name)}")
    if ":" in name:
        found = _imported(name)
        if hasattr(found, "wants"):
            return found
        from racer.agents.foreign import adapted

        return adapted(found, name)
    if full_name(name) not in _AGENTS:
        raise unknown_name("agent (model_cls)", name, [*_AGENTS, *_SHORT])
    return getattr(importlib.import_module(_AGENTS[full_name(name)]), full_name(name))


def agent_config(name: str) -> type[Any] | None:
    """Return the configuration dataclass of the agent called ``name``; None where it has none (a foreign one).

    Raises:
        UsageError: no such agent.
    """
    return getattr(agent_class(name), "config_class", None)


def agent_settings(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole configuration of an agent, defaults included, after checking it.

    Raises:
        UsageError: no such agent, a key that it does not have (with the nearest one), or a value out of range.
    """
    found = agent_class(name)
    if getattr(found, "config_class", None) is None:
        return dict(found.checked_settings(values))
    return dataclasses.asdict(from_mapping(found.config_class, values, f"config key of {name}"))


def fitted_settings(name: str, settings: Mapping[str, Any], transitions: int, gradient_steps: int) -> dict[str, Any]:
    """Return an agent's whole configuration with what follows from the length of its run filled in.

    See :meth:`racer.agents.learner.AgentConfig.fitted`.
    """
    config = agent_config(name)
    if config is None or not hasattr(config, "fitted"):
        return dict(settings)
    values = from_mapping(config, settings, f"config key of {name}")
    return dataclasses.asdict(values.fitted(transitions, gradient_steps))


def check_utd_ratio(name: str, settings: Mapping[str, Any], utd_ratio: int) -> None:
    """Refuse a number of gradient steps an update that an agent of these settings cannot learn with.

    See :meth:`racer.agents.learner.AgentConfig.check_utd_ratio`.
    """
    config = agent_config(name)
    if config is not None and hasattr(config, "check_utd_ratio"):
        from_mapping(config, settings, f"config key of {name}").check_utd_ratio(utd_ratio)


def check_num_envs(name: str, settings: Mapping[str, Any], num_envs: int) -> None:
    """Refuse a number of environments that an agent of these settings cannot learn from, before it is built.

    See :meth:`racer.agents.learner.AgentConfig.check_num_envs`.
    """
    config = agent_config(name)
    if config is not None and hasattr(config, "check_num_envs"):
        from_mapping(config, settings, f"config key of {name}").check_num_envs(num_envs)


def _imported(path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise UsageError(f"agent {shown(path)} must be written package.module:Class")
    try:
        module = import_named("agent", path, module_name)
    except ImportError as error:
        raise UsageError(f"agent {path!r}: cannot import module {module_name!r} ({error})") from error
    if not hasattr(module, attribute):
        raise unknown_name(f"agent in module {module_name!r}", attribute, dir(module))
    found = getattr(module, attribute)
    if not isinstance(found, type):
        raise UsageError(f"agent {path!r} is no class, but a {type(found).__name__}")
    return found
