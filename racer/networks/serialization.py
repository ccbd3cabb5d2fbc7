"""Policy parameters as bytes, in the safetensors format: arrays and names, no code."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from racer.core.errors import UsageError

__all__ = ["bytes_to_params", "params_to_bytes"]


def params_to_bytes(params: Mapping[str, np.ndarray]) -> bytes:
    """Serialize a flat mapping of arrays."""
    return save({name: np.asarray(array, order="C") for name, array in params.items()})


def bytes_to_params(data: bytes) -> dict[str, np.ndarray]:
    """Inverse of :func:`params_to_bytes`.

    Raises:
        UsageError: the bytes are not a complete safetensors file.
    """
    try:
        return load(data)
    except SafetensorError as error:
        raise UsageError(f"policy parameters are not a valid safetensors message: {error}") from error
