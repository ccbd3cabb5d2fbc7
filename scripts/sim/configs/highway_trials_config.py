"""Trial mode: PPO with a memory over whole episodes, K attempts at one scene each.

Every key can be overridden on the command line: ``--config.env.scene=courteous``. An episode has K * L steps, and so
has a rollout: one episode a row. Where K or L is changed, ``rollout_length`` is to be K * L again (smaller ones train
too, with the memory carried from rollout to rollout).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_collections
from ml_collections import config_dict

from racer.agents.ppo import PPOConfig
from racer.envs.registry import get_world

# What differs from the agent's defaults (racer/agents/ppo.py says what each key means).
AGENT: dict[str, Any] = {
    # K * L of the hidden lane
    "rollout_length": 480,
    "num_epochs": 4,
    # With a memory a minibatch holds whole rows: the number of environments must divide by it.
    "num_minibatches": 4,
    "actor_lr": 6e-4,
    "critic_lr": 6e-4,
    "lr_schedule": "linear",
    "final_lr_fraction": 0.1,
    "discount": 0.99,
    "entropy_coef": 0.01,
    "target_kl": 0.05,
    "hidden_dims": (64,),
    "value_hidden_dims": (64,),
    "shared_trunk": True,
    # "gru", "transformer", or None for the policy without a memory that the study compares with
    "memory": {"kind": "gru", "size": 64},
}


def get_config() -> ml_collections.ConfigDict:
    """Return every key of the agent and of the world."""
    keys = {**dataclasses.asdict(PPOConfig()), **AGENT}
    config = ml_collections.ConfigDict(
        {name: config_dict.FieldReference(value, field_type=object) for name, value in keys.items()}
    )
    config.model_cls = "PPOLearner"
    config.world = "trials"
    env = get_world("trials").resolve({"k_scenarios": 4})
    config.env = ml_collections.ConfigDict(
        {name: config_dict.FieldReference(value, field_type=object) for name, value in env.items()}
    )
    return config
