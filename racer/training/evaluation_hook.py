"""Evaluations during training: the same function, seeds and metrics as ``run_highway_policy.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from racer.agents.protocol import Agent
from racer.envs.registry import DEFAULT_WORLD, get_world
from racer.evaluation.episodes import evaluate_policy, evaluation_seeds
from racer.networks.policy import build_policy
from racer.training.run_spec import RunSpec

__all__ = ["make_evaluation"]


def make_evaluation(spec: RunSpec, num_episodes: int) -> Callable[[int, Agent], Mapping[str, float]]:
    """Return a function of (step, agent) that evaluates the deterministic policy on held-out seeds."""
    seeds = evaluation_seeds(num_episodes)

    def evaluate(step: int, agent: Agent) -> Mapping[str, float]:
        policy, world = build_policy(agent.policy_spec), get_world(DEFAULT_WORLD)
        result = evaluate_policy(policy, agent.policy_params, world, spec.env_config, seeds)
        return result.scalars()

    return evaluate
