"""``gym:<id>``: any installed gymnasium environment as a world, with no file touched.

Observations that are no Box (Dict, Discrete, ...) are flattened, a Dict by the order of its names; actions are a Box or
Discrete. ``gym:<module>:<id>`` imports the module that registers the id, if a person named it: :mod:`racer.core.trust`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from racer.core.errors import EnvironmentFault, UsageError, nearest, place_in, shown, unknown_name
from racer.core.trust import import_named
from racer.envs.headless import prepare_drawing
from racer.envs.replay import Replay, Shapes, Trace
from racer.envs.world import Film, Step, World

__all__ = ["PlainEnv", "gym_world"]

DEFAULTS: Mapping[str, Any] = {"max_episode_steps": None, "kwargs": {}}
BACKSTOP = 10_000
"""Steps after which an episode of an id without a limit is truncated: a policy may walk in circles for ever."""
SENTENCES: Mapping[str, str] = {
    "max_episode_steps": f"steps after which an episode is truncated; None: the id's own limit, or else {BACKSTOP}",
    "kwargs": "keyword arguments of gymnasium.make",
}


@lru_cache(maxsize=16)
def gym_world(name: str) -> World:
    """Return the world of a name that begins with ``gym:``.

    Raises:
        UsageError: there is no such id (the message names the nearest one), or it needs a package that is missing.
    """
    env_id = name.removeprefix("gym:")
    spec = _spec(name, env_id)
    made_by = spec.entry_point
    creator = _guarded(name, load_env_creator, made_by) if isinstance(made_by, str) else made_by
    metadata = getattr(creator, "metadata", {})
    film = None
    if "rgb_array" in metadata.get("render_modes", ()):
        rate = float(metadata.get("render_fps") or 30.0)
        film = Film(
            make=partial(_make_drawing, name, env_id),
            clock=lambda config: (1.0 / rate, int(config["max_episode_steps"])),
        )
    return World(
        name=name,
        resolve=partial(_resolve, name, spec),
        make=partial(_make, name, env_id),
        sentences=SENTENCES,
        names_code=lambda config: _words(config.get("kwargs")),
        film=film,
        replay=Replay(make=partial(_make_one, env_id), traces=_TRACES, facts=_facts),
    )


class PlainEnv(gymnasium.Wrapper):
    """float32 observations of one array, and the episode's return and length when it ends.

    What the environment's own code raises later becomes an :class:`racer.core.errors.EnvironmentFault`, which names
    the id, the row and the line.

    Args:
        env: a gymnasium environment.
        row: its place among those that are stepped side by side.

    Raises:
        UsageError: observations with images, or spaces that are not covered.
    """

    def __init__(self, env: gymnasium.Env, row: int = 0) -> None:
        super().__init__(env)
        self._row = row
        _check_observations(env.observation_space)
        _check_actions(env.action_space)
        inner = env.observation_space
        self._flatten = not isinstance(inner, spaces.Box) or inner.shape == ()
        flat = spaces.flatten_space(inner) if self._flatten else inner
        if not isinstance(flat, spaces.Box):
            raise UsageError(f"its observations cannot be written as one array: {inner}")
        with np.errstate(over="ignore"):
            self.observation_space = spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32))
        self._return, self._length = 0.0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        with self._faults():
            observation, _ = self.env.reset(seed=seed, options=options)
        self._return, self._length = 0.0, 0
        return self._plain(observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        with self._faults():
            observation, reward, terminated, truncated, _ = self.env.step(action)
        self._return += float(reward)
        self._length += 1
        info: dict[str, Any] = {}
        if terminated or truncated:
            info["episode_metrics"] = {"return": self._return, "length": float(self._length)}
        return self._plain(observation), float(reward), bool(terminated), bool(truncated), info

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (ImportError, gymnasium.error.DependencyNotInstalled):
            raise
        except Exception as error:
            name = self.spec.id if self.spec is not None else type(self.unwrapped).__name__
            what = f"{place_in(error)}: {type(error).__name__}: {error}"
            raise EnvironmentFault(f"{name}, environment {self._row}, {what}", self._row) from error

    def _plain(self, observation: Any) -> np.ndarray:
        if self._flatten:
            observation = spaces.flatten(self.env.observation_space, observation)
        return np.asarray(observation, np.float32)


def _facts(steps: Sequence[Step], moments: Sequence[Shapes], config: Mapping[str, Any]) -> dict[str, float]:
    """Say what is known of any world's episode."""
    rewards = np.array([step.reward for step in steps])
    least = int(rewards.argmin())
    return {
        "steps": float(len(steps)),
        "return of the last tenth": float(rewards[-max(1, len(steps) // 10) :].sum()),
        "least reward": float(rewards[least]),
        "step of the least reward": float(least + 1),
    }


_SHOWN = 4
_TRACES = (
    Trace("reward", lambda step: step.reward),
    Trace("action", lambda step: np.ravel(step.action)[:_SHOWN]),
    Trace(f"observation, at most its first {_SHOWN} numbers", lambda step: np.ravel(step.observation)[:_SHOWN]),
)


def _resolve(name: str, spec: EnvSpec, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Complete a configuration and prove, by making one environment, that it can be used."""
    for key in overrides or {}:
        if key not in DEFAULTS:
            raise unknown_name("environment config key", str(key), DEFAULTS)
    config = {**DEFAULTS, **(overrides or {})}
    if config["max_episode_steps"] is None:
        config["max_episode_steps"] = spec.max_episode_steps or BACKSTOP
    steps, kwargs = config["max_episode_steps"], config["kwargs"]
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UsageError(f"environment config key 'max_episode_steps' must be a whole number from 1 on, not {steps!r}")
    if not isinstance(kwargs, Mapping) or "render_mode" in kwargs:
        raise UsageError(f"environment config key 'kwargs' must be a mapping without 'render_mode', not {kwargs!r}")
    try:
        text = json.dumps({"max_episode_steps": steps, "kwargs": dict(kwargs)})
    except TypeError as error:
        raise UsageError(f"environment config key 'kwargs' must be JSON: {error}") from error
    _prove(name, text)
    return json.loads(text)


def _words(value: Any) -> str | None:
    """Return the first text in a constructor's arguments that could name code: a module, a class, a file."""
    if isinstance(value, str):
        return value if any(word.isidentifier() for word in re.split(r"\W+", value)) else None
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((found for found in map(_words, parts) if found is not None), None)


@lru_cache(maxsize=64)
def _prove(name: str, config: str) -> None:
    _guarded(name, _make_one, name.removeprefix("gym:"), json.loads(config)).close()


def _make(name: str, env_id: str, config: Mapping[str, Any], num_envs: int) -> SyncVectorEnv:
    if num_envs < 1:
        raise UsageError(f"num_envs must be at least 1, not {num_envs}")
    makers = [partial(_make_one, env_id, config, row=row) for row in range(num_envs)]
    return _guarded(name, SyncVectorEnv, makers, autoreset_mode=AutoresetMode.SAME_STEP)


def _make_drawing(name: str, env_id: str, config: Mapping[str, Any]) -> PlainEnv:
    """Make an environment that draws, and let it draw once: what that needs is missing now or never."""
    prepare_drawing()
    env: PlainEnv = _guarded(name, _make_one, env_id, config, "rgb_array_list")
    _guarded(name, env.reset)
    return env


def _make_one(env_id: str, config: Mapping[str, Any], render_mode: str | None = None, row: int = 0) -> PlainEnv:
    env = gymnasium.make(
        env_id,
        max_episode_steps=config["max_episode_steps"],
        disable_env_checker=True,
        render_mode=render_mode,
        **config["kwargs"],
    )
    return PlainEnv(env, row)


def _spec(name: str, env_id: str) -> EnvSpec:
    import racer.envs  # noqa: F401  (registers RACER's own ids)

    module, _, plain_id = env_id.rpartition(":")
    if module:
        _guarded(name, _import_module, name, module)
    if plain_id not in gymnasium.registry:
        guess = nearest(plain_id, gymnasium.registry)
        hint = f"did you mean 'gym:{guess}'?" if guess else "a package that registers it is named by gym:<module>:<id>"
        raise UsageError(f"unknown world {name!r}: gymnasium has no id {plain_id!r}; {hint}")
    return gymnasium.registry[plain_id]


def _import_module(name: str, module: str) -> None:
    """Import the module that a world's name begins with.

    Raises:
        UsageError: there is none on Python's path. No package is recommended: anybody may own the one of that name.
    """
    try:
        import_named("world", name, module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module != missing and not module.startswith(f"{missing}."):
            raise
        within, _, last = missing.rpartition(".")
        folders = list(sys.modules[within].__path__) if within else sys.path
        # One's own files before what Python has installed; the folder that one stands in may not be on the path.
        own = [folder for folder in folders if not folder.startswith((sys.prefix, sys.base_prefix))]
        here = own if within else [*own, os.getcwd()]
        guess = nearest(last, _modules_in(here)) or nearest(last, _modules_in(folders))
        hint = f"; did you mean {'.'.join(filter(None, (within, guess)))!r}?" if guess else ""
        where = "on Python's path (PYTHONPATH)"
        raise UsageError(f"world {name!r}: there is no module {missing!r} {where}{hint}") from error


def _modules_in(folders: Iterable[str]) -> list[str]:
    return [found.name for found in pkgutil.iter_modules(folders)]


def _guarded(name: str, call: Any, *arguments: Any, **keywords: Any) -> Any:
    """Call what runs the environment's own code; what it raises becomes one line.

    Raises:
        UsageError: naming the world and the reason, or the package that is missing.
    """
    try:
        return call(*arguments, **keywords)
    except UsageError:
        raise
    except ModuleNotFoundError as error:
        raise UsageError(f"world {name!r} needs module {shown(error.name)}, which is not installed") from error
    except gymnasium.error.DependencyNotInstalled as error:
        raise UsageError(f"world {name!r} needs a package that is not installed: {error}") from error
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"world {name!r} cannot be made: {text}") from error


def _check_observations(space: spaces.Space, at: str = "observation") -> None:
    """Refuse images, wherever they stand."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            _check_observations(part, f"{at}[{key!r}]")
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            _check_observations(part, f"{at}[{i}]")
    elif isinstance(space, spaces.Box) and (len(space.shape) > 2 or (space.dtype == np.uint8 and len(space.shape) > 1)):
        raise UsageError(f"{at} is an image {space.shape}, and there is no encoder for images")


def _check_actions(space: spaces.Space) -> None:
    if isinstance(space, spaces.Discrete):
        return
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise UsageError(f"its actions must be Discrete or a Box with one axis, not {space}")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise UsageError(f"its actions have no bounds: {space}")
