"""Train PPO of Ray RLlib with two environment runners and checkpoints, as its guide does, and go on from one.

    python benchmarks/faults/rllib_ppo.py begin FOLDER STEPS SEED
    python benchmarks/faults/rllib_ppo.py resume FOLDER STEPS SEED

Runners that fail are started again, as its guide to fault tolerance says. A resume restores the newest folder that
``save_to_path`` wrote and keeps counting; the log is ours, one line of JSON an iteration that brought steps.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig

NUM_RUNNERS, BATCH, SAVE_EVERY = 2, 128, 256


def steps_of(checkpoint: Path) -> int:
    """Return the steps that a checkpoint's name tells."""
    return int(checkpoint.name.rpartition("_")[2])


def build(seed: int) -> Algorithm:
    """Return a fresh algorithm."""
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=NUM_RUNNERS, rollout_fragment_length=BATCH // NUM_RUNNERS)
        .fault_tolerance(restart_failed_env_runners=True)
        .training(train_batch_size_per_learner=BATCH, minibatch_size=64, num_epochs=2)
        .rl_module(model_config={"fcnet_hiddens": [16]})
        .debugging(seed=seed, log_level="ERROR")
    )
    return config.build_algo()


def main() -> None:
    """Begin a run, or go on with the one in a folder."""
    mode, folder, goal, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    ray.init(
        "local", num_cpus=NUM_RUNNERS + 1, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20
    )
    saved = folder / "saved"
    algorithm = (
        Algorithm.from_checkpoint(str(max(saved.glob("ppo_*"), key=steps_of))) if mode == "resume" else build(seed)
    )
    saved.mkdir(exist_ok=True)
    steps = 0
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        while steps < goal:
            before = steps
            result = algorithm.train()
            steps = int(result["num_env_steps_sampled_lifetime"])
            if steps == before:
                # No runner was in order; the next iteration may have one.
                continue
            line = {"time": time.time(), "step": steps, "iteration": result["training_iteration"]}
            log.write(json.dumps(line) + "\n")
            log.flush()
            if steps // SAVE_EVERY > before // SAVE_EVERY or steps >= goal:
                algorithm.save_to_path(str(saved / f"ppo_{steps}"))
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
