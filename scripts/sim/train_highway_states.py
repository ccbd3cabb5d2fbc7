"""Train an agent on highway states in one process.

Steps, stores and updates in one fixed order: what the distributed program does with many processes, to be read and
debugged in one. Off-policy agents learn from replay after every step, on-policy ones (PPO) from whole rollouts. A
stopped run goes on with --resume policies/<run> as if it had never stopped.
"""

# ruff: noqa: E402 - an interrupt during the imports is heeded first
from __future__ import annotations

from racer.core.ending import quiet_start

quiet_start(__name__)

import logging
import sys

from absl import flags

from racer.core.cli import run_program
from racer.core.metrics import wandb_mode
from racer.distributed.config import OffPolicyConfig
from racer.envs.highway.config import ENGINES
from racer.training.device import choose_device
from racer.training.options import FLAG_GROUPS, Schedule, SingleProcess, define_dataclass_flags, single_process
from racer.training.plan import define_run_flags, plan_run

define_run_flags()
define_dataclass_flags(Schedule)
define_dataclass_flags(SingleProcess, num_envs=None)
define_dataclass_flags(
    OffPolicyConfig, without=("experience_batch_size", "learner_update_ratio"), batch_size=128, utd_ratio=8
)
flags.DEFINE_enum("engine", None, ENGINES, "Simulator; the config's (compiled) if not given.")


def main() -> int:
    """Run what the flags describe; returns the exit code."""
    values = flags.FLAGS
    wandb_mode()
    choose_device(values.device, values.learner_threads)
    plan = plan_run("train_highway_states", single_process, env_flags=("engine",))
    from racer.training.run import run_training  # after choose_device: brings JAX

    return run_training(plan, progress=values.progress)


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(run_program(main, doc=__doc__ or "", groups=FLAG_GROUPS))
