"""Train an agent on highway states in one process.

Steps, stores and updates in one fixed order: what the distributed program does with many processes, to be read and
debugged in one. Off-policy agents learn from replay after every step, on-policy ones (PPO) from whole rollouts. A
stopped run goes on with --resume policies/<run> as if it had never stopped.
"""

from __future__ import annotations

import logging
import sys

from absl import flags

from racer.core.cli import run_program
from racer.core.metrics import wandb_mode
from racer.training.device import choose_device
from racer.training.flags import (
    define_dataclass_flags,
    define_run_flags,
    options_from_flags,
    plan_run,
    refuse_flags,
)
from racer.training.off_policy import OffPolicyConfig, OffPolicyTrainer
from racer.training.on_policy import OnPolicyConfig, OnPolicyTrainer, is_on_policy
from racer.training.program import run_training, starting_point
from racer.training.run_spec import RunSpec

PROGRAM = "train_highway_states"

define_run_flags()
define_dataclass_flags(OffPolicyConfig, num_envs=None)
define_dataclass_flags(OnPolicyConfig)


def option_class(spec: RunSpec) -> type[OffPolicyConfig] | type[OnPolicyConfig]:
    """Choose the loop by the agent; flags of the other loop are refused."""
    loops = (OnPolicyConfig, OffPolicyConfig) if is_on_policy(spec.agent_name) else (OffPolicyConfig, OnPolicyConfig)
    refuse_flags(loops[0], loops[1:], spec.agent_name)
    return loops[0]


def main() -> int:
    """Run what the flags describe; returns the exit code."""
    values = flags.FLAGS
    wandb_mode()
    choose_device(values.device)
    plan = plan_run(PROGRAM, lambda spec: (option_class(spec),))
    config = options_from_flags(option_class(plan.spec), plan.options)
    checkpoint, learnt = starting_point(plan)
    trainer: OffPolicyTrainer | OnPolicyTrainer
    if isinstance(config, OnPolicyConfig):
        trainer = OnPolicyTrainer(plan.spec, config, checkpoint, learnt)
    else:
        trainer = OffPolicyTrainer(plan.spec, config, checkpoint, learnt)
    return run_training(plan, trainer, progress=values.progress)


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(run_program(main, doc=__doc__))
