"""Learning algorithms behind one protocol. Importing this package does not import JAX."""

from racer.agents.registry import agent_class, agent_config, agent_names, agent_settings

__all__ = ["agent_class", "agent_config", "agent_names", "agent_settings"]
