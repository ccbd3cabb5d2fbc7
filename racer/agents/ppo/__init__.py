"""Proximal policy optimization with a clipped objective and generalized advantage estimation."""

from racer.agents.ppo.config import PPOConfig
from racer.agents.ppo.learner import PPOLearner

__all__ = ["PPOConfig", "PPOLearner"]
