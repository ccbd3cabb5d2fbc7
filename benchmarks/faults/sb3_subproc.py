"""Train PPO of Stable-Baselines3 with worker processes and checkpoints, as its documentation does, and go on from one.

    python benchmarks/faults/sb3_subproc.py begin FOLDER STEPS SEED
    python benchmarks/faults/sb3_subproc.py resume FOLDER STEPS SEED

A resume loads the newest file that ``CheckpointCallback`` wrote and keeps counting; its log begins a file of its own,
since the library's loggers empty the one that they open.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger, make_output_format
from stable_baselines3.common.vec_env import SubprocVecEnv

NUM_ENVS, ROLLOUT, SAVE_EVERY = 2, 32, 128


def steps_of(checkpoint: Path) -> int:
    """Return the steps that a checkpoint's name tells."""
    return int(re.findall(r"_(\d+)_steps", checkpoint.name)[0])


def main() -> None:
    """Begin a run, or go on with the one in a folder."""
    mode, folder, goal, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    envs = make_vec_env("CartPole-v1", NUM_ENVS, seed=seed, vec_env_cls=SubprocVecEnv)
    if mode == "resume":
        model = PPO.load(max((folder / "saved").glob("*.zip"), key=steps_of), envs, device="cpu")
    else:
        model = PPO("MlpPolicy", envs, n_steps=ROLLOUT, seed=seed, device="cpu", policy_kwargs={"net_arch": [16]})
    life = len(list((folder / "log").glob("*.json")))
    model.set_logger(Logger(str(folder / "log"), [make_output_format("json", str(folder / "log"), f"_{life:03d}")]))
    saver = CheckpointCallback(SAVE_EVERY // NUM_ENVS, str(folder / "saved"), "ppo")
    model.learn(goal - model.num_timesteps, callback=saver, log_interval=1, reset_num_timesteps=False)
    envs.close()


if __name__ == "__main__":
    main()
