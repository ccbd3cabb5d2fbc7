"""A small, sparse highway with a harsh collision penalty: which risk level drives best?

The world and the learner of a published study of RACER on highway-fast-v0: 10 vehicles, of which 8 rows are seen, raw
rewards of highway-env (-10 for a collision, 0.1 for the right lane, 0.5 for speeds from 10 to 40 m/s), the road's edge
ends the episode and costs 2. The program ``benchmarks/study.py`` trains and compares its rows.

    --config scripts/sim/configs/highway_study_config.py                          the CVaR actor-critic
    --config scripts/sim/configs/highway_study_config.py --config.cvar_risk=0.5   at another risk level
    --config scripts/sim/configs/highway_study_config.py:sac                      SAC
    --config scripts/sim/configs/highway_study_config.py:house                    this house's own learner
"""

import runpy
from pathlib import Path

import ml_collections

from racer.envs.highway.presets import environment_config

_AGENTS = {
    "cvar": "highway_distributional_config.py",
    "house": "highway_distributional_config.py",
    "sac": "highway_sac_config.py",
}


def get_config(agent: str = "cvar") -> ml_collections.ConfigDict:
    """Return the configuration of ``agent``: "cvar" and "sac" learn as in the study, "house" as this house does."""
    if agent not in _AGENTS:
        raise ValueError(f"highway_study_config.py knows the agents {', '.join(_AGENTS)}, not {agent!r}")
    config = runpy.run_path(str(Path(__file__).with_name(_AGENTS[agent])))["get_config"]()
    if agent == "house":
        # Returns here lie between a crash at once and twenty seconds at the best reward.
        config.num_atoms, config.q_min, config.q_max = 151, -40.0, 80.0
    else:
        _as_in_the_study(config, agent)
    _set_world(config)
    return config


def _as_in_the_study(config: ml_collections.ConfigDict, agent: str) -> None:
    config.target_entropy = -2.0
    # At a first temperature of 1 the entropy outweighs what a faster car earns for most of the short runs.
    config.init_temperature = 0.1
    config.policy_steps = 4
    # Speed is rewarded from 10 m/s on: nobody has to be pushed.
    config.initial_action = {}
    config.view = config.controller = None
    config.encoder = {"kind": "pointnet", "widths": (128,)}
    config.observation_scale = (1.0, 0.03, 0.25, 0.1, 0.25, 8.0)
    config.lr_schedule, config.final_lr_fraction, config.average_actor = "constant", 0.0, False
    # The study does not say how wide; these fit the small world and two cores.
    config.actor_hidden_dims = (128, 128)
    config.critic_hidden_dims = (128, 128)
    if agent == "cvar":
        config.num_atoms = 151
        config.q_min, config.q_max = -40.0, 80.0
        config.q_entropy_target_diff = 0.5
        config.cvar_warmup_steps, config.risk_conditioned = 0, False
        config.learned_action = "steering"


def _set_world(config: ml_collections.ConfigDict) -> None:
    config.env = environment_config("highway-fast-v0")
    config.env.reward = "base"
    config.env.vehicles_count = 10
    config.env.observation.vehicles_count = 8
    config.env.vehicles_density = 0.75
    config.env.ego_spacing = 2.0
    config.env.collision_reward = -10.0
    config.env.right_lane_reward = 0.1
    config.env.high_speed_reward = 0.5
    config.env.reward_speed_range = (10.0, 40.0)
    config.env.offroad_penalty = -2.0
    config.env.simulation_frequency = 15
    config.env.policy_frequency = 5
    # Episodes of the study last up to 200 steps.
    config.env.duration = 40.0
