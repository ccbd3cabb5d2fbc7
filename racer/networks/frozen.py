"""Policies of checkpoints, to act with and never to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from racer.core.checkpoint import CheckpointError, read_checkpoint
from racer.core.errors import UsageError, shown
from racer.core.frozen import FrozenPolicy
from racer.networks.policy import AnyPolicy, Policy, build_policy

__all__ = ["built_policy", "read_frozen"]


def built_policy(folder: Path, spec: Mapping[str, Any], params: Mapping[str, np.ndarray]) -> AnyPolicy:
    """Return the policy that a checkpoint describes, after making sure that its arrays fit.

    Raises:
        CheckpointError: an array is missing, of another shape or type than float32, or holds what is not finite.
        UsageError: the policy is of an unknown kind.
    """
    policy = build_policy(spec)
    _check(folder, policy, params)
    return policy


def read_frozen(folder: Path) -> FrozenPolicy:
    """Read the policy of a checkpoint, without what it explored with in training.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or holds no policy, or its arrays do not fit it.
        UsageError: the policy is of an unknown kind or acts where it learns alone.
    """
    checkpoint = read_checkpoint(folder, groups=["policy"])
    spec, config = (checkpoint.metadata.get(name) for name in ("policy_spec", "env_config"))
    if not isinstance(spec, dict) or not isinstance(config, dict):
        raise CheckpointError(f"checkpoint {str(folder)!r} describes no policy of a world")
    if spec.get("kind") == "foreign":
        raise UsageError(
            f"checkpoint {str(folder)!r} is of agent {shown(spec.get('model_cls'))}, which acts where it learns alone"
        )
    params = checkpoint.groups["policy"]
    policy = built_policy(folder, spec, params)
    acting = policy.without_exploration() if isinstance(policy, Policy) else policy
    return FrozenPolicy(acting, params, checkpoint.metadata.get("world"), config)


def _check(folder: Path, policy: AnyPolicy, params: Mapping[str, np.ndarray]) -> None:
    """Act once on zeros, so that arrays that do not fit are found before any episode is run.

    Raises:
        CheckpointError: an array is missing, of another shape or type than float32, or holds what is not finite.
    """
    for name, array in params.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            wrong = "is not finite" if array.dtype == np.float32 else f"is {array.dtype}, not float32"
            raise CheckpointError(f"checkpoint {str(folder)!r}: the policy's array {shown(name)} {wrong}")
    observations = np.zeros((1, *(policy.observation_shape or ())), np.float32)
    try:
        policy.act(params, observations, policy.initial_memory(1), np.random.default_rng(0), deterministic=True)
    except KeyError as error:
        raise CheckpointError(f"checkpoint {str(folder)!r}: the policy's arrays lack {error.args[0]!r}") from error
    except ValueError as error:
        raise CheckpointError(f"checkpoint {str(folder)!r}: the policy's arrays do not fit it: {error}") from error
    except MemoryError as error:
        raise CheckpointError(f"checkpoint {str(folder)!r}: its policy does not fit into memory") from error
