"""Agents that see through a view of their world and act through a controller of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents import agent_class
from racer.core.errors import UsageError
from racer.envs.highway import entry
from racer.envs.highway.views import CONTROLLERS, VIEWS
from racer.envs.registry import get_world
from racer.networks.policy import build_policy

pytestmark = pytest.mark.usefixtures("quick_compilation", "transforms")

WORLD = "highway"
OBSERVATIONS = gym.spaces.Box(-100.0, 100.0, (15, 6), np.float32)
ACTIONS = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
SMALL: dict[str, dict[str, Any]] = {
    "sac": {"actor_hidden_dims": (8,), "critic_hidden_dims": (8,)},
    "cvar": {"actor_hidden_dims": (8,), "critic_hidden_dims": (8,), "num_atoms": 5},
    "ppo": {"hidden_dims": (8,), "value_hidden_dims": (8,)},
}
NAMES = ("acceleration", "steering")


@pytest.fixture(scope="module")
def transforms() -> Iterator[None]:
    """A world with these views and controllers, whatever else it has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry, "WORLD", dataclasses.replace(entry.WORLD, views=VIEWS, controllers=CONTROLLERS))
        yield


def make(name: str, **config: Any) -> Any:
    settings = {"view": "lane_slots", "controller": "targets", **SMALL[name], **config}
    return agent_class(name).create(0, OBSERVATIONS, ACTIONS, action_names=NAMES, world=WORLD, **settings)


def rows(seed: int, count: int = 4) -> np.ndarray:
    observations = np.random.default_rng(seed).uniform(-1.0, 1.0, (count, 15, 6)).astype(np.float32)
    observations[:, :, 0] = 1.0
    observations[:, 0, 3] = 25.0
    return observations


@pytest.mark.parametrize("name", SMALL)
def test_the_policy_takes_the_worlds_observation_and_gives_its_action(name: str) -> None:
    agent = make(name)
    policy, observations = build_policy(json.loads(json.dumps(agent.policy_spec))), rows(0)
    assert policy == agent.policy
    actions, _, extras = policy.act(agent.policy_params, observations, {}, np.random.default_rng(0))
    chosen = extras["policy_actions"]
    assert np.abs(chosen).max() <= 1.0
    np.testing.assert_array_equal(agent.policy_params["action_low"], [-1.0, -1.0])
    controller = get_world(WORLD).controller("targets")
    np.testing.assert_allclose(actions, controller(observations, chosen), atol=1e-6)
    np.testing.assert_allclose(
        agent.eval_actions(observations),
        policy.act(agent.policy_params, observations, {}, None, deterministic=True)[0],
        atol=1e-5,
    )


def test_critics_see_the_view_and_learn_the_policys_own_actions() -> None:
    agent = make("sac")
    width = get_world(WORLD).view("lane_slots").shape((15, 6))[0]
    assert agent.state.critic.params["members/hidden_0_feature_kernel"].shape == (2, width, 8)
    batch = {
        "observations": rows(1, 8), "next_observations": rows(2, 8), "rewards": np.ones(8), "masks": np.ones(8),
        "dones": np.zeros(8), "actions": np.random.default_rng(0).uniform(-1.0, 1.0, (8, 2)),
    }  # fmt: skip
    flat = {**batch, "observations": batch["observations"].reshape(8, -1)}
    params = agent.state.critic.params
    actions = jnp.asarray(batch["actions"], jnp.float32)[None]
    found, again = (
        agent.static.critic(params, agent.policy.viewed(jnp.asarray(each["observations"])), actions)
        for each in (batch, flat)
    )
    np.testing.assert_array_equal(found, again)
    _, info = agent.update(batch, 2)
    assert all(np.isfinite(value) for value in info.values())


def test_actions_are_addressed_by_the_controllers_names() -> None:
    agent = make("cvar", learned_action="target_offset", learned_action_initial_limit=0.3)
    np.testing.assert_allclose(agent.policy_params["action_high"], [1.0, 0.3])
    with pytest.raises(UsageError, match=r"unknown action \(learned_action\) 'steering'"):
        make("cvar", learned_action="steering")
    with pytest.raises(UsageError, match="initial_action"):
        make("sac", initial_action={"acceleration": 0.5})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"view": "lane_slot"}, "did you mean 'lane_slots"),
        ({"controller": "target"}, "did you mean 'targets"),
        ({"encoder": "pointnet"}, "in rows"),
    ],
)
def test_what_the_world_does_not_have_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make("sac", **changes)
    with pytest.raises(UsageError, match="no world"):
        agent_class("sac").create(0, OBSERVATIONS, ACTIONS, controller="targets")
