"""What the agents refuse at the door, and the configuration files of the scripts against the dataclasses."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from racer.agents import agent_class, agent_config, agent_names, agent_settings
from racer.agents.protocol import REPLAY, Learner
from racer.core.config import from_mapping
from racer.core.errors import UsageError

CONFIGS = Path(__file__).parents[2] / "scripts" / "sim" / "configs"
OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (12,), np.float32)
ROWS = gym.spaces.Box(-1.0, 1.0, (2, 6), np.float32)
ACTIONS = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
NAMES = ("acceleration", "steering")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("cvar_risk", 1.5, "'cvar_risk' must be a finite number at least 0"),
        ("cvar_risk", -0.1, "'cvar_risk' must be a finite number at least 0"),
        ("cvar_limits", 2.0, "'cvar_limits' must be"),
        ("cvar_limits", "cvar_riks", "did you mean 'cvar_risk'"),
        ("discount", 0.0, "'discount' must be"),
        ("discount", 1.01, "'discount' must be"),
        ("tau", 0.0, "'tau' must be"),
        ("actor_lr", float("nan"), "'actor_lr' must be"),
        ("critic_lr", float("inf"), "'critic_lr' must be"),
        ("temp_lr", "fast", "'temp_lr' must be a finite number"),
        ("init_temperature", 0.0, "'init_temperature'"),
        ("num_atoms", 1, "'num_atoms' must be a whole number at least 2"),
        ("num_qs", 2.5, "'num_qs' must be a whole number"),
        ("q_max", -60.0, "q_min must lie below q_max"),
        ("critic_layer_norm", 1, "'critic_layer_norm' must be True or False"),
        ("actor_hidden_dims", (), "actor_hidden_dims"),
        ("critic_hidden_dims", (256, 0), "critic_hidden_dims"),
        ("observation_scale", (1.0, 2.0), "observation_scale has 2 values"),
        ("observation_scale", -1.0, "observation_scale"),
        ("encoder", "pointnett", "did you mean 'pointnet'"),
        ("encoder", {"kind": "pointnet", "width": [4]}, "did you mean 'widths'"),
        ("memory", "gru", "has no memory"),
        ("view", "lane_slots", "names no world"),
        ("learned_action", "steer", "did you mean 'steering'"),
        ("learned_action_initial_limit", 1.2, "must lie in"),
        ("learned_action_limit_kind", "uper", "did you mean 'upper'"),
        ("cvar_rsk", 0.5, "unknown DistributionalSACLearner config key 'cvar_rsk'; did you mean 'cvar_risk'"),
    ],
)
def test_wrong_values_are_named(key: str, value: Any, message: str) -> None:
    config = {"encoder": {"kind": "pointnet", "widths": [4]}, "learned_action": "steering", key: value}
    with pytest.raises(UsageError, match=message):
        agent_class("DistributionalSACLearner").create(0, ROWS, ACTIONS, action_names=NAMES, **config)


@pytest.mark.parametrize("name", ["DistributionalSACLearner", "SACLearner"])
@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (OBSERVATIONS, gym.spaces.Discrete(3), "continuous.*Discrete"),
        (OBSERVATIONS, gym.spaces.Box(-np.inf, 1.0, (2,), np.float32), "bounded"),
        (OBSERVATIONS, gym.spaces.Box(-1.0, 1.0, (2, 2), np.float32), r"\(2, 2\)"),
        (gym.spaces.Box(0, 255, (8, 8, 3), np.uint8), ACTIONS, "numbers"),
        (gym.spaces.Dict({}), ACTIONS, "numbers"),
        (gym.spaces.Discrete(4), ACTIONS, "numbers"),
    ],
)
def test_unsupported_spaces_are_named(name: str, observations: Any, actions: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        agent_class(name).create(0, observations, actions)


@pytest.mark.parametrize("seed", [-1, 0.5, True, 2**32])
def test_seeds_are_checked(seed: Any) -> None:
    with pytest.raises(UsageError, match="seed"):
        agent_class("SACLearner").create(seed, OBSERVATIONS, ACTIONS)


def test_an_action_cannot_be_addressed_by_name_where_none_is_named() -> None:
    create = agent_class("DistributionalSACLearner").create
    with pytest.raises(UsageError, match="have none"):
        create(0, OBSERVATIONS, ACTIONS, learned_action="steering")
    skew = gym.spaces.Box(-1.0, 2.0, (2,), np.float32)
    limit = {"learned_action": "steering", "learned_action_limit_kind": "symmetric"}
    with pytest.raises(UsageError, match="symmetric range"):
        create(0, OBSERVATIONS, skew, action_names=NAMES, **limit)
    with pytest.raises(UsageError, match="action_names"):
        agent_class("SACLearner").create(0, OBSERVATIONS, ACTIONS, action_names=("steering",))


def test_batches_are_checked(make_agent: Callable[..., Any], make_batch: Callable[..., Any]) -> None:
    agent, batch = make_agent(), make_batch()
    with pytest.raises(UsageError, match="16 rows does not divide into utd_ratio=3"):
        agent.update(batch, 3)
    with pytest.raises(UsageError, match="lacks: masks"):
        agent.update({name: x for name, x in batch.items() if name != "masks"}, 2)
    with pytest.raises(UsageError, match=r"'actions' must have shape \[16, 2\], got \[16, 3\]"):
        agent.update({**batch, "actions": np.zeros((16, 3), np.float32)}, 2)
    with pytest.raises(UsageError, match="utd_ratio must be a positive integer"):
        agent.update(batch, 0)


def test_sac_keys_are_checked() -> None:
    with pytest.raises(UsageError, match=r"num_min_qs must lie in \[1, num_qs=2\]"):
        from_mapping(agent_config("SACLearner"), {"num_min_qs": 3}, "SACLearner")


def test_agents_are_found_by_name_or_path() -> None:
    with pytest.raises(UsageError, match="'SACLerner'; did you mean 'SACLearner'"):
        agent_class("SACLerner")
    assert agent_class("racer.agents.sac:SACLearner") is agent_class("SACLearner")
    assert agent_config("racer.agents.sac:SACLearner") is agent_config("SACLearner")
    with pytest.raises(UsageError, match="cannot import"):
        agent_class("racer.no_such_module:Agent")
    with pytest.raises(UsageError, match="did you mean 'SACLearner'"):
        agent_class("racer.agents.sac:SACLeaner")
    assert {"DistributionalSACLearner", "SACLearner", "PPOLearner"} == set(agent_names())
    assert agent_class("cvar").__name__ == "DistributionalSACLearner"
    assert agent_class("ppo").__name__ == "PPOLearner"
    with pytest.raises(UsageError, match="did you mean 'sac'"):
        agent_class("sacc")
    assert agent_settings("sac", {"tau": 0.01}) == dataclasses.asdict(agent_config("SACLearner")(tau=0.01))
    with pytest.raises(UsageError, match="did you mean 'tau'"):
        agent_settings("sac", {"taau": 0.01})


@pytest.mark.parametrize("name", ["DistributionalSACLearner", "SACLearner"])
def test_learners_keep_the_protocol(name: str) -> None:
    agent = agent_class(name).create(
        0, OBSERVATIONS, ACTIONS, action_names=NAMES, actor_hidden_dims=[4], critic_hidden_dims=[4]
    )
    assert isinstance(agent, Learner)
    assert agent.wants == REPLAY


FITTED: dict[str, Any] = {
    "observation_scale": (1.0, 0.03, 0.25, 0.1, 0.25, 8.0), "initial_action": {"acceleration": 0.5},
    "noise_correlation": 0.85,
}  # fmt: skip
FITTED_DISTRIBUTIONAL: dict[str, Any] = {
    "noise_correlation": 0.85, "target_entropy": -2.0, "init_temperature": 0.1, "policy_steps": 4,
    "actor_hidden_dims": (128, 128), "critic_hidden_dims": (128, 128), "learned_action_initial_limit": 0.1,
    "learned_action": "none", "limits_lr": 2.5e-6, "cvar_warmup_steps": 20_000, "q_entropy_target_diff": None,
    "lr_schedule": "linear", "final_lr_fraction": 0.1, "encoder": {"kind": "attention"}, "controller": "targets",
    "observation_scale": (1.0, 0.03, 0.25, 0.1, 0.25, 8.0), "average_actor": True,
    "initial_action": {"target_speed": 0.5}, "risk_conditioned": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "fitted"),
    [
        ("highway_distributional_config.py", FITTED_DISTRIBUTIONAL),
        ("highway_sac_config.py", {**FITTED, "target_entropy": -4.0}),
    ],
)
def test_configuration_files_show_every_key(file: str, fitted: dict[str, Any]) -> None:
    """At its default, but for those that are fitted to the highway."""
    spec = importlib.util.spec_from_file_location("config_under_test", CONFIGS / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = module.get_config().to_dict()
    config_class = agent_config(values["model_cls"])
    fields = {field.name for field in dataclasses.fields(config_class)}
    assert set(values) - {"model_cls", "env", "safety_penalty"} == fields
    shown = from_mapping(config_class, {name: values[name] for name in fields}, values["model_cls"])
    assert shown == config_class(**fitted)


@pytest.mark.parametrize("name", agent_names())
def test_every_key_is_documented_and_hashable_configurations_are_equal(name: str) -> None:
    config_class = agent_config(name)
    assert all(field.metadata.get("doc") for field in dataclasses.fields(config_class))
    assert config_class() == config_class()
