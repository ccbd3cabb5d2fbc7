"""``gymnasium.make_vec("racer/highway-v0", num_envs=N)``: the batched twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from racer.core.errors import UsageError
from racer.envs.highway.simulator import HighwaySimulator
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.simulator.readers import not_covered
from racer.envs.highway.twin_env import VIDEO_SPEED, action_space, merge_config, observation_space

__all__ = ["HighwayFastVectorTwin", "HighwayVectorTwin"]


class HighwayVectorTwin(VectorEnv):
    """``num_envs`` highway-v0 environments in one compiled call.

    Environment ``i`` behaves as the single twin in a ``SyncVectorEnv`` of the same autoreset mode, infos included:
    ``speed`` (m/s), ``crashed``, ``action`` and ``rewards``, each with its mask; with SAME_STEP also ``final_obs``
    and ``final_info`` of the environments that ended.

    Args:
        num_envs: environments in the batch.
        config: highway-env's configuration keys; the rest keeps the id's defaults.
        render_mode: None or ``rgb_array``.
        autoreset_mode: what happens at an episode's end; ``metadata["autoreset_mode"]`` declares it.
        num_threads: threads that share a step.

    Raises:
        UsageError: for a configuration that is not covered.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": VIDEO_SPEED,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    fast = False

    def __init__(
        self,
        num_envs: int = 1,
        config: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        num_threads: int = 1,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UsageError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.config = merge_config(config, self.fast)
        self.simulator = HighwaySimulator(self.config, num_envs, fast=self.fast, num_threads=num_threads)
        parameters = self.simulator.parameters
        if parameters.observation.rows == 1:
            # highway-env returns all perceived cars then: the rows of a batch would differ
            raise not_covered("observation.vehicles_count (of a vector environment)", 1)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {
            **self.metadata,
            "render_fps": VIDEO_SPEED * self.config["policy_frequency"],
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_observation_space = observation_space(parameters.observation)
        self.single_action_space = action_space(parameters.action)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._info_rng = np.random.default_rng()
        self._ended = np.zeros(num_envs, dtype=bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw new scenes.

        Args:
            seed: one a environment, or a number for ``seed, seed + 1, ...``; None goes on with the generators.
            options: ``{"reset_mask": [N] bool}`` resets those environments only.

        Returns:
            observations ``[N, K, F]`` float32 and infos.

        Raises:
            UsageError: for a wrong number of seeds, a wrong mask, or options that are not covered.
        """
        if seed is None or isinstance(seed, int | np.integer):
            seeds: list[int | None] = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise UsageError(f"{len(seeds)} seeds were given for {self.num_envs} environments")
        mask = self._reset_mask(dict(options or {}))
        chosen = np.flatnonzero(mask)
        self.simulator.reset([seeds[i] for i in chosen], chosen)
        self._ended[chosen] = False
        return self.simulator.observe(), self._infos(self._sampled_actions(chosen), mask)

    def _reset_mask(self, options: dict[str, Any]) -> np.ndarray:
        mask = options.pop("reset_mask", None)
        if options:
            raise UsageError(
                f"options {sorted(options)} are not covered by the vector environment; make a new one"
            )
        if mask is None:
            return np.ones(self.num_envs, dtype=bool)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise UsageError(
                f"reset_mask must be {self.num_envs} booleans, at least one of them true, got {mask!r}"
            )
        return mask

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one policy step in every environment.

        Args:
            actions: ``[N, A]`` float32, or ``[N]`` whole numbers.

        Returns:
            observations ``[N, K, F]``, rewards ``[N]``, terminated ``[N]``, truncated ``[N]`` and infos.

        Raises:
            UsageError: in the DISABLED mode, if an environment that ended has not been reset.
        """
        actions = np.asarray(actions)
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and self._ended.any():
            return self._step_with_next_reset(actions)
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            raise UsageError(
                f"reset environments {np.flatnonzero(self._ended).tolist()} before the next step"
            )
        simulator = self.simulator
        simulator.step(actions)
        rewards = simulator.rewards.copy()
        terminated, truncated = simulator.terminated, simulator.truncated
        ended = terminated | truncated
        self._ended = ended
        if self.autoreset_mode is not AutoresetMode.SAME_STEP or not ended.any():
            return simulator.observe(), rewards, terminated, truncated, self._infos(actions)
        chosen = np.flatnonzero(ended)
        final_obs = np.full(self.num_envs, None, dtype=object)
        observations = simulator.observe()
        for i in chosen:
            final_obs[i] = observations[i].copy()
        final_info = self._infos(actions, ended)
        simulator.reset(indices=chosen)
        shown = actions.astype(self.action_space.dtype)
        shown[chosen] = self._sampled_actions(chosen)[chosen]
        infos = self._infos(shown)
        infos.update(
            final_obs=final_obs, _final_obs=ended.copy(), final_info=final_info, _final_info=ended.copy()
        )
        return simulator.observe(), rewards, terminated, truncated, infos

    def _step_with_next_reset(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step those that go on and reset those that ended; the latter's actions are ignored."""
        simulator = self.simulator
        resetting = self._ended
        chosen = np.flatnonzero(resetting)
        kept = [simulator.get_generator_state(int(i)) for i in chosen]
        simulator.step(actions)
        rewards = np.where(resetting, 0.0, simulator.rewards)
        terminated, truncated = simulator.terminated & ~resetting, simulator.truncated & ~resetting
        for i, state in zip(chosen, kept, strict=True):
            simulator.set_generator_state(int(i), state)
        simulator.reset(indices=chosen)
        self._ended = terminated | truncated
        shown = actions.astype(self.action_space.dtype)
        shown[chosen] = self._sampled_actions(chosen)[chosen]
        infos = self._infos(shown)
        return simulator.observe(), rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return a frame ``[H, W, 3]`` uint8 of every environment."""
        if self.render_mode is None:
            return None
        return tuple(self.simulator.render(i) for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """End the threads and the viewer."""
        self.simulator.close()

    def _sampled_actions(self, chosen: np.ndarray) -> np.ndarray:
        """A random action for each chosen environment: highway-env's info of a reset shows one."""
        sampled = np.zeros(self.action_space.shape or (), self.action_space.dtype)
        action = self.simulator.parameters.action
        if action.is_discrete:
            sampled[chosen] = self._info_rng.integers(action.size, size=len(chosen))
        else:
            sampled[chosen] = self._info_rng.uniform(-1.0, 1.0, (len(chosen), action.size))
        return sampled

    def _infos(self, actions: np.ndarray, mask: np.ndarray | None = None) -> dict[str, Any]:
        """Info of the environments in ``mask`` ``[N]`` (all by default), in gymnasium's batched form.

        Elsewhere the values are zero and the masks False.
        """
        # one copy for all keys: the arrays below are its columns
        values = self.simulator.results.copy()
        shown = actions.astype(self.action_space.dtype)
        masks = np.ones((len(at.COMPONENTS) + 4, self.num_envs), dtype=bool)
        if mask is not None:
            values[~mask] = 0.0
            shown[~mask] = 0
            masks &= mask
        rewards: dict[str, Any] = {}
        for k, (name, column) in enumerate(at.COMPONENTS.items()):
            rewards[name] = values[:, column]
            rewards[f"_{name}"] = masks[4 + k]
        return {
            "speed": values[:, at.EGO_SPEED],
            "_speed": masks[0],
            "crashed": values[:, at.EGO_CRASHED] != 0,
            "_crashed": masks[1],
            "action": shown,
            "_action": masks[2],
            "rewards": rewards,
            "_rewards": masks[3],
        }


class HighwayFastVectorTwin(HighwayVectorTwin):
    """highway-fast-v0 in batches: its defaults, and only the ego's collisions count."""

    fast = True
