"""Small worlds and policies with known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from racer.core.checkpoint import write_checkpoint
from racer.envs.highway.config import resolve_config
from racer.envs.metric import BASE_METRICS, Metric
from racer.envs.world import Film, World
from racer.networks.policy import Policy
from racer.networks.torso import build_torso

FRAME_SHAPE = (60, 200, 3)
POLICY_HZ, FRAMES_PER_STEP = 5, 3


class CountingEnv(gymnasium.Env):
    """An episode of seed s lasts ``4 + s % 5`` steps; each step pays ``action[0] + noise of the seed``.

    Odd seeds end in a fall, the others at the time limit. A policy's action feeds back into the observation, so that
    any mix-up of environments, seeds, memories or generators changes the returns.
    """

    metadata = {"render_modes": ["rgb_array_list"], "render_fps": POLICY_HZ * FRAMES_PER_STEP}

    def __init__(self, render_mode: str | None = None, action_dim: int = 2) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-100.0, 100.0, (3,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (action_dim,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(1_000_000)) if seed is None else seed
        self.length, self.falls = 4 + drawn % 5, drawn % 2 == 1
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
        fell = done and self.falls
        info: dict[str, Any] = {}
        if done:
            info["episode_metrics"] = {"return": self.total, "length": float(self.steps), "fell": float(fell)}
        return self.state.astype(np.float32), reward, fell, done and not fell, info

    def render(self):
        frames, self.frames = self.frames, []
        return frames

    def _frame(self):
        return np.full(FRAME_SHAPE, 20 * (self.steps % 10), np.uint8)


COUNTING = World(
    name="counting",
    resolve=lambda config: dict(config or {}),
    make=lambda config, num_envs: SyncVectorEnv([CountingEnv] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP),
    metrics=(*BASE_METRICS, Metric("fell", "fall_rate", "rate", "Falls", interval=True)),
    end_reason=lambda metrics, terminated: "fall" if metrics["fell"] else "time_limit",
    film=Film(make=lambda config: CountingEnv("rgb_array_list"), clock=lambda config: (1.0 / POLICY_HZ, 10)),
)


class FeedbackPolicy:
    """Acts on the observation and on the sum of those before; sampled actions come from the generator handed in."""

    observation_shape, size, discrete = (3,), 2, False

    def initial_memory(self, count):
        return {"sum": np.zeros((count, 3), np.float32)}

    def act(self, params, observations, memory, key, deterministic=False):
        total = memory["sum"] + observations
        mean = np.tanh((total[:, :, None] * params["weights"]).sum(axis=1))
        noise = 0.0 if deterministic else key.standard_normal(mean.shape, dtype=np.float32)
        return np.clip(mean + noise, -1.0, 1.0).astype(np.float32), {"sum": total}, {}


FEEDBACK_PARAMS = {"weights": np.array([[0.3, 0.0], [-0.2, 0.5], [0.1, 0.1]], np.float32)}


SMALL_ENV = {
    "engine": "highway-env", "vehicles_count": 3, "duration": 2, "screen_width": 300, "screen_height": 80,
    "flatten_observation": True,
}  # fmt: skip


def write_tiny_checkpoint(run_dir: Path, step: int = 10, *, env_config=None, observation_dim: int = 90) -> Path:
    """A checkpoint of an untrained squashed Gaussian policy for the RACER highway, as of before worlds had names."""
    rng = np.random.default_rng(step)
    torso = build_torso((observation_dim,), {"hidden_dims": (8,), "activation": "relu", "observation_scale": 0.01})
    names = ("acceleration", "steering")
    policy = Policy(
        kind="squashed_gaussian", observation_shape=(observation_dim,), torso=torso, size=2, log_std_min=-5.0,
        action_names=names,
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
