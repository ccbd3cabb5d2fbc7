"""Small worlds and policies with known answers, registered as a gymnasium environment of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from racer.agents.policy.squashed_gaussian import SquashedGaussianPolicy
from racer.agents.policy.trunk import Trunk
from racer.core.checkpoint import write_checkpoint
from racer.envs.highway.config import resolve_config

FRAME_SHAPE = (60, 200, 3)
POLICY_HZ, FRAMES_PER_STEP = 5, 3


class CountingEnv(gymnasium.Env):
    """An episode of seed s lasts ``4 + s % 5`` steps; each step pays ``action[0] + noise of the seed``.

    Odd seeds end in a collision, the others at the time limit. A policy's action feeds back into the
    observation, so that any mix-up of environments, seeds or generators changes the returns.
    """

    metadata = {"render_modes": ["rgb_array_list"], "render_fps": POLICY_HZ * FRAMES_PER_STEP}
    action_names = ("acceleration", "steering")

    def __init__(self, render_mode: str | None = None, action_dim: int = 2) -> None:
        self.render_mode = render_mode
        self.config = {"policy_frequency": POLICY_HZ, "duration": 2.0}
        self.observation_space = gymnasium.spaces.Box(-100.0, 100.0, (3,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (action_dim,), np.float32)
        self.episodes_started = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.episodes_started += 1
        drawn = int(self.np_random.integers(1_000_000)) if seed is None else seed
        self.length, self.crashes = 4 + drawn % 5, drawn % 2 == 1
        self.steps, self.total, self.state = 0, 0.0, self.np_random.normal(size=3)
        self.frames = [self._frame()]
        return self.state.astype(np.float32), {}

    def step(self, action):
        self.steps += 1
        self.state = 0.9 * self.state + float(action[0]) + 0.1 * self.np_random.normal(size=3)
        reward = float(action[0] + self.state[0])
        self.total += reward
        self.frames += [self._frame() for _ in range(FRAMES_PER_STEP)]
        done = self.steps >= self.length
        crashed = done and self.crashes
        info: dict[str, Any] = {
            "speed": 20.0 + self.steps,
            "forward_speed": 20.0 + self.steps,
            "crashed": crashed,
            "on_road": True,
            "time_to_collision": float("inf"),
            "min_distance": 10.0 - self.steps,
            "lateral_offset": 0.0,
            "reward_components": {
                "base_reward": reward, "original_speed": 0.5, "forward_speed": 0.2,
                "safety_reward": -1.0 if crashed else 0.0, "training_reward": reward,
            },
        }  # fmt: skip
        if done:
            info["episode_metrics"] = {
                "return": self.total, "base_return": self.total, "length": float(self.steps),
                "crashed": float(crashed), "off_road": 0.0, "success": float(not crashed),
                "mean_speed": 20.0, "mean_forward_speed": 19.0, "reverse_share": 0.0, "spin_share": 0.0,
                "standstill_share": 0.0, "violation_rate": float(crashed) / self.steps,
                "min_distance": 10.0 - self.steps, "mean_safety_reward": -float(crashed) / self.steps,
            }  # fmt: skip
        return self.state.astype(np.float32), reward, crashed, done and not crashed, info

    def render(self):
        frames, self.frames = self.frames, []
        return frames

    def _frame(self):
        return np.full(FRAME_SHAPE, 20 * (self.steps % 10), np.uint8)


def counting_vector_env(num_envs: int) -> SyncVectorEnv:
    return SyncVectorEnv([CountingEnv] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


class FeedbackPolicy:
    """Acts on the observation; sampled actions come from the generator that it is handed."""

    spec = {"observation_dim": 3, "action_dim": 2}

    def act(self, params, observations, rng, deterministic=False):
        mean = np.tanh(observations @ params["weights"])
        noise = 0.0 if deterministic else rng.normal(size=mean.shape)
        return np.clip(mean + noise, -1.0, 1.0).astype(np.float32)


FEEDBACK_PARAMS = {"weights": np.array([[0.3, 0.0], [-0.2, 0.5], [0.1, 0.1]], np.float32)}


SMALL_ENV = {"engine": "highway-env", "vehicles_count": 3, "duration": 2, "screen_width": 300, "screen_height": 80}


def write_tiny_checkpoint(run_dir: Path, step: int = 10, *, env_config=None, observation_dim: int = 90) -> Path:
    """A checkpoint of an untrained squashed Gaussian policy for the RACER highway."""
    rng = np.random.default_rng(step)
    policy = SquashedGaussianPolicy(
        trunk=Trunk(observation_dim, (8,), "relu", 0.01, (), 6),
        action_dim=2, log_std_min=-5.0, log_std_max=2.0, action_names=("acceleration", "steering"),
    )  # fmt: skip

    def layer(rows: int, columns: int) -> dict[str, np.ndarray]:
        kernel = rng.normal(0.0, 0.1, (rows, columns)).astype(np.float32)
        return {"kernel": kernel, "bias": np.zeros(columns, np.float32)}

    layers = {"trunk/hidden_0": layer(observation_dim, 8), "mean": layer(8, 2), "log_std": layer(8, 2)}
    params = {f"{name}/{part}": array for name, parts in layers.items() for part, array in parts.items()}
    params |= {"action_low": np.array([-1, -0.05], np.float32), "action_high": np.array([1, 0.05], np.float32)}
    metadata = {
        "policy_spec": policy.spec,
        "env_config": resolve_config(SMALL_ENV if env_config is None else env_config),
        "agent_name": "DistributionalSACLearner",
        "agent_config": {"cvar_risk": 0.8, "hidden_dims": [8]},
        "seed": 42,
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    return write_checkpoint(run_dir, step, {"policy": params}, metadata)
