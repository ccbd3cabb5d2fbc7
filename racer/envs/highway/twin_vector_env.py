"""``gymnasium.make_vec("racer/highway-v0", num_envs=N)``: the batched twins."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from racer.core.errors import UsageError, unknown_name
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.simulator.generator import pack, unpack
from racer.envs.highway.simulator.readers import not_covered
from racer.envs.highway.twin_common import (
    ENGINES,
    VIDEO_SPEED,
    action_space,
    check_action,
    merge_config,
    observation_space,
    refused,
    warn_of_unknown_options,
)
from racer.envs.highway.twin_keys import live_keys, same_config, warn_of_unknown_keys
from racer.envs.highway.twin_scene import Scene
from racer.envs.highway.twin_simulator import TwinSimulator

if TYPE_CHECKING:
    from racer.envs.highway.twin_slots import Slot

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


class HighwayVectorTwin(VectorEnv):
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

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": VIDEO_SPEED,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    fast = False

    def __init__(
        self,
        num_envs: int = 1,
        config: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        num_threads: int = 1,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UsageError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.config = merge_config(config, self.fast)
        self.num_envs = num_envs
        self.num_threads = num_threads
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self._warned: set[str] = set()
        self._slots: dict[int, Slot] = {}
        self._lent: dict[int, np.random.Generator] = {}
        self._seeds: list[int] = [-1] * num_envs
        self._info_rng = np.random.default_rng()
        self._ended = np.zeros(num_envs, dtype=bool)
        self._build()

    def _build(self) -> None:
        """Make a simulator of the configuration."""
        warn_of_unknown_keys(self.config, (), self._warned, only_misspelt=False)
        try:
            simulator = TwinSimulator(
                copy.deepcopy(self.config), self.num_envs, fast=self.fast, num_threads=self.num_threads
            )
            parameters = simulator.parameters
            if parameters.observation.rows == 1:
                # highway-env returns all perceived cars then: the rows of a batch would differ
                raise not_covered("observation.vehicles_count (of a vector environment)", 1)
        except UsageError as error:
            raise refused(error) from None
        self.simulator = simulator
        self._seen = copy.deepcopy(self.config)
        self._slots = {}
        self.metadata = {
            **self.metadata,
            "render_fps": VIDEO_SPEED * self.config["policy_frequency"],
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_observation_space = observation_space(parameters.observation)
        self.single_action_space = action_space(parameters.action)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

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
            raise UsageError(
                f"reset_mask must be {self.num_envs} booleans, at least one of them true, got {mask!r}"
            )
        return mask

    def _change_at_reset(self, mask: np.ndarray) -> None:
        """Take over what has changed in ``self.config``.

        Raises:
            UsageError: if the environments that are not reset would need another road or another kind of agent.
        """
        if same_config(self.simulator.config, self.config):
            return
        if not mask.all():
            raise UsageError(
                "the configuration has changed: reset all environments together, "
                'or use vectorization_mode="sync", where each has its own'
            )
        self._take_generators()
        before = self.simulator
        self._build()
        before.close()
        for index in range(self.num_envs):
            self.simulator.set_generator_state(index, before.get_generator_state(index))

    def _scenes(self, given: Any) -> list[Scene | None]:
        """Return a scene, or None for a drawn one, for each environment."""
        listed = [given] * self.num_envs if given is None or isinstance(given, Mapping) else list(given)
        if len(listed) != self.num_envs:
            raise UsageError(f"{len(listed)} scenes were given for {self.num_envs} environments")
        others = self.config["vehicles_count"]
        scenes = [one and Scene.parse(one, self.config["lanes_count"], others) for one in listed]
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
            raise UsageError(
                f"reset environments {np.flatnonzero(self._ended).tolist()} before the next step"
            )
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

    def _follow_config(self) -> None:
        """Take over the keys of ``self.config`` that act at once, if any key has changed."""
        if not same_config(self._seen, self.config):
            warn_of_unknown_keys(self.config, (), self._warned, only_misspelt=False)
            self._seen = copy.deepcopy(self.config)
            try:
                self.simulator.adopt({**self.simulator.config, **live_keys(self._seen)})
            except UsageError as error:
                raise refused(error) from None

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return a frame ``[H, W, 3]`` uint8 of every environment."""
        if self.render_mode is None:
            return None
        return tuple(self.simulator.render(i) for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """End the threads and the viewer."""
        self.simulator.close()

    # one environment of the batch

    def _slot(self, index: int) -> Slot:
        if index not in self._slots:
            # brings highway-env, which stepping does not need
            from racer.envs.highway.twin_slots import make_slot

            self._slots[index] = make_slot(self, index)
        return self._slots[index]

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment, or read an attribute, as a SyncVectorEnv of single twins.

        What is read shows the present state; the environments are stepped and reset together only.
        """
        values = (self._slot(i).get_wrapper_attr(name) for i in range(self.num_envs))
        return tuple(value(*args, **kwargs) if callable(value) else value for value in values)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Read an attribute of every environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment, to one value or to a list of one for each.

        Raises:
            UsageError: for a part of the compiled scene, and for configurations that differ.
        """
        listed = list(values) if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(listed) != self.num_envs:
            raise UsageError(f"{len(listed)} values were given for {self.num_envs} environments")
        if name == "config":
            if not all(same_config(listed[0], other) for other in listed[1:]):
                raise UsageError('a batch has one configuration; use vectorization_mode="sync" for different ones')
            self.config = listed[0]
            self._slots = {}
            return
        for i, value in enumerate(listed):
            self._slot(i).set_wrapper_attr(name, value)

    @property
    def np_random(self) -> Any:
        """The environments' generators, as a SyncVectorEnv's."""
        return self.get_attr("np_random")

    @property
    def np_random_seed(self) -> Any:
        """The seed that each generator was last made from, -1 where none was given."""
        return tuple(self._seeds)

    def generator(self, index: int) -> np.random.Generator:
        """Return environment ``index``'s generator: what is drawn from it is drawn from the environment's stream."""
        if index not in self._lent:
            self._lent[index] = np.random.Generator(np.random.PCG64())
            self._give_generators()
        return self._lent[index]

    def _take_generators(self) -> None:
        for index, generator in self._lent.items():
            self.simulator.set_generator_state(index, pack(generator.bit_generator.state))

    def _give_generators(self) -> None:
        for index, generator in self._lent.items():
            generator.bit_generator.state = unpack(self.simulator.get_generator_state(index))

    def _leave_views(self, chosen: np.ndarray) -> None:
        """Let what shows the ended episodes keep its values."""
        for index, slot in self._slots.items():
            if index in chosen:
                slot.leave_views()

    # states

    def get_state(self) -> dict[str, Any]:
        """Return everything that decides the future, as copies."""
        self._take_generators()
        return {
            "engine": "compiled",
            "config": copy.deepcopy(self.simulator.config),
            "ended": self._ended.copy(),
            "info_generator": self._info_rng.bit_generator.state,
            **self.simulator.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state of :meth:`get_state`, exactly; the configuration becomes the state's.

        Raises:
            UsageError: for the state of another batch, or one that is not a state.
        """
        for name in ("config", "ended", "info_generator"):
            if name not in state:
                raise UsageError(f"the state lacks {name!r}; it must come from get_state() of such a batch")
        simulator = self.simulator
        if not same_config(simulator.config, state["config"]):
            simulator = TwinSimulator(
                copy.deepcopy(state["config"]), self.num_envs, fast=self.fast, num_threads=self.num_threads
            )
        self._leave_views(np.arange(self.num_envs))
        simulator.set_state(state)
        if simulator is not self.simulator:
            self.config.clear()
            self.config.update(copy.deepcopy(state["config"]))
            self._seen = copy.deepcopy(self.config)
            self._slots = {}
        self.simulator = simulator
        self._ended = np.array(state["ended"])
        self._info_rng.bit_generator.state = state["info_generator"]
        self._give_generators()

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
