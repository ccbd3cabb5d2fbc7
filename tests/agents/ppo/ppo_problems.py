"""Tiny problems and rollouts for the tests of PPO."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from racer.agents.policy import build_policy
from racer.agents.ppo import PPOLearner

OBSERVATIONS = gym.spaces.Box(-9.0, 9.0, (3,))
ACTIONS = gym.spaces.Box(-1.0, 1.0, (2,))
STEPS, ENVS = 16, 4
# Compiling is most of what these tests take, so that as many as can share this configuration and these shapes.
SMALL = {
    "hidden_dims": (16,), "value_hidden_dims": (16,), "rollout_length": STEPS, "num_epochs": 2, "num_minibatches": 4,
    "actor_lr": 3e-3, "critic_lr": 3e-3, "entropy_coef": 1e-3, "target_kl": 0.5,
}  # fmt: skip


def make_agent(seed: int = 0, action_space: gym.Space = ACTIONS, **config: Any) -> PPOLearner:
    return PPOLearner.create(seed, OBSERVATIONS, action_space, **{**SMALL, **config})


def random_rollout(agent: PPOLearner, seed: int = 0, steps: int = STEPS, envs: int = ENVS) -> dict[str, np.ndarray]:
    """Random observations and rewards, with the actions of the agent's own policy."""
    rng = np.random.default_rng(seed)
    dim = agent.recipe.interfaces.observation_dim
    observations, following = rng.normal(size=(2, steps, envs, dim)).astype(np.float32)
    actions, extras = build_policy(agent.policy_spec).act_with_extras(
        agent.policy_params, observations.reshape(-1, dim), rng
    )
    terminated, truncated = rng.random((2, steps, envs)) < 0.1
    return {
        "observations": observations,
        "next_observations": following,
        "rewards": rng.normal(size=(steps, envs)).astype(np.float32),
        "masks": (1.0 - terminated).astype(np.float32),
        "dones": (terminated | truncated).astype(np.float32),
        "valid": np.ones((steps, envs), bool),
        "actions": actions.reshape(steps, envs, *actions.shape[1:]),
        **{name: value.reshape(steps, envs, *value.shape[1:]) for name, value in extras.items()},
    }


def bandit_rollout(agent: PPOLearner, seed: int) -> dict[str, np.ndarray]:
    """One-step episodes: the reward tells how near the action is to a function of the observation.

    Continuous actions should be ``(0.5, -0.5) * sign(x_0)``; of two choices the second where ``x_0 > 0``.
    """
    rollout = random_rollout(agent, seed)
    sign = np.sign(rollout["observations"][..., 0])
    if agent.recipe.head.discrete:
        rewards = (rollout["actions"] == (sign > 0)).astype(np.float32)
    else:
        wanted = 0.5 * sign[..., None] * np.array([1.0, -1.0])
        rewards = -np.square(rollout["actions"] - wanted).sum(axis=-1).astype(np.float32)
    return {**rollout, "masks": np.zeros_like(rewards), "dones": np.ones_like(rewards), "rewards": rewards}


class Corridor(gym.Env):
    """A point in [-1, 1] that is pushed along and pays for its distance from 0; the edge ends the episode.

    Truncated after 20 steps: standing at 0 is best only for who bootstraps there.
    """

    observation_space = gym.spaces.Box(-9.0, 9.0, (3,))

    def __init__(self, choices: int = 0) -> None:
        self.action_space = gym.spaces.Discrete(choices) if choices else gym.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.position, self.time = float(self.np_random.uniform(-0.8, 0.8)), 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        space = self.action_space
        push = float(action[0]) if isinstance(space, gym.spaces.Box) else 2.0 * int(action) / (int(space.n) - 1) - 1.0
        self.position += 0.2 * push
        self.time += 1
        ended = abs(self.position) > 1.0
        return self._observation(), -5.0 if ended else 1.0 - abs(self.position), ended, self.time >= 20, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.position, self.position**2, 1.0], np.float32)
