"""The simulator as the twins use it: cheap copies, changes between steps, chosen scenes, one environment of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from racer.core.errors import UsageError
from racer.envs.highway.simulator import HighwaySimulator
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.simulator.config import Parameters
from racer.envs.highway.simulator.generator import seeded_state
from racer.envs.highway.simulator.step import step_batch
from racer.envs.highway.twin_scene import Scene, place_compiled

__all__ = ["TwinSimulator"]


class NewSceneNeeded(UsageError):
    """Another kind of ego: ``parameters`` are sound, but no present scene can go on under them."""

    def __init__(self, parameters: Parameters) -> None:
        super().__init__("another kind of ego needs a new scene: call reset()")
        self.parameters = parameters


class TwinSimulator(HighwaySimulator):
    """A simulator whose copies share what never changes: the parameters and the configuration."""

    def __deepcopy__(self, memo: dict[int, Any]) -> TwinSimulator:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        for name, value in self.__dict__.items():
            twin.__dict__[name] = value.copy() if isinstance(value, np.ndarray) else value
        twin._pool = twin._viewer = None
        return twin

    def environment(self, index: int) -> TwinSimulator:
        """Return a simulator of one environment that shares this one's arrays: both see every change."""
        part = type(self).__new__(type(self))
        for name, value in self.__dict__.items():
            part.__dict__[name] = value[index : index + 1] if isinstance(value, np.ndarray) else value
        part.num_envs = part.num_threads = 1
        part._pool = part._viewer = None
        return part

    def adopt(self, config: Mapping[str, Any]) -> None:
        """Go on with other parameters of the same scene (times, rewards, what is observed, actions).

        Raises:
            NewSceneNeeded: if the ego would be of another kind.
            UsageError: if ``config`` is not covered; nothing has changed in either case.
        """
        parameters = Parameters.parse(config, fast=self.fast, brute_force=False)
        if parameters.wholes[at.EGO_KIND] != self.parameters.wholes[at.EGO_KIND]:
            raise NewSceneNeeded(parameters)
        shape = (self.num_envs, parameters.observation.capacity, len(parameters.observation.features))
        self.config, self.parameters = dict(config), parameters
        if self._observations.shape != shape:
            self._observations = np.zeros(shape, dtype=np.float32)

    @property
    def frames(self) -> np.ndarray:
        """``[E]`` simulation frames since each environment's reset."""
        return self._clock[:, at.STEPS].astype(np.int64)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return environment 0's live state: ``real [REALS, V]`` and ``whole [WHOLES, V]``."""
        return self._real[0], self._whole[0]

    def observe_again(self, index: int) -> None:
        """Write environment ``index``'s results and observation anew, from its present state."""
        p = self.parameters
        step_batch(
            index, index + 1, 0, False, True, self._real, self._whole, self._clock, self._rng, self._corners,
            self._command, p.reals, p.wholes, p.action.target_speeds, p.observation.spec, p.observation.ranges,
            self._result, self._observations,
        )  # fmt: skip

    def policy_step(self, actions: np.ndarray, on_frame: Callable[[], Any] | None) -> None:
        """Take one policy step of one environment, as highway-env does also after a change of the frequencies.

        highway-env applies an action at the frame whose count is a multiple of the frames in a step. That is the first
        frame of the step, unless the frequencies have changed since the reset.
        """
        frames = int(self.parameters.wholes[at.FRAMES])
        before = -int(self._clock[0, at.STEPS]) % frames if frames else 0
        if not before:
            self.step(actions, on_frame)
            return
        self._store(actions)
        self._clock[0, at.TIME] += self.parameters.reals[at.POLICY_DT]
        time = self._clock[0, at.TIME]
        for frame in range(frames):
            self._advance(1, frame == before, False)
            self._clock[0, at.TIME] = time
            if on_frame is not None and frame < frames - 1:
                on_frame()
        self._advance(0, False, True)

    def seed(self, index: int, seed: int | None) -> None:
        """Re-seed environment ``index``'s generator, as a reset with a seed does; None leaves it."""
        if seed is not None:
            if seed < 0:
                raise UsageError(f"a seed must be a non-negative integer, got {seed!r}")
            self.set_generator_state(index, seeded_state(int(seed)))

    def reset_to(self, index: int, scene: Scene) -> None:
        """Reset environment ``index`` with the generator that it has, then put its cars where ``scene`` says."""
        spec = self.parameters.observation.spec
        shuffled = spec[at.SPEC_SHUFFLED]
        # only the chosen scene is observed, so only it may draw from the generator
        spec[at.SPEC_SHUFFLED] = 0
        try:
            self.reset(indices=[index])
        finally:
            spec[at.SPEC_SHUFFLED] = shuffled
        place_compiled(self, index, scene)
        self.observe_again(index)

    def keep_vehicles(self, source: HighwaySimulator, chosen: np.ndarray) -> None:
        """Take over environment 0 of ``source`` with the ``chosen`` cars only, in that order (the ego first)."""
        self._real[0] = source._real[0][:, chosen]
        self._whole[0] = source._whole[0][:, chosen]
        self._clock[...], self._rng[...] = source._clock, source._rng
        # the scratch rows name vehicles by numbers that the fewer no longer have
        self._whole[0, [at.CHANGING, at.PAIR]] = 0
        self._is_reset[...] = self._all_reset = True
        pending = self._whole[0, at.HAS_IMPACT].copy()
        self.set_scene(0)
        self._whole[0, at.HAS_IMPACT] = pending
