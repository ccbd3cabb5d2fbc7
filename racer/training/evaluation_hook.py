"""Evaluations during training: the same function, seeds and metrics as ``run_highway_policy.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from racer.agents.policy import build_policy
from racer.agents.protocol import Agent
from racer.evaluation.episodes import evaluate_policy, evaluation_seeds
from racer.training.run_spec import RunSpec

__all__ = ["make_evaluation"]


def make_evaluation(spec: RunSpec, num_episodes: int) -> Callable[[int, Agent], Mapping[str, float]]:
    """Return a function of (step, agent) that evaluates the deterministic policy on held-out seeds."""
    seeds = evaluation_seeds(num_episodes)

    def evaluate(step: int, agent: Agent) -> Mapping[str, float]:
        result = evaluate_policy(build_policy(agent.policy_spec), agent.policy_params, spec.env_config, seeds)
        return result.scalars()

    return evaluate
