"""A policy as an ONNX file: observation and memory in, action and memory out, for programs without Python.

The graph takes the most likely action. Its inputs are ``observation`` ``[N, *observation_shape]`` and, of a policy that
remembers, each part of its memory under its own name (zeros where an episode begins); its outputs are ``action`` and
the memory after it, each as ``next_<name>``. N is any size, another one in every call if need be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from racer.core.errors import RacerError, UsageError
from racer.core.files import replace_file
from racer.evaluation.checkpoints import TrainedPolicy
from racer.networks.policy import Policy

__all__ = ["TOLERANCE", "check_onnx", "export_onnx"]

TOLERANCE = 1e-5
"""Greatest difference from the policy's own actions and memory that an exported file may have."""

_CHECKED_BATCHES = (1, 7)
_CHECKED_STEPS = 20


def export_onnx(trained: TrainedPolicy, path: Path) -> Path:
    """Write a policy as an ONNX file that onnxruntime was seen to agree with.

    Args:
        trained: the policy.
        path: of the file.

    Raises:
        UsageError: it is no learnt policy, or the packages are missing: ``[onnx]``.
        RacerError: it uses what cannot be written, or onnxruntime does not agree to :data:`TOLERANCE`.
    """
    policy = trained.policy
    if not isinstance(policy, Policy):
        raise UsageError(f"{str(trained.path)!r} is no learnt policy: there is nothing to write as ONNX")
    try:
        import onnxruntime  # noqa: F401  (what is written is also checked)

        from racer.evaluation.jaxpr_onnx import graph_of
    except ModuleNotFoundError as error:
        raise UsageError(f"ONNX needs {error.name!r}: pip install '.[onnx]' in the checkout") from error
    params = {name: np.asarray(value) for name, value in trained.params.items()}
    memory = policy.initial_memory(1)

    def act(observation: Any, **before: Any) -> dict[str, Any]:
        import jax.numpy as jnp

        held = {name: jnp.asarray(value) for name, value in params.items()}
        action, after, _ = policy.act(held, observation, before, None, deterministic=True)
        return {"action": action, **{f"next_{name}": value for name, value in after.items()}}

    example = np.zeros((1, *policy.observation_shape), np.float32)
    model = graph_of(act, {"observation": example, **memory}, "policy")
    for key, value in _metadata(trained).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    data = model.SerializeToString()
    check_onnx(trained, data)
    replace_file(path, data)
    return path


def check_onnx(trained: TrainedPolicy, model: bytes | Path) -> float:
    """Act in step with onnxruntime on random observations, one and several at once; returns the greatest difference.

    Raises:
        RacerError: it is more than :data:`TOLERANCE`, or a choice differs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )
    worst = max(_difference(trained, session, batch) for batch in _CHECKED_BATCHES)
    if worst > TOLERANCE:
        raise RacerError(f"onnxruntime and the policy differ by {worst:.1e}, more than {TOLERANCE:.0e}")
    return worst


def _difference(trained: TrainedPolicy, session: Any, batch: int) -> float:
    """Return the greatest difference of actions and memory over some steps with observations ``[batch, ...]``."""
    policy: Any = trained.policy
    rng = np.random.default_rng(0)
    memory, theirs = policy.initial_memory(batch), policy.initial_memory(batch)
    names, worst = [output.name for output in session.get_outputs()], 0.0
    for _ in range(_CHECKED_STEPS):
        observation = rng.normal(0.0, 5.0, (batch, *policy.observation_shape)).astype(np.float32)
        found = dict(zip(names, session.run(None, {"observation": observation, **theirs}), strict=True))
        action, memory, _ = policy.act(trained.params, observation, memory, rng, deterministic=True)
        theirs = {name: found[f"next_{name}"] for name in theirs}
        pairs = [(found["action"], action), *((theirs[name], memory[name]) for name in memory)]
        worst = max(worst, *(float(np.max(np.abs(a - np.asarray(b)))) for a, b in pairs))
    return worst


def _metadata(trained: TrainedPolicy) -> dict[str, str]:
    names = ", ".join(trained.world.action_names(trained.env_config))
    return {
        "world": trained.world.name,
        "agent": str(trained.agent_name),
        "step": str(trained.step),
        "action_names": names,
    }
