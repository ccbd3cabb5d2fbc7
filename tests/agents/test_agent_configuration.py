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

from racer.agents import agent_class, agent_config, agent_names
from racer.agents.protocol import Agent
from racer.agents.validation import config_from_mapping
from racer.core.errors import UsageError

CONFIGS = Path(__file__).parents[2] / "scripts" / "sim" / "configs"
OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (12,), np.float32)
ACTIONS = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
NAMES = ("acceleration", "steering")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("cvar_risk", 1.5, "cvar_risk must lie in"),
        ("cvar_risk", -0.1, "cvar_risk must lie in"),
        ("cvar_limits", 2.0, "cvar_limits must lie in"),
        ("cvar_limits", "cvar_riks", "did you mean 'cvar_risk'"),
        ("discount", 0.0, "discount must lie in"),
        ("discount", 1.01, "discount must lie in"),
        ("tau", 0.0, "tau must lie in"),
        ("actor_lr", float("nan"), "actor_lr must lie in"),
        ("critic_lr", float("inf"), "critic_lr must lie in"),
        ("temp_lr", "fast", "temp_lr must be a number"),
        ("init_temperature", 0.0, "init_temperature"),
        ("num_atoms", 1, "num_atoms must lie in"),
        ("num_qs", 2.5, "num_qs must be int"),
        ("q_max", -60.0, "q_min must lie below q_max"),
        ("critic_layer_norm", 1, "critic_layer_norm must be bool"),
        ("actor_hidden_dims", (), "actor_hidden_dims"),
        ("critic_hidden_dims", (256, 0), "critic_hidden_dims"),
        ("observation_scale", (1.0, 2.0), "vehicle_features is 6"),
        ("observation_scale", -1.0, "observation_scale"),
        ("vehicle_features", 5, "do not divide"),
        ("learned_action", "steer", "did you mean 'steering'"),
        ("learned_action_initial_limit", 1.2, "must lie in"),
        ("learned_action_limit_kind", "uper", "did you mean 'upper'"),
        ("cvar_rsk", 0.5, "unknown DistributionalSACLearner config key 'cvar_rsk'; did you mean 'cvar_risk'"),
    ],
)
def test_wrong_values_are_named(key: str, value: Any, message: str) -> None:
    config = {"pointnet_dims": (4,), key: value}
    with pytest.raises(UsageError, match=message):
        agent_class("DistributionalSACLearner").create(0, OBSERVATIONS, ACTIONS, action_names=NAMES, **config)


@pytest.mark.parametrize("name", ["DistributionalSACLearner", "SACLearner"])
@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (OBSERVATIONS, gym.spaces.Discrete(3), "continuous.*Discrete"),
        (OBSERVATIONS, gym.spaces.Box(-np.inf, 1.0, (2,), np.float32), "bounded"),
        (OBSERVATIONS, gym.spaces.Box(-1.0, 1.0, (2, 2), np.float32), r"\(2, 2\)"),
        (gym.spaces.Box(0, 255, (8, 8), np.uint8), ACTIONS, "flat"),
        (gym.spaces.Dict({}), ACTIONS, "flat"),
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
    with pytest.raises(UsageError, match="names none"):
        agent_class("DistributionalSACLearner").create(0, OBSERVATIONS, ACTIONS)
    with pytest.raises(UsageError, match="symmetric range"):
        agent_class("DistributionalSACLearner").create(
            0, OBSERVATIONS, gym.spaces.Box(-1.0, 2.0, (2,), np.float32), action_names=NAMES
        )
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
        config_from_mapping(agent_config("SACLearner"), {"num_min_qs": 3}, "SACLearner")


def test_agents_are_found_by_name_or_path() -> None:
    with pytest.raises(UsageError, match="'SACLerner'; did you mean 'SACLearner'"):
        agent_class("SACLerner")
    assert agent_class("racer.agents.sac:SACLearner") is agent_class("SACLearner")
    assert agent_config("racer.agents.sac:SACLearner") is agent_config("SACLearner")
    with pytest.raises(UsageError, match="cannot import"):
        agent_class("racer.no_such_module:Agent")
    with pytest.raises(UsageError, match="did you mean 'SACLearner'"):
        agent_class("racer.agents.sac:SACLeaner")
    assert {"DistributionalSACLearner", "SACLearner"} <= set(agent_names())


@pytest.mark.parametrize("name", ["DistributionalSACLearner", "SACLearner"])
def test_learners_keep_the_protocol(name: str) -> None:
    agent = agent_class(name).create(
        0, OBSERVATIONS, ACTIONS, action_names=NAMES, actor_hidden_dims=[4], critic_hidden_dims=[4]
    )
    assert isinstance(agent, Agent)


FITTED: dict[str, Any] = {
    "observation_scale": (1.0, 0.03, 0.25, 0.1, 0.25, 8.0), "initial_action": {"acceleration": 0.5},
    "noise_correlation": 0.85,
}  # fmt: skip
FITTED_DISTRIBUTIONAL: dict[str, Any] = {
    **FITTED, "target_entropy": -2.0, "init_temperature": 0.1, "policy_steps": 4, "pointnet_dims": (128,),
    "actor_hidden_dims": (128, 128), "critic_hidden_dims": (128, 128), "learned_action_initial_limit": 0.1,
    "limits_lr": 2.5e-6,
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
    shown = config_from_mapping(config_class, {name: values[name] for name in fields}, values["model_cls"])
    assert shown == config_class(**fitted)


@pytest.mark.parametrize("name", ["DistributionalSACLearner", "SACLearner"])
def test_every_key_is_documented(name: str) -> None:
    config_class = agent_config(name)
    for field in dataclasses.fields(config_class):
        assert f"        {field.name}: " in (config_class.__doc__ or ""), field.name
