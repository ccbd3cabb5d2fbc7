"""Observations in rows ``[V, F]`` whose order tells nothing: row 0, the observer's own, stays, others are shuffled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["permuted_rows"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permuted_rows(observations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return observations ``[..., V, F]`` with rows 1 to V - 1 in random order, each observation in its own.

    The order is a hash of the observation's own bits: uniform over orders for all that a policy can tell, and yet
    without a random stream that would have to be seeded, saved and given back. Equal observations are shuffled alike,
    so it makes no difference how many are looked at together, or where.
    """
    rows = observations.shape[-2]
    flat = np.ascontiguousarray(observations, np.float32).reshape(-1, rows, observations.shape[-1])
    bits = flat.view(np.uint32).reshape(len(flat), -1).astype(np.uint64)
    with np.errstate(over="ignore"):
        places = _mixed(np.arange(1, bits.shape[1] + 1, dtype=np.uint64) * _GOLDEN)
        seeds = _mixed(_mixed(bits ^ places).sum(axis=1, dtype=np.uint64))
        keys = _mixed(seeds[:, None] + np.arange(1, rows, dtype=np.uint64) * _GOLDEN)
    order = np.concatenate([np.zeros((len(flat), 1), np.intp), 1 + np.argsort(keys, axis=1, kind="stable")], axis=1)
    shuffled: NDArray[np.float32] = np.take_along_axis(flat, order[:, :, None], axis=1)
    return shuffled.reshape(observations.shape)


def _mixed(values: Any) -> Any:
    """Mix 64 bits so that each depends on all (the finalizer of SplitMix64; Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
