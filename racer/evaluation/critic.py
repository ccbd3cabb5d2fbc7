"""The critic of a checkpoint: what the agent expected, where its critic knows a distribution of returns."""

from __future__ import annotations

from typing import Any

from racer.core.checkpoint import read_checkpoint
from racer.core.errors import UsageError
from racer.evaluation.checkpoints import TrainedPolicy

__all__ = ["restore_critic"]


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
    from racer.training.run_spec import RunSpec, create_agent

    name = str(trained.agent_name)
    if not hasattr(agent_class(name), "return_distribution"):
        raise UsageError(f"checkpoint {str(trained.path)!r} holds {name}, which has no return distribution")
    arrays = read_checkpoint(trained.path, groups=["agent"]).groups["agent"]
    spec = RunSpec(
        agent_name=name,
        agent_config=dict(trained.agent_config),
        env_config=dict(trained.env_config),
        seed=trained.seed or 0,
        world=trained.world.name,
    )
    return create_agent(spec, env.observation_space, env.action_space).with_state_arrays(arrays)
