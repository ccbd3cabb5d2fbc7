"""highway-env itself as an engine: the reference that the compiled simulator is held against."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from highway_env.envs.common.observation import KinematicObservation
from highway_env.envs.highway_env import HighwayEnv, HighwayEnvFast
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.envs.headless import prepare_drawing
from racer.envs.highway.config import highway_config
from racer.envs.highway.engine import Scenes, scene_observation, shows_scene

__all__ = ["HighwayEnvEngine"]

SCENARIO_CLASSES = {"highway-v0": HighwayEnv, "highway-fast-v0": HighwayEnvFast}


class HighwayEnvEngine:
    """Steps a list of highway-env environments one after the other.

    highway-env cannot save its state. A scene is therefore kept as what made it: the random generator's state
    before its last reset, and the actions since. :meth:`set_state` plays them again, which is exact and costs as
    much time as the episode took.
    """

    def __init__(self, config: Mapping[str, Any], num_envs: int) -> None:
        self.num_envs = num_envs
        self._config = config
        self._shared_view = shows_scene(config["observation"])
        make = SCENARIO_CLASSES[config["scenario"]]
        self._envs = [make(config=highway_config(config), render_mode="rgb_array") for _ in range(num_envs)]
        self.single_action_space = self._envs[0].action_space
        self._actions: list[list[NDArray[Any]]] = [[] for _ in range(num_envs)]
        self._origins: list[str] = [self._generator_state(env) for env in self._envs]
        self._observations: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * num_envs
        self._rewards = np.zeros(num_envs)
        self._ended = np.zeros((2, num_envs), dtype=bool)

    @property
    def envs(self) -> list[HighwayEnv]:
        """The environments themselves, for tests and hand-made scenes."""
        return self._envs

    def reset(self, seeds: Sequence[int | None], indices: NDArray[np.intp]) -> None:
        for seed, i in zip(seeds, indices, strict=True):
            env = self._envs[i]
            if seed is not None:
                # gymnasium seeds before the scene is drawn; done here, so that the origin can be noted in between.
                gymnasium.Env.reset(env, seed=int(seed))
            self._origins[i] = self._generator_state(env)
            self._actions[i] = []
            self._observations[i], _ = env.reset()
        self._rewards[indices] = 0.0
        self._ended[:, indices] = False

    def step(self, actions: NDArray[Any], on_frame: Callable[[], None] | None = None) -> None:
        for i, env in enumerate(self._envs):
            # highway-env calls this between simulation frames, to film them.
            env._automatic_rendering = on_frame or (lambda: None)
            action = np.array(actions[i])
            self._actions[i].append(action)
            self._observations[i], self._rewards[i], self._ended[0, i], self._ended[1, i], _ = env.step(action)

    def render(self, index: int) -> NDArray[np.uint8]:
        prepare_drawing()
        return np.asarray(self._envs[index].render())

    def refresh(self) -> Scenes:
        """Observe again after a test has moved vehicles by hand."""
        for i, env in enumerate(self._envs):
            self._observations[i] = env.observation_type.observe()
        return self.scenes(np.arange(self.num_envs))

    def get_state(self) -> dict[str, NDArray[Any]]:
        lengths = np.array([len(a) for a in self._actions], dtype=np.int64)
        space = self.single_action_space
        played = [np.stack(a) if a else np.zeros((0, *(space.shape or ())), space.dtype) for a in self._actions]
        origins = np.frombuffer(json.dumps(self._origins).encode(), dtype=np.uint8).copy()
        return {"origins": origins, "lengths": lengths, "actions": np.concatenate(played)}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        origins, scripts = self._checked(state)
        for i, (env, origin, script) in enumerate(zip(self._envs, origins, scripts, strict=True)):
            env.np_random.bit_generator.state = json.loads(origin)
            env._automatic_rendering = lambda: None
            self._origins[i] = origin
            self._observations[i], _ = env.reset()
            self._rewards[i], self._ended[:, i] = 0.0, False
            for action in script:
                self._observations[i], self._rewards[i], *ended, _ = env.step(action)
                self._ended[:, i] = ended
            self._actions[i] = list(script)

    def _checked(self, state: Mapping[str, NDArray[Any]]) -> tuple[list[str], list[NDArray[Any]]]:
        """Read generator states and actions of every environment out of a state that may come from a file."""
        arrays = {}
        for name in ("origins", "lengths", "actions"):
            if name not in state:
                raise UsageError(f"the state of the highway-env engine lacks {name!r}")
            arrays[name] = np.asarray(state[name])
        space, lengths, actions = self.single_action_space, arrays["lengths"], arrays["actions"]
        if lengths.shape != (self.num_envs,) or lengths.dtype != np.int64 or (lengths < 0).any():
            raise UsageError(f"the engine state's 'lengths' must be {self.num_envs} whole numbers of at least 0")
        # one after the other, as a sum of them could overflow
        if (lengths > len(actions)).any() or lengths.sum() != len(actions):
            raise UsageError(f"the engine state's 'actions' are {len(actions)}, not as many as 'lengths' says")
        if actions.shape[1:] != space.shape or actions.dtype.kind not in "iuf" or not np.isfinite(actions).all():
            raise UsageError(f"the engine state's 'actions' must be finite actions of {space}")
        if isinstance(space, spaces.Discrete) and not ((actions >= 0) & (actions < space.n)).all():
            raise UsageError(f"the engine state's 'actions' must be actions of {space}")
        try:
            origins = json.loads(bytes(arrays["origins"]).decode())
            for origin in origins:
                np.random.PCG64().state = json.loads(origin)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise UsageError(f"the engine state's 'origins' are no generator states: {error}") from error
        if not isinstance(origins, list) or len(origins) != self.num_envs:
            raise UsageError(f"the engine state's 'origins' must be {self.num_envs} generator states")
        return origins, np.split(actions, np.cumsum(lengths)[:-1])

    def cars(self, index: int) -> NDArray[np.float64]:
        road = self._envs[index].road.vehicles
        ego = self._envs[index].vehicle
        ordered = [ego, *(vehicle for vehicle in road if vehicle is not ego)]
        rows = [[*car.position, car.heading, car.LENGTH, car.WIDTH, car.crashed] for car in ordered]
        return np.array(rows, dtype=np.float64)

    def close(self) -> None:
        for env in self._envs:
            env.close()

    @staticmethod
    def _generator_state(env: HighwayEnv) -> str:
        return json.dumps(env.np_random.bit_generator.state)

    def _rows(self, index: int) -> NDArray[np.float32]:
        if self._shared_view:
            return self._observations[index]
        env = self._envs[index]
        return KinematicObservation(env, **scene_observation(self._config["observation"])).observe()

    def scenes(self, indices: NDArray[np.intp]) -> Scenes:
        egos = [self._envs[i].vehicle for i in indices]
        return Scenes(
            observations=np.stack([self._observations[i] for i in indices]),
            rows=np.stack([self._rows(i) for i in indices]),
            rewards=self._rewards[indices],
            terminated=self._ended[0, indices],
            truncated=self._ended[1, indices],
            speed=np.array([ego.speed for ego in egos], dtype=np.float64),
            heading=np.array([ego.heading for ego in egos], dtype=np.float64),
            crashed=np.array([ego.crashed for ego in egos], dtype=bool),
            on_road=np.array([ego.on_road for ego in egos], dtype=bool),
            lateral_offset=np.array([ego.lane.local_coordinates(ego.position)[1] for ego in egos]),
        )
