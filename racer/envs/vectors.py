"""What vector environments share: reading the arguments of ``reset`` and writing gymnasium's infos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError

__all__ = ["final_observations", "masked", "reset_arguments"]


def reset_arguments(
    num_envs: int, seed: int | Sequence[int | None] | None, options: Mapping[str, Any] | None
) -> tuple[list[int | None], NDArray[np.bool_]]:
    """Return a seed for each of N environments and which of them to reset, bool ``[N]``.

    Args:
        num_envs: N.
        seed: a whole number seeds them with seed, seed+1, ...; a sequence holds one for each.
        options: ``{"reset_mask": bool [N]}`` resets only some.

    Raises:
        UsageError: the number of seeds or the mask does not fit.
    """
    if seed is None or isinstance(seed, int | np.integer):
        seeds = [None if seed is None else int(seed) + i for i in range(num_envs)]
    else:
        seeds = list(seed)
    if len(seeds) != num_envs:
        raise UsageError(f"{len(seeds)} seeds were given for {num_envs} environments")
    mask = np.asarray((options or {}).get("reset_mask", np.ones(num_envs, dtype=bool)))
    if mask.shape != (num_envs,) or mask.dtype != bool or not mask.any():
        raise UsageError(f"reset_mask must be {num_envs} booleans with at least one True, not {mask!r}")
    return seeds, mask


def masked(values: Mapping[str, Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Write (nested) arrays in gymnasium's form: beside each key, ``_key`` says for which environments it holds.

    All keys share ``mask`` itself: a copy for each would cost more than the rest of the step's bookkeeping.
    """
    infos: dict[str, Any] = {}
    for key, value in values.items():
        infos[key] = masked(value, mask) if isinstance(value, dict) else value
        infos[f"_{key}"] = mask
    return infos


def final_observations(observations: NDArray[Any], ended: NDArray[np.bool_]) -> NDArray[Any]:
    """Return ``infos["final_obs"]``: the observations where ``ended``, None elsewhere, objects ``[N]``."""
    final = np.full(len(observations), None, dtype=object)
    indices = np.flatnonzero(ended)
    for i, last in zip(indices, observations[indices], strict=True):
        final[i] = last
    return final
