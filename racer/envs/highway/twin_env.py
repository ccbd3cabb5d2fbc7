"""``racer/highway-v0`` and ``racer/highway-fast-v0``: one environment, highway-env's interface and class.

A twin *is* a highway-env environment whose steps and resets are compiled. Everything around them is either highway-env's
own code over views of the compiled state, or refused with the way out; nothing is ignored.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from highway_env.envs.highway_env import HighwayEnv, HighwayEnvFast

from racer.core.errors import UsageError, unknown_name
from racer.envs.highway.headless import prepare_drawing
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.simulator.generator import pack, unpack
from racer.envs.highway.twin_common import (
    ENGINES,
    action_space,
    check_action,
    observation_space,
    refused,
    warn_of_unknown_options,
)
from racer.envs.highway.twin_keys import live_keys, same_config, warn_of_unknown_keys
from racer.envs.highway.twin_scene import Scene, place_vehicles, read_scene
from racer.envs.highway.twin_simulator import TwinSimulator
from racer.envs.highway.twin_types import EpisodeViews
from racer.envs.highway.twin_variants import changed, check_constants, simplified

__all__ = ["HighwayFastTwin", "HighwayTwin"]

# methods that a subclass may replace: they are called, and read the compiled state through views
HOOKS = ("_reward", "_rewards", "_is_terminated", "_is_truncated", "_info")
# methods that make or move the scene: replaced, they need highway-env itself
SCENE_HOOKS = ("_reset", "_create_road", "_create_vehicles", "_simulate", "define_spaces")


def shown(name: str, read: Callable[[Any], Any]) -> Any:
    """Build an attribute that shows the compiled state, and is highway-env's own while that steps."""
    key = f"_own_{name}"

    def get(self: HighwayTwin) -> Any:
        return self.__dict__[key] if self.simulator is None else read(self)

    def put(self: HighwayTwin, value: Any) -> None:
        self._ask_to_write(f"env.{name}")
        self.__dict__[key] = value

    return property(get, put)


class HighwayTwin(HighwayEnv):
    """highway-v0 from compiled code: the same ``reset(seed=...)`` and actions give the same episode.

    Args:
        config: highway-env's configuration keys; the rest keeps the id's defaults.
        render_mode: None, ``rgb_array`` or ``human``.
        engine: ``compiled``; ``highway-env``, which leaves everything to highway-env; or ``auto``, which does so, with a
            warning, from the moment something needs it until the next reset.

    Attributes:
        simulator: the compiled scene; None while highway-env steps.

    Raises:
        UsageError: for a configuration or an override that the compiled simulator does not cover, naming it.
    """

    fast = False
    simulator: TwinSimulator | None = None

    def __init__(
        self, config: Mapping[str, Any] | None = None, render_mode: str | None = None, engine: str = "compiled"
    ) -> None:
        if engine not in ENGINES:
            raise unknown_name("engine", str(engine), ENGINES)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise unknown_name("render mode", str(render_mode), self.metadata["render_modes"])
        self.engine = engine
        self.metadata = dict(type(self).metadata)
        self._views = EpisodeViews()
        self._scene: Scene | None = None
        self._warned: set[str] = set()
        self._seen: dict[str, Any] | None = None
        super().__init__(dict(config or {}), render_mode)

    # the scene, as highway-env's attributes

    road = shown("road", lambda self: self._views.scene(self).road)
    controlled_vehicles = shown("controlled_vehicles", lambda self: self._views.egos(self))
    action_type = shown("action_type", lambda self: self._views.action_type(self))
    observation_type = shown("observation_type", lambda self: self._views.observation_type(self))
    time = shown("time", lambda self: self.simulator.time[0])
    steps = shown("steps", lambda self: int(self.simulator.frames[0]))

    def view_of_copy(self, index: int) -> Any:
        """Return vehicle ``index`` of this environment, which a deep copy has just made."""
        return self._views.scene(self).vehicles[index]

    def _ask_to_write(self, what: str) -> None:
        """Raise, or let highway-env go on with the episode, before something of the scene is written."""
        if self.simulator is None:
            return
        if self.engine != "auto":
            raise refused(
                f'{what} cannot be written: the scene is compiled. Choose vehicles with reset(options={{"scene": ...}}), '
                "return to a get_state() with set_state()"
            )
        self._hand_over(f"{what} is written")

    def _hand_over(self, reason: str) -> None:
        """Make plain highway-env objects of the scene: highway-env steps it from here."""
        views = self._views
        own = {name: getattr(self, name) for name in ("road", "action_type", "observation_type", "time", "steps")}
        own["controlled_vehicles"] = list(self.controlled_vehicles)
        self._note(reason)
        views.scene(self).release()
        self.simulator = None
        self._views = EpisodeViews()
        for name, value in own.items():
            setattr(self, name, value)

    def _note(self, reason: str) -> None:
        if reason not in self._warned:
            self._warned.add(reason)
            warnings.warn(f"highway-env itself steps this episode of {type(self).__name__}: {reason}", stacklevel=5)

    # the configuration

    def configure(self, config: dict) -> None:
        """Change keys: times and rewards at once, the rest at the next reset, as in highway-env."""
        super().configure(config)
        self._warn_of_keys()

    def _warn_of_keys(self) -> None:
        ours = type(self) in ORIGINALS
        warn_of_unknown_keys(self.config, self.default_config(), self._warned, only_misspelt=not ours)

    def _replaced(self, *names: str) -> str | None:
        """Return the first of these methods that is not the twin's own: overridden, patched or assigned."""
        own = ORIGINALS[next(kind for kind in type(self).__mro__ if kind in ORIGINALS)]
        for name in names:
            if name in self.__dict__ or getattr(type(self), name) is not own[name]:
                return name
        return None

    def _compiled(self, others: int | None) -> TwinSimulator | None:
        """Return a simulator of the configuration, the present one where that serves; None: it is highway-env's turn.

        Raises:
            UsageError: with the compiled engine, for what is not covered.
        """
        if self.engine == "highway-env":
            return None
        config = self.config if others is None else {**self.config, "vehicles_count": others}
        try:
            replaced = self._replaced(*SCENE_HOOKS)
            if replaced is not None:
                raise UsageError(f"an override of {replaced}() is not compiled")
            if self.PERCEPTION_DISTANCE != at.PERCEPTION_DISTANCE:
                raise UsageError(f"PERCEPTION_DISTANCE = {self.PERCEPTION_DISTANCE} is not compiled")
            check_constants()
            simulator = self.simulator
            if simulator is None or simulator.fast != self.fast or not same_config(simulator.config, config):
                simulator = TwinSimulator(copy.deepcopy(config), 1, fast=self.fast)
        except UsageError as error:
            if self.engine == "compiled":
                raise refused(error) from None
            self._note(str(error))
            return None
        return simulator

    def define_spaces(self) -> None:
        """Set the spaces, and what is observed from the next step on, from the configuration."""
        if self.simulator is None:
            if self._seen is not None or self.engine == "highway-env":
                super().define_spaces()
            return  # at construction: the first reset follows
        self._adopt({key: self.config[key] for key in ("observation", "action")})
        if self.simulator is None:
            super().define_spaces()
            return
        self._views.forget_types()
        self._set_spaces()

    def _set_spaces(self) -> None:
        assert self.simulator is not None
        parameters = self.simulator.parameters
        self.observation_space = observation_space(parameters.observation)
        # a new one each time, as highway-env's: a seed given to the action space ends here
        self.action_space = action_space(parameters.action)

    def _adopt(self, keys: Mapping[str, Any]) -> None:
        """Go on with the scene under changed keys; highway-env goes on with it where they are not covered."""
        assert self.simulator is not None
        try:
            self.simulator.adopt({**self.simulator.config, **copy.deepcopy(dict(keys))})
        except UsageError as error:
            if self.engine == "compiled":
                raise refused(error) from None
            self._hand_over(str(error))

    def _follow_config(self) -> None:
        """Take over the keys that act at once, if any key has changed."""
        if not same_config(self._seen, self.config):
            self._warn_of_keys()
            self._seen = copy.deepcopy(self.config)
            self._adopt(live_keys(self.config))

    # episodes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a new scene.

        Args:
            seed: re-seeds the generator; None goes on with it.
            options: ``{"config": {...}}`` changes configuration keys first, as in highway-env; ``{"scene": {...}}``
                chooses the vehicles (see :mod:`racer.envs.highway.twin_scene`).

        Returns:
            the observation ``[K, F]`` float32 and the info ``speed`` (m/s), ``crashed``, ``action`` (a sample of
            the action space) and ``rewards``.

        Raises:
            UsageError: for what is not covered, and for a wrong scene.
        """
        gymnasium.Env.reset(self, seed=seed, options=options)
        options = options or {}
        warn_of_unknown_options(options, ("config", "scene"))
        if "config" in options:
            self.configure(options["config"])
        scene, others = None, None
        if options.get("scene") is not None:
            scene = Scene.parse(options["scene"], self.config["lanes_count"], self.config["vehicles_count"])
            others = scene.others
        simulator = self._compiled(others)
        self._views = self._views.next_episode()
        self.simulator, self._scene = simulator, scene
        if not same_config(self._seen, self.config):
            self._warn_of_keys()
            self._seen = copy.deepcopy(self.config)
        if simulator is None:
            return super().reset()
        self.update_metadata()
        self._set_spaces()
        self.done = False
        self._lend_generator()
        if scene is None:
            simulator.reset()
        else:
            simulator.reset_to(0, scene)
        self._return_generator()
        observation = self._observation()
        info = self._judge(observation, self.action_space.sample())[-1]
        if self.render_mode == "human":
            self.render()
        return observation, info

    def _reset(self) -> None:
        """Let highway-env draw a scene, and put the vehicles where the chosen one says."""
        scene = self._scene
        if scene is None:
            super()._reset()
            return
        drawn = self.config["vehicles_count"]
        self.config["vehicles_count"] = scene.others
        try:
            super()._reset()
        finally:
            self.config["vehicles_count"] = drawn
        place_vehicles(self.road.vehicles, scene)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one policy step; see highway-env for what an action means.

        Raises:
            UsageError: for an action that is NaN, out of range or of the wrong shape.
        """
        array = check_action(action)
        if self.simulator is not None:
            self._follow_config()
        simulator = self.simulator
        if simulator is None:
            return super().step(action)
        shuffled = simulator.parameters.observation.shuffled
        if shuffled:
            self._lend_generator()
        filming = self.viewer is not None and self.enable_auto_render
        films = filming or self._replaced("_automatic_rendering")
        simulator.policy_step(array[None], self._automatic_rendering if films else None)
        self.enable_auto_render = False
        if shuffled:
            self._return_generator()
        self._views.acted(action)
        observation = self._observation()
        reward, terminated, truncated, info = self._judge(observation, action)
        if self.render_mode == "human":
            self.render()
        return observation, reward, terminated, truncated, info

    def _observation(self) -> np.ndarray:
        simulator = self.simulator
        assert simulator is not None
        # with vehicles_count = 1 highway-env returns every perceived car, whatever its space says
        return simulator.observe()[0, : simulator.observed_rows[0]]

    def _judge(self, observation: np.ndarray, action: Any) -> tuple[float, bool, bool, dict[str, Any]]:
        """Return reward, end flags and info of the present state, by the methods that have been replaced."""
        simulator = self.simulator
        assert simulator is not None
        reward, terminated, truncated = (
            float(simulator.rewards[0]), bool(simulator.terminated[0]), bool(simulator.truncated[0])
        )  # fmt: skip
        if self._replaced(*HOOKS) is None:
            return reward, terminated, truncated, {
                "speed": float(simulator.ego_speed[0]),
                "crashed": bool(simulator.ego_crashed[0]),
                "action": action,
                "rewards": {name: float(value[0]) for name, value in simulator.reward_components.items()},
            }  # fmt: skip
        if simulator.frames[0] > 0:
            if self._replaced("_reward", "_rewards"):
                reward = self._reward(action)
            if self._replaced("_is_terminated"):
                terminated = self._is_terminated()
            if self._replaced("_is_truncated"):
                truncated = self._is_truncated()
        return reward, terminated, truncated, self._info(observation, action)

    def _lend_generator(self) -> None:
        state = self.np_random.bit_generator.state
        if state["bit_generator"] != "PCG64":
            raise refused(f"np_random draws by {state['bit_generator']}, the compiled simulator by PCG64")
        assert self.simulator is not None
        self.simulator.set_generator_state(0, pack(state))

    def _return_generator(self) -> None:
        assert self.simulator is not None
        self.np_random.bit_generator.state = unpack(self.simulator.get_generator_state(0))

    # drawing

    def render(self) -> np.ndarray | None:
        """Return the frame ``[H, W, 3]`` uint8, drawn by highway-env's viewer; with ``human``, show it."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs a render mode: pass render_mode='rgb_array' to gymnasium.make")
            return None
        prepare_drawing()
        return super().render()

    # planning

    def action_masks(self) -> np.ndarray:
        """Return which discrete actions are available, ``[A]`` bool (the name that maskable agents call)."""
        mask = np.zeros(self.action_space.n, dtype=bool)
        mask[self.get_available_actions()] = True
        return mask

    def simplify(self) -> HighwayTwin:
        """Return a copy without the vehicles that are out of sight, until its next reset."""
        if self.simulator is None:
            return super().simplify()
        twin = copy.deepcopy(self)
        twin.simulator = simplified(self.simulator, self._views.scene(self))
        return twin

    def change_vehicles(self, vehicle_class_path: str) -> HighwayTwin:
        """Return a copy whose other vehicles are of another class, until its next reset."""
        twin = copy.deepcopy(self)
        if twin.simulator is not None:
            try:
                twin.simulator = changed(twin.simulator, vehicle_class_path)
                return twin
            except UsageError as error:
                if self.engine == "compiled":
                    raise refused(error) from None
                twin._hand_over(str(error))
        return HighwayEnv.change_vehicles(twin, vehicle_class_path)

    def _writable_copy(self, method: str) -> HighwayTwin:
        twin = copy.deepcopy(self)
        twin._ask_to_write(f"what {method}() sets")
        return twin

    def set_preferred_lane(self, preferred_lane: int | None = None) -> HighwayEnv:
        return HighwayEnv.set_preferred_lane(self._writable_copy("set_preferred_lane"), preferred_lane)

    def set_route_at_intersection(self, _to: str) -> HighwayEnv:
        return HighwayEnv.set_route_at_intersection(self._writable_copy("set_route_at_intersection"), _to)

    def set_vehicle_field(self, args: tuple[str, object]) -> HighwayEnv:
        return HighwayEnv.set_vehicle_field(self._writable_copy("set_vehicle_field"), args)

    def call_vehicle_method(self, args: tuple[str, tuple[object]]) -> HighwayEnv:
        return HighwayEnv.call_vehicle_method(self._writable_copy("call_vehicle_method"), args)

    def randomize_behavior(self) -> HighwayEnv:
        return HighwayEnv.randomize_behavior(self._writable_copy("randomize_behavior"))

    def __deepcopy__(self, memo: dict[int, Any]) -> HighwayTwin:
        """Copy all but the viewer; the copy goes its own way."""
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        shared = {"_seen": self._seen, "viewer": None, "_record_video_wrapper": None}
        # first what the copies of a subclass's own attributes may look at
        twin.__dict__.update(shared)
        twin.__dict__["simulator"] = copy.deepcopy(self.simulator, memo)
        twin._views = EpisodeViews()
        for name, value in self.__dict__.items():
            if name not in shared and name not in ("simulator", "_views"):
                twin.__dict__[name] = copy.deepcopy(value, memo)
        return twin

    # states and scenes

    def get_scene(self) -> dict[str, Any]:
        """Return the present vehicles as a scene that ``reset(options={"scene": ...})`` takes."""
        return read_scene(self.road.vehicles)

    def get_state(self) -> dict[str, Any]:
        """Return everything that decides the future, as copies."""
        if self.simulator is None:
            return {"engine": "highway-env", "environment": copy.deepcopy(self)}
        state = self.simulator.get_state()
        state["rng"] = pack(self.np_random.bit_generator.state)[None]
        config = copy.deepcopy(self.simulator.config)
        return {"engine": "compiled", "config": config, "fast": self.simulator.fast, **state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state of :meth:`get_state`, exactly; the episode goes on under the configuration that it had.

        Raises:
            UsageError: for a state of another engine, or one that is not a state.
        """
        engine = state.get("engine")
        if engine not in ("compiled", "highway-env") or self.engine not in (engine, "auto"):
            raise UsageError(f"a state of engine {engine!r} does not fit an environment of engine {self.engine!r}")
        self._views = self._views.next_episode()
        if engine == "highway-env":
            source, memo = state["environment"], {id(state["environment"]): self}
            self.simulator = None
            for name, value in source.__dict__.items():
                if name not in ("engine", "viewer", "_record_video_wrapper", "render_mode", "metadata", "_views"):
                    self.__dict__[name] = copy.deepcopy(value, memo)
            return
        simulator = self.simulator
        if simulator is None or simulator.fast != state["fast"] or not same_config(simulator.config, state["config"]):
            simulator = TwinSimulator(copy.deepcopy(state["config"]), 1, fast=state["fast"])
        simulator.set_state(state)
        self.simulator = simulator
        self._return_generator()


class HighwayFastTwin(HighwayTwin, HighwayEnvFast):
    """highway-fast-v0 from compiled code: its defaults, and only the ego's collisions count."""

    fast = True


def _methods(kind: type) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in (*HOOKS, *SCENE_HOOKS, "_automatic_rendering")}


ORIGINALS = {kind: _methods(kind) for kind in (HighwayTwin, HighwayFastTwin)}
