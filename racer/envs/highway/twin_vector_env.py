"""``gymnasium.make_vec("racer/highway-v0", num_envs=N)``: the batched twins."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from racer.core.errors import UsageError, unknown_name
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.twin_batch import Batch
from racer.envs.highway.twin_common import ENGINES, check_action, warn_of_unknown_options
from racer.envs.highway.twin_scene import Scene

__all__ = ["HighwayFastVectorTwin", "HighwayVectorTwin", "make_fast_vector", "make_vector"]


def make_vector(
    num_envs: int = 1,
    *,
    engine: str = "compiled",
    wrappers: Sequence[Callable[[gymnasium.Env], gymnasium.Env]] = (),
    vector_kwargs: Mapping[str, Any] | None = None,
    env_id: str = "racer/highway-v0",
    **options: Any,
) -> VectorEnv:
    """Make the vector environment of ``gymnasium.make_vec``.

    It is one batch, stepped in one compiled call, or, where a batch cannot serve, gymnasium's SyncVectorEnv of single
    twins: with ``wrappers``, which wrap single environments, with an episode limit of gymnasium's, and with
    highway-env's engine.

    Args:
        num_envs: environments.
        engine: ``compiled``, ``highway-env`` or ``auto``, as of the single twin.
        wrappers: functions from an environment to a wrapped one.
        vector_kwargs: SyncVectorEnv's arguments.
        env_id: the single twin's id.
        options: arguments of :class:`HighwayVectorTwin`, or of ``gymnasium.make``.

    Raises:
        UsageError: for what is not covered, and for an unknown engine.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", str(engine), ENGINES)
    arguments = dict(vector_kwargs or {})
    threads = options.pop("num_threads", 1)
    if "autoreset_mode" in options:
        arguments["autoreset_mode"] = options.pop("autoreset_mode")
    single = wrappers or engine == "highway-env" or options.keys() - {"config", "render_mode"}
    if not single and arguments.keys() <= {"autoreset_mode", "copy"}:
        kind = HighwayFastVectorTwin if env_id == "racer/highway-fast-v0" else HighwayVectorTwin
        try:
            return kind(
                num_envs, num_threads=threads, autoreset_mode=arguments.get("autoreset_mode", NEXT_STEP), **options
            )
        except UsageError as error:
            if engine == "compiled":
                raise
            warnings.warn(f"{env_id} is not stepped as a batch: {error}", stacklevel=3)

    def make() -> gymnasium.Env:
        env = gymnasium.make(env_id, engine=engine, **options)
        for wrapper in wrappers:
            env = wrapper(env)
        return env

    return SyncVectorEnv([make] * num_envs, **arguments)


def make_fast_vector(num_envs: int = 1, **options: Any) -> VectorEnv:
    """Make the vector environment of highway-fast-v0's twin; see :func:`make_vector`."""
    return make_vector(num_envs, env_id="racer/highway-fast-v0", **options)


NEXT_STEP = AutoresetMode.NEXT_STEP


class HighwayVectorTwin(Batch):
    """``num_envs`` highway-v0 environments in one compiled call.

    Environment ``i`` behaves as the single twin in a ``SyncVectorEnv`` of the same autoreset mode, infos included:
    ``speed`` (m/s), ``crashed``, ``action`` and ``rewards``, each with its mask; with SAME_STEP also ``final_obs``
    and ``final_info`` of the environments that ended. All environments share one configuration.

    Args:
        num_envs: environments in the batch.
        config: highway-env's configuration keys; the rest keeps the id's defaults.
        render_mode: None or ``rgb_array``.
        autoreset_mode: what happens at an episode's end; ``metadata["autoreset_mode"]`` declares it.
        num_threads: threads that share a step.

    Raises:
        UsageError: for a configuration that is not covered.
    """

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw new scenes.

        Args:
            seed: one a environment, or a number for ``seed, seed + 1, ...``; None goes on with the generators.
            options: ``{"reset_mask": [N] bool}`` resets those environments only; ``{"config": {...}}`` changes keys
                first; ``{"scene": ...}`` chooses the vehicles, one scene for all or a list of one (or None) for each.

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
        options = dict(options or {})
        warn_of_unknown_options(options, ("reset_mask", "config", "scene"))
        mask = self._reset_mask(options.get("reset_mask"))
        self.config.update(options.get("config") or {})
        self._change_at_reset(mask)
        chosen = np.flatnonzero(mask)
        self._reset(chosen, [seeds[i] for i in chosen], self._scenes(options.get("scene")))
        self._ended[chosen] = False
        return self.simulator.observe(), self._infos(self._sampled_actions(chosen), mask)

    def _reset_mask(self, mask: Any) -> np.ndarray:
        if mask is None:
            return np.ones(self.num_envs, dtype=bool)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise UsageError(f"reset_mask must be {self.num_envs} booleans, at least one of them true, got {mask!r}")
        return mask

    def _scenes(self, given: Any) -> list[Scene | None]:
        """Return a scene, or None for a drawn one, for each environment."""
        listed = [given] * self.num_envs if given is None or isinstance(given, Mapping) else list(given)
        if len(listed) != self.num_envs:
            raise UsageError(f"{len(listed)} scenes were given for {self.num_envs} environments")
        others = self.config["vehicles_count"]
        lanes = self.config["lanes_count"]
        scenes = [None if one is None else Scene.parse(one, lanes, others) for one in listed]
        for i, scene in enumerate(scenes):
            if scene and scene.others != others:
                raise UsageError(
                    f"scene {i} has {scene.others} others; a batch has vehicles_count = {others} in every environment"
                )
        return scenes

    def _reset(self, chosen: np.ndarray, seeds: Sequence[int | None], scenes: Sequence[Scene | None]) -> None:
        """Reset the environments ``chosen``."""
        self._leave_views(chosen)
        self._take_generators()
        drawn = [(i, seed) for i, seed in zip(chosen, seeds, strict=True) if scenes[i] is None]
        for i, seed in zip(chosen, seeds, strict=True):
            scene = scenes[i]
            if seed is not None:
                self._seeds[i] = seed
            if scene is not None:
                self.simulator.seed(i, seed)
                self.simulator.reset_to(i, scene)
        if drawn:
            self.simulator.reset([seed for _, seed in drawn], [i for i, _ in drawn])
        self._give_generators()

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one policy step in every environment.

        Args:
            actions: ``[N, A]`` float32, or ``[N]`` whole numbers.

        Returns:
            observations ``[N, K, F]``, rewards ``[N]``, terminated ``[N]``, truncated ``[N]`` and infos.

        Raises:
            UsageError: in the DISABLED mode, if an environment that ended has not been reset.
        """
        actions = check_action(actions)
        self._follow_config()
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and self._ended.any():
            return self._step_with_next_reset(actions)
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            raise UsageError(f"reset environments {np.flatnonzero(self._ended).tolist()} before the next step")
        simulator = self.simulator
        self._take_generators()
        simulator.step(actions)
        self._give_generators()
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
        self._reset_ended(chosen)
        shown = actions.astype(self.action_space.dtype)
        shown[chosen] = self._sampled_actions(chosen)[chosen]
        infos = self._infos(shown)
        infos.update(final_obs=final_obs, _final_obs=ended.copy(), final_info=final_info, _final_info=ended.copy())
        return simulator.observe(), rewards, terminated, truncated, infos

    def _step_with_next_reset(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step those that go on and reset those that ended; the latter's actions are ignored."""
        simulator = self.simulator
        resetting = self._ended
        chosen = np.flatnonzero(resetting)
        self._leave_views(chosen)
        self._take_generators()
        kept = [simulator.get_generator_state(int(i)) for i in chosen]
        simulator.step(actions)
        rewards = np.where(resetting, 0.0, simulator.rewards)
        terminated, truncated = simulator.terminated & ~resetting, simulator.truncated & ~resetting
        for i, state in zip(chosen, kept, strict=True):
            simulator.set_generator_state(int(i), state)
        self._give_generators()
        self._reset_ended(chosen)
        self._ended = terminated | truncated
        shown = actions.astype(self.action_space.dtype)
        shown[chosen] = self._sampled_actions(chosen)[chosen]
        infos = self._infos(shown)
        return simulator.observe(), rewards, terminated, truncated, infos

    def _reset_ended(self, chosen: np.ndarray) -> None:
        mask = np.zeros(self.num_envs, dtype=bool)
        mask[chosen] = True
        self._change_at_reset(mask)
        self._reset(chosen, [None] * len(chosen), [None] * self.num_envs)

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
