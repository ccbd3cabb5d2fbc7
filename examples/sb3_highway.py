"""Stable-Baselines3's PPO on the highway, batched.

    pip install ".[sb3]"     # in the checkout
    python examples/sb3_highway.py --steps 200000

Prints the return before and after; the model that it saves loads on highway-env's own ``highway-fast-v0`` as well.
"""

from __future__ import annotations

import argparse
from pathlib import Path

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
except ModuleNotFoundError as error:
    raise SystemExit(f"this example needs {error.name}: pip install '.[sb3]' in the checkout") from None

from racer.sb3 import make_vec_env

ENV_ID = "racer/highway-fast-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, default=Path("sb3_highway.zip"))
    arguments = parser.parse_args()
    envs = make_vec_env(ENV_ID, arguments.envs, seed=arguments.seed)
    model = PPO("MlpPolicy", envs, n_steps=32, batch_size=512, gamma=0.9, learning_rate=5e-4, seed=arguments.seed)
    held_out = make_vec_env(ENV_ID, 16, seed=100_000)
    before, _ = evaluate_policy(model, held_out, n_eval_episodes=100)
    model.learn(arguments.steps)
    after, spread = evaluate_policy(model, held_out, n_eval_episodes=100)
    model.save(arguments.save)
    print(f"mean return of 100 episodes: {before:.2f} before, {after:.2f} (deviation {spread:.2f}) after")
    print(f"saved {arguments.save}")


if __name__ == "__main__":
    main()
