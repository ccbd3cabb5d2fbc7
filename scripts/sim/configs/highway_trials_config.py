"""Trial mode: PPO with a memory over whole episodes, K attempts at one scene each.

``highway_trials_config.py`` is the hidden lane, ``highway_trials_config.py:courteous`` the platoon. Every key can be
overridden on the command line: ``--config.memory.size=128``. A rollout of the hidden lane has as many steps as an
episode at most, K * L: where K, L or the rate of decisions is changed, ``rollout_length`` is to be K * L again. Smaller
ones train too, with the memory carried from rollout to rollout: the platoon's are one trial long. Gradients of 256
environments are worth their number: the program's ``--num_envs=256`` goes with these step sizes. The platoon is learnt
in stages of more and more types (docs/trials.md); this file is for all of them but the first.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_collections
from ml_collections import config_dict

from racer.agents.ppo import PPOConfig
from racer.core.errors import unknown_name
from racer.envs.registry import get_world
from racer.envs.trials.config import trials_config

# What differs from the world's defaults, by scene. Seldom decisions make what is tried out hold long enough to be paid,
# and an episode short for a memory. An episode that ends early is followed by the next one, not by limbo.
SCENES: dict[str, dict[str, Any]] = {
    "hidden_lane": {"policy_frequency": 1},
    # Who is paid over the last 60 m alone never finds the way into the platoon, which begins 500 m before.
    "courteous": {"policy_frequency": 3, "hold_length": 500.0, "hold_reward": 1.0, "crash_reward": -0.1},
}

# What differs from the agent's defaults (racer/agents/ppo.py says what each key means).
AGENT: dict[str, Any] = {
    # Many steps on each rollout: what is learnt, when to change the lane, is decided in few of its rows.
    "num_epochs": 6,
    # With a memory a minibatch holds whole rows: the number of environments must divide by it.
    "num_minibatches": 8,
    "actor_lr": 3e-3,
    "critic_lr": 3e-3,
    "lr_schedule": "linear",
    "final_lr_fraction": 0.1,
    "discount": 0.99,
    "entropy_coef": 0.003,
    "target_kl": 0.05,
    # left, idle, right, faster, slower: equal ones crash before the first goal
    "initial_choices": (0.05, 0.7, 0.05, 0.1, 0.1),
    "hidden_dims": (64,),
    "value_hidden_dims": (64,),
    "shared_trunk": True,
    # "gru", "transformer", or None for the policy without a memory that the study compares with. A transformer is to
    # remember a whole episode ("length": K * L), and learns with smaller steps: benchmarks/study.py has its settings.
    "memory": {"kind": "gru", "size": 64},
}

# What differs from these, by scene.
AGENTS: dict[str, dict[str, Any]] = {
    "hidden_lane": {},
    "courteous": {"entropy_coef": 0.01, "initial_choices": (0.02, 0.88, 0.03, 0.02, 0.05)},
}


def get_config(scene: str = "hidden_lane") -> ml_collections.ConfigDict:
    """Return every key of the agent and of the world.

    Args:
        scene: "hidden_lane" or "courteous".

    Raises:
        UsageError: another scene.
    """
    if scene not in SCENES:
        raise unknown_name("scene of the configuration", scene, SCENES)
    env = get_world("trials").resolve({"scene": scene, "k_scenarios": 4, "fill_window": False, **SCENES[scene]})
    trials = trials_config(env)
    rollout = {"rollout_length": trials.window if scene == "hidden_lane" else trials.length}
    config = _references({**dataclasses.asdict(PPOConfig()), **AGENT, **AGENTS[scene], **rollout})
    config.model_cls = "PPOLearner"
    config.world = "trials"
    config.env = _references(env)
    return config


def _references(keys: dict[str, Any]) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(
        {name: config_dict.FieldReference(value, field_type=object) for name, value in keys.items()}
    )
