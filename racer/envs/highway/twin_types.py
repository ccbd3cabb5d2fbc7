"""What an episode of a twin shows besides its numbers, made when it is first looked at."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from highway_env.envs.common.action import ContinuousAction, action_factory
from highway_env.envs.common.observation import observation_factory

from racer.envs.highway.twin_guards import GuardedList
from racer.envs.highway.twin_views import SceneViews

if TYPE_CHECKING:
    from racer.envs.highway.twin_env import HighwayTwin

__all__ = ["EpisodeViews"]


class EpisodeViews:
    """The vehicles, the road, the action type and the observation type of one episode; a copy begins empty."""

    def __init__(self) -> None:
        self._scene: SceneViews | None = None
        self._egos: Any = None
        self._action_type: Any = None
        self._observation_type: Any = None
        self._last_action: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> EpisodeViews:
        return EpisodeViews()

    def __reduce__(self) -> Any:
        return EpisodeViews, ()

    def next_episode(self) -> EpisodeViews:
        """Leave these views with the values that they show now, and return those of what follows."""
        if self._scene is not None:
            self._scene.freeze()
        return EpisodeViews()

    def forget_types(self) -> None:
        """Make the action type and the observation type anew."""
        self._action_type = self._observation_type = None

    def scene(self, env: HighwayTwin) -> SceneViews:
        if self._scene is None:
            assert env.simulator is not None
            self._scene = SceneViews(env.simulator, env._ask_to_write, env.np_random, owner=env)
        return self._scene

    def egos(self, env: HighwayTwin) -> list[Any]:
        if self._egos is None:
            self._egos = GuardedList(self.scene(env).vehicles[:1], "env.controlled_vehicles", env._ask_to_write)
        return self._egos

    def action_type(self, env: HighwayTwin) -> Any:
        if self._action_type is None:
            assert env.simulator is not None
            self._action_type = action_factory(env, env.simulator.config["action"])
            self.acted(self._last_action)
        return self._action_type

    def acted(self, action: Any) -> None:
        """Remember the action that was taken last."""
        self._last_action = action
        if action is not None and type(self._action_type) is ContinuousAction:
            self._action_type.last_action = action

    def observation_type(self, env: HighwayTwin) -> Any:
        if self._observation_type is None:
            assert env.simulator is not None
            kind = observation_factory(env, env.simulator.config["observation"])
            # the ranges of the features are found when an episode is first observed; a shuffle must not draw
            kept = copy.deepcopy(env.np_random.bit_generator.state)
            kind.observe()
            env.np_random.bit_generator.state = kept
            self._observation_type = kind
        return self._observation_type
