"""The worlds, as gymnasium environments. Importing this package registers their ids; it imports no JAX."""

from racer.envs.highway import register_highway
from racer.envs.highway.twins import register as register_twins
from racer.envs.lateral import register_lateral
from racer.envs.tmaze import register_tmaze
from racer.envs.trials import register_trials

register_highway()
register_twins()
register_tmaze()
register_lateral()
register_trials()
