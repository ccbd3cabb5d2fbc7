"""Learning algorithms behind one protocol, and the NumPy policies that act for them.

Importing this package, or :mod:`racer.agents.policy`, does not import JAX: worker processes only act.
"""

from racer.agents.registry import agent_class, agent_config, agent_names

__all__ = ["agent_class", "agent_config", "agent_names"]
