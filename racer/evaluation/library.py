"""``racer.evaluate``: what a policy reaches on held-out seeds, from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from racer.evaluation.checkpoints import TrainedPolicy, load_policy
from racer.evaluation.episodes import FIRST_EVALUATION_SEED, EvaluationResult, evaluate_policy, evaluation_seeds
from racer.evaluation.program import described_policy, evaluation_config

__all__ = ["evaluate"]


def evaluate(
    policy: TrainedPolicy | str | os.PathLike[str],
    num_episodes: int = 20,
    *,
    seed: int = FIRST_EVALUATION_SEED,
    env: Mapping[str, Any] | None = None,
    deterministic: bool = True,
    num_envs: int = 8,
    cvar_level: float = 0.8,
) -> EvaluationResult:
    """Run held-out episodes with a policy; nothing is written. The same numbers as ``racer evaluate``.

    Args:
        policy: from :func:`racer.load_policy`, or what that takes.
        num_episodes: one for each seed.
        seed: the first one.
        env: keys of the policy's world that differ from those of its training.
        deterministic: the policy's most likely action, or draws seeded by the episode's seed.
        num_envs: environments side by side; a matter of speed only.
        cvar_level: level of the lower tail of returns.

    Raises:
        UsageError: the policy cannot be read, or an argument is wrong.
    """
    trained = policy if isinstance(policy, TrainedPolicy) else load_policy(policy)
    overrides = {} if env is None else env
    return evaluate_policy(
        trained.policy, trained.params, trained.world, evaluation_config(trained, overrides),
        evaluation_seeds(num_episodes, seed), num_envs=num_envs, deterministic=deterministic, cvar_level=cvar_level,
        configuration=described_policy(trained, overrides),
    )  # fmt: skip
