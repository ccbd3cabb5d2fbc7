"""What vector environments share: a base with seeds and resets, and writing gymnasium's infos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from racer.core.errors import UsageError

__all__ = ["SeededVectorEnv", "final_observations", "masked", "reset_arguments"]


class SeededVectorEnv(VectorEnv):
    """N environments of one kind, each with a generator of its own; one that ends begins again within the step.

    A world adds ``step``, ``get_state`` and ``set_state``, and says how episodes begin and what is seen.

    Args:
        num_envs: N.
        single: spaces of one environment's observations and actions.
        render_mode: None, as nothing is drawn.

    Raises:
        UsageError: no environments, or a render mode.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "reset_mask": True, "render_modes": []}

    def __init__(self, num_envs: int, single: tuple[spaces.Space, spaces.Space], render_mode: None = None) -> None:
        if num_envs < 1:
            raise UsageError(f"num_envs must be at least 1, not {num_envs}")
        if render_mode is not None:
            raise UsageError("the vector environment does not draw: film one environment with gymnasium.make")
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = single
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = None
        self._generators = [seeding.np_random(None)[0] for _ in range(num_envs)]

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode in every environment; an integer seeds them with seed, seed+1, ...

        ``options={"reset_mask": bool [N]}`` resets only some, as gymnasium's own vector environments do.
        """
        seeds, mask = reset_arguments(self.num_envs, seed, options)
        for i in np.flatnonzero(mask):
            if seeds[i] is not None:
                self._generators[i] = seeding.np_random(seeds[i])[0]
        self._begin(mask)
        return self._observe(), {}

    def _begin(self, mask: NDArray[np.bool_]) -> None:
        """Begin episodes where ``mask``, bool ``[N]``, from those environments' generators."""
        raise NotImplementedError

    def _observe(self) -> NDArray[np.float32]:
        """Return what is seen now, ``[N, ...]``."""
        raise NotImplementedError


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
