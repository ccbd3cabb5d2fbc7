"""What a twin is made of: its engine, its configuration and the scene as highway-env's attributes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from highway_env.envs.highway_env import HighwayEnv

from racer.core.errors import UsageError, unknown_name
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.simulator.config import Parameters
from racer.envs.highway.twin_common import ENGINES, action_space, observation_space, refused
from racer.envs.highway.twin_keys import live_keys, same_config, warn_of_unknown_keys
from racer.envs.highway.twin_scene import Scene
from racer.envs.highway.twin_simulator import NewSceneNeeded, TwinSimulator
from racer.envs.highway.twin_types import EpisodeViews
from racer.envs.highway.twin_variants import check_constants

__all__ = ["HOOKS", "ORIGINALS", "SCENE_HOOKS", "TwinBase"]

# methods that a subclass may replace: they are called, and read the compiled state through views
HOOKS = ("_reward", "_rewards", "_is_terminated", "_is_truncated", "_info")
# methods that make or move the scene: replaced, they need highway-env itself
SCENE_HOOKS = ("_reset", "_create_road", "_create_vehicles", "_simulate", "define_spaces")
# each twin class with its own methods of these names: what differs from them has been replaced
ORIGINALS: dict[type, dict[str, Any]] = {}


@cache
def own_methods(kind: Any) -> dict[str, Any]:
    """Return the methods of the twin class that ``kind`` derives from."""
    return ORIGINALS[next(base for base in kind.__mro__ if base in ORIGINALS)]


def shown(name: str, read: Callable[[Any], Any]) -> Any:
    """Build an attribute that shows the compiled state, and is highway-env's own while that steps."""
    key = f"_own_{name}"

    def get(self: TwinBase) -> Any:
        return self.__dict__[key] if self.simulator is None else read(self)

    def put(self: TwinBase, value: Any) -> None:
        self._ask_to_write(f"env.{name}")
        self.__dict__[key] = value

    return property(get, put)


class TwinBase(HighwayEnv):
    """A highway-env environment whose scene is compiled, or highway-env's own: ``simulator`` says which."""

    fast = False
    simulator: TwinSimulator | None = None
    metadata: dict[str, Any] = HighwayEnv.metadata
    enable_auto_render: bool

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
                f"{what} cannot be written: the scene is compiled. "
                'Choose vehicles with reset(options={"scene": ...}), return to a get_state() with set_state()'
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
        own = own_methods(type(self))  # type: ignore[arg-type]
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
        try:
            self._adopt({key: self.config[key] for key in ("observation", "action")})
        except NewSceneNeeded as needed:
            # the spaces change as highway-env's do; the old ego knows no such action until the next reset
            self._set_spaces(needed.parameters)
            return
        if self.simulator is None:
            super().define_spaces()
            return
        self._views.forget_types()
        self._set_spaces(self.simulator.parameters)

    def _set_spaces(self, parameters: Parameters) -> None:
        self.observation_space = observation_space(parameters.observation)
        # a new one each time, as highway-env's: a seed given to the action space ends here
        self.action_space = action_space(parameters.action)

    def _adopt(self, keys: Mapping[str, Any]) -> None:
        """Go on with the scene under changed keys; highway-env goes on with it where they are not covered."""
        assert self.simulator is not None
        try:
            self.simulator.adopt({**self.simulator.config, **copy.deepcopy(dict(keys))})
        except NewSceneNeeded:
            raise
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
