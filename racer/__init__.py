"""RACER: risk-sensitive driving policies, trained by many workers and one learner."""

__version__ = "0.1.0"
