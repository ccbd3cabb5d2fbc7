"""The critic of a checkpoint: what the agent expected, where its critic knows a distribution of returns."""

from __future__ import annotations

from typing import Any

import gymnasium

from racer.core.checkpoint import read_checkpoint
from racer.core.errors import UsageError
from racer.evaluation.checkpoints import TrainedPolicy

__all__ = ["restore_agent", "restore_critic"]


def restore_critic(trained: TrainedPolicy, env: Any) -> Any:
    """Return the agent of a checkpoint, whose ``return_distribution`` gives atoms and probabilities.

    Needs JAX, and the checkpoint's ``agent`` group.

    Args:
        trained: the checkpoint.
        env: a single environment of its world, whose spaces the agent was made for.

    Raises:
        UsageError: the agent has no return distribution, or its code was not named by a person.
        CheckpointError: the checkpoint does not hold the agent.
    """
    from racer.agents.registry import agent_class

    name = str(trained.agent_name)
    if not hasattr(agent_class(name), "return_distribution"):
        raise UsageError(f"checkpoint {str(trained.path)!r} holds {name}, which has no return distribution")
    return restore_agent(trained, env.observation_space, env.action_space)


def restore_agent(trained: TrainedPolicy, observation_space: gymnasium.Space, action_space: gymnasium.Space) -> Any:
    """Return the agent of a checkpoint, critic included, for these spaces of a single environment of its world.

    Needs JAX, and the checkpoint's ``agent`` group.

    Raises:
        UsageError: the agent's code was not named by a person.
        CheckpointError: the checkpoint does not hold the agent.
    """
    from racer.training.run_spec import RunSpec, create_agent

    arrays = read_checkpoint(trained.path, groups=["agent"]).groups["agent"]
    spec = RunSpec(
        agent_name=str(trained.agent_name),
        agent_config=dict(trained.agent_config),
        env_config=dict(trained.env_config),
        seed=trained.seed or 0,
        world=trained.world.name,
    )
    return create_agent(spec, observation_space, action_space).with_state_arrays(arrays)
