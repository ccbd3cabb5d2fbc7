"""highway-env's straight highway as compiled code: the same trajectories, bit for bit, many scenes a call."""

from racer.envs.highway.simulator.config import Observation
from racer.envs.highway.simulator.simulator import HighwaySimulator

__all__ = ["HighwaySimulator", "Observation"]
