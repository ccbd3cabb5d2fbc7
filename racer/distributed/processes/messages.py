"""Parameters and batches as bytes, and which bytes are believed."""

from __future__ import annotations

from typing import Any

import numpy as np

from racer.agents.protocol import ROW_FLAGS
from racer.distributed.pool import Parameters, PoolTask, WorkerBatch
from racer.distributed.processes.frames import BrokenFrame, decode_arrays, encode_arrays
from racer.networks.serialization import bytes_to_params, params_to_bytes
from racer.replay.experience import Experience

__all__ = ["batch_from_bytes", "batch_to_bytes", "check_batch", "parameters_from_bytes", "parameters_to_bytes"]

_FIELDS = ("observations", "actions", "rewards", *ROW_FLAGS, "final_observations", "final_index")
_NAMED = ("extras", "memory")


def parameters_to_bytes(parameters: Parameters) -> bytearray:
    """Return the message form of a publication."""
    header = {"version": parameters.version, "round": parameters.round, "warmup": parameters.arrays is None}
    data = b"" if parameters.arrays is None else params_to_bytes(parameters.arrays)
    return encode_arrays(header, {"data": np.frombuffer(data, np.uint8)})


def parameters_from_bytes(block: bytearray | memoryview) -> Parameters:
    """Inverse of :func:`parameters_to_bytes`."""
    header, arrays = decode_arrays(block)
    params = None if header["warmup"] else bytes_to_params(arrays["data"].tobytes())
    return Parameters(header["version"], header["round"], params)


def batch_to_bytes(batch: WorkerBatch) -> bytearray:
    """Return the message form of a batch; arrays are copied once."""
    e = batch.experience
    header: dict[str, Any] = {
        "ids": [batch.worker, batch.incarnation, batch.policy_version, batch.round],
        "episodes": e.episodes,
        "nonfinite": e.nonfinite,
    }
    arrays = {name: getattr(e, name) for name in _FIELDS}
    for group in _NAMED:
        arrays |= {f"{group}/{name}": value for name, value in getattr(e, group).items()}
    arrays |= {f"state/{name}": value for name, value in batch.state.items()}
    return encode_arrays(header, arrays)


def batch_from_bytes(block: bytearray | memoryview) -> WorkerBatch:
    """Inverse of :func:`batch_to_bytes`; the arrays are views of ``block``.

    Raises:
        BrokenFrame: the block is not of this form.
    """
    header, arrays = decode_arrays(block)
    try:
        fields: dict[str, Any] = {name: arrays[name] for name in _FIELDS}
        fields |= {group: _below(f"{group}/", arrays) for group in _NAMED}
        experience = Experience(
            **fields,
            episodes=[{str(k): float(v) for k, v in episode.items()} for episode in header["episodes"]],
            nonfinite=int(header["nonfinite"]),
        )
        worker, incarnation, version, round_number = (int(number) for number in header["ids"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BrokenFrame(f"a batch that lacks something: {type(error).__name__} {error}") from error
    return WorkerBatch(experience, worker, incarnation, version, round_number, _below("state/", arrays))


def check_batch(batch: WorkerBatch, task: PoolTask) -> None:
    """Raise BrokenFrame unless the arrays of a batch fit each other and what the worker was told."""
    e, steps = batch.experience, task.config.worker_steps_per_iteration
    lead = e.rewards.shape
    if len(lead) != 2 or lead[0] != steps or e.rewards.dtype != np.float32:
        raise BrokenFrame(f"a batch of {e.rewards.dtype}{list(lead)} rewards instead of {steps} steps")
    shape = e.observations.shape[2:] if task.observation_shape is None else task.observation_shape
    expected = {
        "observations": (e.observations, (steps + 1, lead[1], *shape), np.float32),
        "final_observations": (e.final_observations, (len(e.final_index), *shape), np.float32),
        "final_index": (e.final_index, (len(e.final_index), 2), np.int32),
        **{name: (getattr(e, name), lead, np.bool_) for name in ROW_FLAGS},
        **{name: (value, (*lead, *value.shape[2:]), value.dtype) for name, value in e.extras.items()},
        **{name: (value, (lead[1], *value.shape[1:]), value.dtype) for name, value in e.memory.items()},
    }
    for name, (array, wanted, kind) in expected.items():
        if array.shape != wanted or array.dtype != kind:
            raise BrokenFrame(f"a batch with {name} {array.dtype}{list(array.shape)} instead of {list(wanted)}")
    if e.actions.shape[:2] != lead or (len(e.final_index) and not _inside(e.final_index, lead)):
        raise BrokenFrame("a batch whose rows do not fit each other")


def _inside(index: np.ndarray, lead: tuple[int, ...]) -> bool:
    return bool((index >= 0).all() and (index < np.array(lead)).all())


def _below(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
