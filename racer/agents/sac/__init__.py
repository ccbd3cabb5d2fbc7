"""Soft actor-critic with an ensemble of scalar critics: the risk-neutral comparison."""

from racer.agents.sac.config import SACConfig
from racer.agents.sac.learner import SACLearner

__all__ = ["SACConfig", "SACLearner"]
