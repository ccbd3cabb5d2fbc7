"""Risk-sensitive actor-critic with an ensemble of categorical critics and a learned action limit (RACER)."""

from racer.agents.distributional_sac.config import DistributionalSACConfig
from racer.agents.distributional_sac.learner import DistributionalSACLearner

__all__ = ["DistributionalSACConfig", "DistributionalSACLearner"]
