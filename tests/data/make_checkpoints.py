"""Train the tiny runs of tests/data with the code at hand; run it once for each new checkpoint format, and never again.

    python tests/data/make_checkpoints.py

They land in ``tests/data/format_<number>/<agent>`` of the format that this code writes; a folder that exists is an
error. What earlier formats hold was written by the code of their time, which no later code can do again.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from racer.core.checkpoint import FORMAT_VERSION
from racer.training.command import main

DATA = Path(__file__).parent
COMMON = [
    "--max_steps", "32", "--log_interval", "16", "--save_interval", "0", "--eval_interval", "0", "--num_envs", "2",
    "--device", "cpu", "--noprogress", "--config.env.vehicles_count=3", "--config.env.observation.vehicles_count=4",
    "--config.env.duration=4",
]  # fmt: skip
OFF_POLICY = [
    "--start_training", "16", "--batch_size", "4", "--utd_ratio", "1", "--replay_buffer_size", "32",
    "--config.actor_hidden_dims=(4,)", "--config.critic_hidden_dims=(4,)",
]  # fmt: skip
AGENTS = {
    "sac": OFF_POLICY,
    "cvar": [*OFF_POLICY, "--config.num_atoms=5"],
    "ppo": ["--config.rollout_length=8", "--config.num_epochs=1", "--config.num_minibatches=2",
            "--config.hidden_dims=(4,)", "--config.value_hidden_dims=(4,)"],
}  # fmt: skip

if __name__ == "__main__":
    for agent, own in AGENTS.items():
        folder = DATA / f"format_{FORMAT_VERSION}"
        code = main(["--agent", agent, "--policy_dir", str(folder), "--run_name", agent, "--seed", "7", *COMMON, *own])
        if code:
            sys.exit(code)
        shutil.rmtree(folder / agent / "tensorboard")
        (folder / agent / ".lock").unlink()
