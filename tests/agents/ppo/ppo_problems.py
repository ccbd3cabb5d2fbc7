"""Tiny problems and rollouts for the tests of PPO."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from racer.agents.ppo import PPOLearner
from racer.networks.memory import cleared, merged

OBSERVATIONS = gym.spaces.Box(-9.0, 9.0, (3,))
ACTIONS = gym.spaces.Box(-1.0, 1.0, (2,))
STEPS, ENVS = 16, 4
# Compiling is most of what these tests take, so that as many as can share this configuration and these shapes.
SMALL = {
    "hidden_dims": (16,), "value_hidden_dims": (16,), "rollout_length": STEPS, "num_epochs": 2, "num_minibatches": 4,
    "actor_lr": 3e-3, "critic_lr": 3e-3, "entropy_coef": 1e-3, "target_kl": 0.5,
}  # fmt: skip
Rollout = dict[str, np.ndarray]


def make_agent(seed: int = 0, action_space: gym.Space = ACTIONS, **config: Any) -> PPOLearner:
    return PPOLearner.create(seed, OBSERVATIONS, action_space, **{**SMALL, **config})


def padded(index: np.ndarray, finals: np.ndarray, steps: int) -> Rollout:
    """Fill final observations up to one of two shapes, with rows that point one past the end."""
    size = 32 if len(index) <= 32 else 128
    places = np.tile(np.array([[steps, 0]], np.int32), (size, 1))
    places[: len(index)] = index
    observations = np.zeros((size, *finals.shape[1:]), np.float32)
    observations[: len(index)] = finals
    return {"final_index": places, "final_observations": observations}


def flags(terminated: np.ndarray, truncated: np.ndarray, valid: np.ndarray) -> Rollout:
    """The rows' flags; a row that is no transition stops every sum."""
    ended = (terminated | truncated) & valid
    return {
        "bootstrap": (~terminated & valid).astype(np.float32),
        "cut": (ended | ~valid).astype(np.float32),
        "forget": ended.astype(np.float32),
        "valid": valid.astype(np.float32),
    }


def random_rollout(
    agent: PPOLearner, seed: int = 0, steps: int = STEPS, envs: int = ENVS, invalid: float = 0.0
) -> Rollout:
    """Random observations and rewards, with the actions of the agent's own policy and its memory."""
    rng = np.random.default_rng(seed)
    policy, params = agent.policy, agent.policy_params
    shape = agent.static.interfaces.observation_shape
    observations = rng.normal(size=(steps + 1, envs, *shape)).astype(np.float32)
    terminated, truncated = rng.random((2, steps, envs)) < 0.1
    valid = rng.random((steps, envs)) >= invalid
    rows = flags(terminated, truncated, valid)
    memory = policy.initial_memory(envs)
    for _ in range(2):  # sequences that begin in the middle of episodes
        memory = policy.act(params, rng.normal(size=(envs, *shape)).astype(np.float32), memory, rng)[1]
    start, acted = {f"memory/{name}": value for name, value in memory.items()}, []
    for t in range(steps):
        action, after, extra = policy.act(params, observations[t], memory, rng)
        memory = cleared(merged(valid[t], after, memory), rows["forget"][t] > 0)
        acted.append({"actions": action, **extra})
    index = np.argwhere(rows["forget"])
    return {
        **rows, **start, "observations": observations,
        "rewards": rng.normal(size=(steps, envs)).astype(np.float32),
        **padded(index, rng.normal(size=(len(index), *shape)), steps),
        **{name: np.stack([row[name] for row in acted]) for name in acted[0]},
    }  # fmt: skip


def bandit_rollout(agent: PPOLearner, seed: int) -> Rollout:
    """One-step episodes: the reward tells how near the action is to a function of the observation.

    Continuous actions should be ``(0.5, -0.5) * sign(x_0)``; of two choices the second where ``x_0 > 0``.
    """
    rollout = random_rollout(agent, seed)
    sign = np.sign(rollout["observations"][:-1, ..., 0])
    if agent.policy.discrete:
        rewards = (rollout["actions"] == (sign > 0)).astype(np.float32)
    else:
        wanted = 0.5 * sign[..., None] * np.array([1.0, -1.0])
        rewards = -np.square(rollout["actions"] - wanted).sum(axis=-1).astype(np.float32)
    ended = np.ones_like(rewards)
    return {**rollout, "bootstrap": 0.0 * ended, "cut": ended, "forget": ended, "rewards": rewards}


class Actor:
    """Lets an agent act in a world, rollout after rollout, its memory kept in between."""

    def __init__(self, world: Any, seed: int = 0) -> None:
        self.world, self.rng = world, np.random.default_rng(seed)
        self.observations = world.reset(self.rng)
        self.memory: dict[str, np.ndarray] | None = None

    def rollout(self, agent: PPOLearner, steps: int = STEPS) -> Rollout:
        policy, params, envs = agent.policy, agent.policy_params, len(self.observations)
        memory = policy.initial_memory(envs) if self.memory is None else self.memory
        rollout: dict[str, list] = {"observations": [self.observations]}
        start = {f"memory/{name}": value for name, value in memory.items()}
        index, finals = [], []
        for t in range(steps):
            actions, memory, extras = policy.act(params, self.observations, memory, self.rng)
            self.observations, rewards, terminated, truncated, final = self.world.step(actions, self.rng)
            ended = terminated | truncated
            memory = cleared(memory, ended)
            index += [(t, n) for n in np.flatnonzero(ended)]
            finals += list(final[ended])
            row = {
                "actions": actions,
                "rewards": rewards,
                **extras,
                **flags(terminated, truncated, np.ones_like(ended)),
            }
            for name, value in {**row, "observations": self.observations}.items():
                rollout.setdefault(name, []).append(value)
        self.memory = memory
        tail = (len(index), *self.observations.shape[1:])
        ends = padded(np.array(index, np.int32).reshape(-1, 2), np.array(finals, np.float32).reshape(tail), steps)
        return {**{name: np.stack(values) for name, values in rollout.items()}, **start, **ends}


class Corridor:
    """A point in [-1, 1] that two choices push along and that pays for its distance from 0; an edge ends the episode.

    Truncated after 20 steps: standing at 0 is best only for who bootstraps there.
    """

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.position, self.time = rng.uniform(-0.8, 0.8, ENVS), np.zeros(ENVS, int)
        self.lengths: list[int] = []
        return self._seen()

    def step(self, actions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        self.position = self.position + 0.2 * (2.0 * actions - 1.0)
        self.time += 1
        terminated = np.abs(self.position) > 1.0
        rewards = np.where(terminated, -5.0, 1.0 - np.abs(self.position)).astype(np.float32)
        truncated, final = (self.time >= 20) & ~terminated, self._seen()
        ended = terminated | truncated
        self.lengths += self.time[ended].tolist()
        self.position = np.where(ended, rng.uniform(-0.8, 0.8, ENVS), self.position)
        self.time[ended] = 0
        return self._seen(), rewards, terminated, truncated, final

    def _seen(self) -> np.ndarray:
        return np.stack([self.position, self.position**2, np.ones(ENVS)], axis=1).astype(np.float32)


class Recall:
    """Episodes of four steps: a sign is seen at the first, and the last choice should be the one that it stands for.

    Without a memory the mean reward of an episode is 0, whatever is chosen.
    """

    length = 4

    def __init__(self, envs: int = 16) -> None:
        self.envs = envs

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.time = np.zeros(self.envs, int)
        self.bit = rng.integers(0, 2, self.envs)
        return self._seen()

    def step(self, actions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        self.time += 1
        ended = self.time >= self.length
        rewards = np.where(ended, np.where(actions == self.bit, 1.0, -1.0), 0.0).astype(np.float32)
        final = self._seen()
        self.bit = np.where(ended, rng.integers(0, 2, self.envs), self.bit)
        self.time[ended] = 0
        return self._seen(), rewards, ended, np.zeros_like(ended), final

    def _seen(self) -> np.ndarray:
        sign = np.where(self.time == 0, 2.0 * self.bit - 1.0, 0.0)
        return np.stack([sign, self.time == 0, self.time == self.length - 1], axis=1).astype(np.float32)
