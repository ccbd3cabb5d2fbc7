"""Train on highway states with worker processes and one learner.

Workers step environments and push batches of experience through bounded queues; one learner (on a GPU when JAX sees
one) updates at an exact update-to-data ratio and broadcasts its policy at a fixed frequency. --backend ray puts the
workers on a Ray cluster (docs/cluster.md). A stopped run goes on with --resume policies/<run>.
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
from racer.distributed.config import BackendConfig, OffPolicyConfig, RolloutConfig, ServiceConfig
from racer.envs.highway.config import ENGINES
from racer.training.device import choose_device
from racer.training.options import FLAG_GROUPS, ManyProcesses, Schedule, define_dataclass_flags, worker_processes
from racer.training.plan import define_run_flags, plan_run

define_run_flags()
define_dataclass_flags(Schedule, max_steps=1_000_000)
for options in (ManyProcesses, ServiceConfig, BackendConfig, OffPolicyConfig, RolloutConfig):
    define_dataclass_flags(options)
flags.DEFINE_enum("engine", None, ENGINES, "Simulator; the config's (compiled) if not given.")
flags.DEFINE_bool("debug_distributed", False, "Log what workers, supervisor and learner do.")


def main() -> int:
    """Run what the flags describe; returns the exit code."""
    values = flags.FLAGS
    if values.debug_distributed:
        logging.getLogger("racer.distributed").setLevel(logging.DEBUG)
    wandb_mode()
    choose_device(values.device, values.learner_threads)
    plan = plan_run("train_highway_distributed", worker_processes, env_flags=("engine",))
    from racer.training.run import run_training  # after choose_device: brings JAX

    return run_training(plan, progress=values.progress)


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(run_program(main, doc=__doc__ or "", groups=FLAG_GROUPS))
