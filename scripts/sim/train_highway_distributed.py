"""Train on highway states with worker processes and one learner.

Workers step environments and push batches of experience through bounded queues; one learner (on a GPU when JAX sees
one) updates at an exact update-to-data ratio and broadcasts its policy at a fixed frequency. A stopped run goes on
with --resume policies/<run>.
"""

from __future__ import annotations

import logging
import sys

from absl import flags

from racer.core.cli import run_program
from racer.core.errors import UsageError
from racer.core.metrics import wandb_mode
from racer.distributed.config import OffPolicyConfig, ServiceConfig
from racer.training.device import choose_device
from racer.training.distributed import DistributedRun, DistributedRunConfig
from racer.training.flags import (
    define_dataclass_flags,
    define_run_flags,
    options_from_flags,
    plan_run,
    refuse_flags,
)
from racer.training.on_policy import is_on_policy
from racer.training.on_policy_distributed import RolloutConfig
from racer.training.program import run_training, starting_point
from racer.training.run_spec import RunSpec

PROGRAM = "train_highway_distributed"
LEARNERS = (OffPolicyConfig, RolloutConfig)
DECIDED_BY_ROLLOUTS = ("worker_steps_per_iteration", "max_queue_size", "policy_update_frequency")

define_run_flags()
for options in (DistributedRunConfig, ServiceConfig, *LEARNERS):
    define_dataclass_flags(options)
flags.DEFINE_bool("debug_distributed", False, "Log what workers, supervisor and learner do.")


def option_classes(spec: RunSpec) -> tuple[type, type, type]:
    """Choose what the learner does with experience by the agent; flags without meaning for it are refused."""
    learner, other = LEARNERS[::-1] if is_on_policy(spec.agent_name) else LEARNERS
    refuse_flags(learner, (other,), spec.agent_name)
    if learner is RolloutConfig:
        given = [name for name in DECIDED_BY_ROLLOUTS if flags.FLAGS[name].present]
        if given:
            raise UsageError(f"flag --{given[0]} has no meaning for {spec.agent_name}: its rollouts decide that")
    return DistributedRunConfig, ServiceConfig, learner


def main() -> int:
    """Run what the flags describe; returns the exit code."""
    values = flags.FLAGS
    if values.debug_distributed:
        logging.getLogger("racer.distributed").setLevel(logging.DEBUG)
    wandb_mode()
    choose_device(values.device)
    plan = plan_run(PROGRAM, option_classes)
    run_config, service_config, learner_config = (
        options_from_flags(cls, plan.options) for cls in option_classes(plan.spec)
    )
    checkpoint, learnt = starting_point(plan)
    run = DistributedRun(plan.spec, run_config, service_config, learner_config, checkpoint, learnt)
    setting = f", {service_config.num_workers} workers x {run_config.envs_per_worker} environments"
    return run_training(plan, run, setting=setting, progress=values.progress)


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(run_program(main, doc=__doc__))
