"""On-policy agents in the actor-learner service: what fills the place of replay and ratios.

Every worker collects whole rollouts of ``rollout_length`` steps with the newest policy it has. As many as there are
workers, in the order in which they come in, make an update, after which the policy is published at once. While the
learner updates, workers already collect the next rollout with the policy before: a lag of one version is normal, and
the probability ratio is taken against the log-probabilities that the worker wrote down.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from racer.agents.protocol import OnPolicyAgent
from racer.core.config import check_fields, option
from racer.distributed.channels import WorkerBatch
from racer.distributed.config import ServiceConfig
from racer.distributed.consumers import OnPolicyConsumer
from racer.training.on_policy import join_rollouts

__all__ = ["RolloutConfig", "on_policy_consumer", "on_policy_service", "update_on_rollouts"]


@dataclass(frozen=True)
class RolloutConfig:
    """Which rollouts the learner takes."""

    max_policy_lag: int = option(
        1, "On-policy agents: versions by which a rollout's policy may lag behind the newest; older ones are dropped.",
        low=0,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self, "learner setting")


def on_policy_service(agent: OnPolicyAgent, config: ServiceConfig) -> ServiceConfig:
    """Return ``config`` with the settings that an on-policy agent decides.

    A batch is one rollout, and a worker may have one under way: with more, those that wait while the learner updates
    would be stale before they are read.
    """
    return dataclasses.replace(
        config, worker_steps_per_iteration=agent.rollout_length, max_queue_size=config.num_workers
    )


def on_policy_consumer(
    agent: OnPolicyAgent, config: RolloutConfig, service: ServiceConfig, envs_per_worker: int
) -> OnPolicyConsumer:
    """Return the consumer that updates on one rollout of each worker.

    Raises:
        UsageError: rollouts of all workers' environments do not divide into the agent's minibatches.
    """
    agent.check_num_envs(service.num_workers * envs_per_worker)
    return OnPolicyConsumer(
        update_on_rollouts, batches_per_update=service.num_workers, max_policy_lag=config.max_policy_lag
    )


def update_on_rollouts(agent: OnPolicyAgent, batches: list[WorkerBatch]) -> tuple[OnPolicyAgent, dict[str, Any]]:
    """Make one update on the rollouts of several workers, side by side."""
    return agent.update(join_rollouts([batch.experience for batch in batches]))
