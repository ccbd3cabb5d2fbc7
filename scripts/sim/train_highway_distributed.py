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
from racer.core.metrics import MetricsLogger, wandb_mode
from racer.distributed.config import OffPolicyConfig, ServiceConfig
from racer.training.checkpointing import CheckpointSaver, resume_checkpoint
from racer.training.device import choose_device, learner_device
from racer.training.distributed import DistributedRun, DistributedRunConfig
from racer.training.evaluation_hook import make_evaluation
from racer.training.flags import define_dataclass_flags, define_run_flags, options_from_flags, plan_run
from racer.training.signals import StopSignals

PROGRAM = "train_highway_distributed"
OPTIONS = (DistributedRunConfig, ServiceConfig, OffPolicyConfig)

define_run_flags()
for options in OPTIONS:
    define_dataclass_flags(options)
flags.DEFINE_bool("debug_distributed", False, "Log what workers, supervisor and learner do.")


def main() -> int:
    """Run what the flags describe; returns the exit code."""
    values = flags.FLAGS
    if values.debug_distributed:
        logging.getLogger("racer.distributed").setLevel(logging.DEBUG)
    wandb_mode()
    choose_device(values.device)
    plan = plan_run(PROGRAM, OPTIONS)
    run_config, service_config, learner_config = (options_from_flags(cls, plan.options) for cls in OPTIONS)
    checkpoint = resume_checkpoint(plan.folder) if plan.resumed else None
    run = DistributedRun(plan.spec, run_config, service_config, learner_config, checkpoint)
    run_dir = plan.open()
    print(
        f"run {run_dir}: {plan.spec.agent_name} on {plan.spec.env_config['engine']}, learner on {learner_device()}, "
        f"{service_config.num_workers} workers x {run_config.envs_per_worker} environments"
    )
    metrics = MetricsLogger(run_dir, plan.options, truncate_after=run.step if plan.resumed else None)
    saver = CheckpointSaver(run_dir, plan.spec, keep=plan.options["keep_checkpoints"])
    evaluate = make_evaluation(plan.spec, plan.options["eval_episodes"])
    with StopSignals() as stop:
        try:
            run.run(run_dir, metrics, saver, stop=stop.event, evaluate=evaluate, progress=values.progress)
        finally:
            metrics.close()
    ending = "stopped" if stop.exit_code else "finished"
    print(f"{ending} at step {run.step}; go on with --resume {run_dir}")
    return stop.exit_code


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(run_program(main, doc=__doc__))
