"""Stable-Baselines3 on the batched environments: one compiled call a step, where ``DummyVecEnv`` makes N.

    from stable_baselines3 import PPO
    from racer.sb3 import make_vec_env

    PPO("MlpPolicy", make_vec_env("racer/highway-v0", 64)).learn(1_000_000)

Needs the extra ``[sb3]``. Importing this module imports Stable-Baselines3 and with it PyTorch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

import racer.envs  # noqa: F401  (registers the ids)
from racer.core.errors import UsageError

try:
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv
except ModuleNotFoundError as error:
    words = f"racer.sb3 needs {error.name!r}: pip install '.[sb3]' in the checkout"
    raise ModuleNotFoundError(words, name=error.name) from error

__all__ = ["BatchedVecEnv", "make_vec_env"]


def make_vec_env(
    env_id: str = "racer/highway-v0", n_envs: int = 16, seed: int | None = None, **options: Any
) -> BatchedVecEnv:
    """Make a batched environment as a ``VecEnv``.

    Args:
        env_id: an id with a vector environment of its own: ``racer/highway-v0``, ``racer/highway-fast-v0``,
            ``racer/RiskHighway-v0``.
        n_envs: environments in the batch.
        seed: environment i is seeded ``seed + i`` at the first reset.
        options: of the environment, as ``config={"lanes_count": 3}`` or ``render_mode="rgb_array"``.

    Raises:
        UsageError: the id has no batched environment, or an option is wrong.
    """
    spec = gymnasium.spec(env_id)
    if spec.vector_entry_point is None:
        raise UsageError(f"{env_id!r} has no batched environment; use stable_baselines3.common.env_util.make_vec_env")
    envs = gymnasium.make_vec(env_id, n_envs, vectorization_mode="vector_entry_point", **options)
    if envs.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
        envs.close()
        options["autoreset_mode"] = AutoresetMode.SAME_STEP
        envs = gymnasium.make_vec(env_id, n_envs, vectorization_mode="vector_entry_point", **options)
    return BatchedVecEnv(envs, seed)


class BatchedVecEnv(VecEnv):
    """A gymnasium vector environment as Stable-Baselines3's.

    ``infos`` hold what the environments report, ``terminal_observation`` and ``TimeLimit.truncated`` at an episode's
    end, and ``episode`` with return, length and seconds, as Stable-Baselines3's Monitor adds it: no wrapper is needed
    for the logs.

    Args:
        envs: resets within the step (``AutoresetMode.SAME_STEP``).
        seed: of the first reset.

    Raises:
        UsageError: the environment resets otherwise.
    """

    def __init__(self, envs: VectorEnv, seed: int | None = None) -> None:
        if envs.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
            raise UsageError("the vector environment must reset within the step: autoreset_mode=SAME_STEP")
        self.envs = envs
        self.render_mode = getattr(envs, "render_mode", None)
        self._actions: Any = None
        self._returns = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, np.int64)
        self._began = time.time()
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        if seed is not None:
            self.seed(seed)

    def reset(self) -> np.ndarray:
        """Draw new episodes everywhere; seeds and options that were set count once."""
        # One dictionary of options for all, as gymnasium has it; the first that was set.
        options = next((option for option in self._options if option), None)
        observations, infos = self.envs.reset(seed=list(self._seeds), options=options)  # type: ignore[arg-type]
        self.reset_infos = self._split(infos)
        self._reset_seeds()
        self._reset_options()
        self._returns[:], self._lengths[:] = 0.0, 0
        return np.asarray(observations)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        dones = terminated | truncated
        self._returns += rewards
        self._lengths += 1
        found = self._split(infos)
        for i in np.flatnonzero(dones):
            final = _row(infos["final_info"], int(i))
            found[i] = {
                **final,
                "terminal_observation": np.asarray(infos["final_obs"][i]),
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                "episode": {
                    "r": round(float(self._returns[i]), 6),
                    "l": int(self._lengths[i]),
                    "t": round(time.time() - self._began, 6),
                },
            }
            self._returns[i], self._lengths[i] = 0.0, 0
        return np.asarray(observations), np.asarray(rewards, np.float32), dones, found

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the environments, which they share where the batch has one for all."""
        value = self._attribute(attr_name)
        return [value[i] if isinstance(value, tuple | list) else value for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: the environments of a batch share what they are."""
        raise UsageError(f"{attr_name!r} of a batched environment cannot be set; pass config= to make_vec_env")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the environments."""
        if not callable(getattr(self.envs, "call", None)):
            raise UsageError(f"this batched environment has no methods of single environments, as {method_name!r}")
        values = self.envs.call(method_name, *method_args, **method_kwargs)  # type: ignore[attr-defined]
        return [values[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None) -> list[bool]:
        """Say that no environment is wrapped; of Monitor, that all are, as what it adds is there."""
        known = wrapper_class.__module__.startswith("stable_baselines3") and wrapper_class.__name__ == "Monitor"
        return [known] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[np.ndarray | None]:
        frames = self.envs.render()
        return [None] * self.num_envs if frames is None else list(frames)  # type: ignore[arg-type]

    def _attribute(self, name: str) -> Any:
        single: Any = getattr(self.envs, "get_attr", None)
        return getattr(self.envs, name) if name == "render_mode" or single is None else single(name)

    def _split(self, infos: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the infos of each environment, from arrays ``[N]``."""
        plain = {key: values.tolist() for key, values in _columns(infos)}
        names = list(plain)
        rows: Iterable[tuple[Any, ...]] = zip(*plain.values(), strict=True) if plain else [()] * self.num_envs
        return [dict(zip(names, row, strict=True)) for row in rows]


def _columns(infos: Mapping[str, Any]) -> list[tuple[str, np.ndarray]]:
    """Return the numbers ``[N]`` among the infos, without masks and final ones; nested ones are left out."""
    return [
        (key, values)
        for key, values in infos.items()
        if not key.startswith(("_", "final_")) and isinstance(values, np.ndarray) and values.dtype != object
    ]


def _row(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Return what environment ``i`` reports at its end, nested ones included."""
    found: dict[str, Any] = {}
    for key, values in infos.items():
        if key.startswith("_"):
            continue
        found[key] = _row(values, i) if isinstance(values, Mapping) else values[i]
    return found
