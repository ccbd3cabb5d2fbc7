"""The batched simulator: many highway-env environments in packed arrays, stepped by compiled kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from racer.core.errors import UsageError
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.simulator.config import Observation, Parameters
from racer.envs.highway.simulator.generator import seeded_state
from racer.envs.highway.simulator.readers import not_covered
from racer.envs.highway.simulator.states import check_generator, checked_state
from racer.envs.highway.simulator.step import observe_batch, place_batch, reset_batch, settle_scene, step_batch

if TYPE_CHECKING:
    from racer.envs.highway.simulator.drawing import SceneViewer

__all__ = ["HighwaySimulator"]

SCENE_REALS = {
    "x": at.X,
    "y": at.Y,
    "heading": at.HEADING,
    "speed": at.SPEED,
    "steering": at.STEERING,
    "acceleration": at.ACCELERATION,
    "target_speed": at.TARGET_SPEED,
    "exponent": at.EXPONENT,
    "timer": at.TIMER,
    "guard": at.GUARD,
}
SCENE_WHOLES = {"target_lane": at.TARGET_LANE, "crashed": at.CRASHED}


class HighwaySimulator:
    """``num_envs`` copies of highway-v0 (or highway-fast-v0), bit for bit, in compiled code.

    Nothing resets by itself. After :meth:`reset` and :meth:`step` the arrays below describe every environment;
    they are views of one result array and are overwritten by the next call, so copy what must last.

    Attributes:
        rewards: ``[E]`` float64, highway-env's own reward.
        terminated, truncated: ``[E]`` bool.
        reward_components: name to ``[E]`` float64, the unweighted terms.
        ego_position: ``[E, 2]`` m. ego_heading: ``[E]`` rad. ego_speed: ``[E]`` m/s.
        ego_crashed, ego_on_road: ``[E]`` bool.
        ego_lateral_offset: ``[E]`` m, signed, from the closest lane's centre. ego_lane: ``[E]`` int64.

    Args:
        config: highway-env's configuration, merged with the defaults of the id.
        num_envs: environments in the batch.
        fast: highway-fast-v0's collision rule.
        search: how neighbours and collisions are found: ``sorted``, or ``brute`` as highway-env does, slowly; the
            results are equal.
        num_threads: threads that share a step; the kernels release the GIL.
        headway: s that the other cars keep to the one in front; their class's where None.
        lane_changes: whether the other cars change lanes.

    Raises:
        UsageError: for a configuration that is wrong or not covered.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        num_envs: int,
        *,
        fast: bool = False,
        search: str = "sorted",
        num_threads: int = 1,
        headway: float | None = None,
        lane_changes: bool = True,
    ) -> None:
        if search not in ("sorted", "brute"):
            raise UsageError(f"search must be 'sorted' or 'brute', got {search!r}")
        if num_envs < 1 or num_threads < 1:
            raise UsageError(f"num_envs and num_threads must be at least 1, got {num_envs} and {num_threads}")
        self.config = dict(config)
        self.fast = fast
        self.num_envs = num_envs
        self.num_threads = min(num_threads, num_envs)
        self.parameters = Parameters.parse(config, fast=fast, brute_force=search == "brute")
        if headway is not None:
            self.parameters.reals[at.TIME_WANTED] = headway
        if not lane_changes:
            self.parameters.reals[at.MIN_GAIN] = np.inf
        self.num_vehicles = int(self.parameters.wholes[at.VEHICLES])
        self._pool: ThreadPoolExecutor | None = None
        self._viewer: SceneViewer | None = None
        self._allocate()

    def _allocate(self) -> None:
        envs, spec = self.num_envs, self.parameters.observation
        self._real = np.zeros((envs, at.REALS, self.num_vehicles))
        self._whole = np.zeros((envs, at.WHOLES, self.num_vehicles), dtype=np.int64)
        self._clock = np.zeros((envs, at.CLOCKS))
        self._rng = np.stack([seeded_state(None) for _ in range(envs)])
        self._command = np.zeros((envs, 2))
        self._corners = np.zeros((envs, 2, 5, 2))
        self._result = np.zeros((envs, at.RESULTS))
        self._observations = spec.buffer(envs)
        self._is_reset = np.zeros(envs, dtype=bool)
        self._all_reset = False

    # stepping

    def reset(
        self, seeds: Sequence[int | None] | None = None, indices: Sequence[int] | np.ndarray | None = None
    ) -> None:
        """Draw new scenes.

        Args:
            seeds: one a selected environment; a seed re-seeds its generator as ``env.reset(seed=...)`` does, None
                goes on with it. None for all: no environment is re-seeded.
            indices: the environments to reset; all by default.

        Raises:
            UsageError: if there is no such environment, the seeds do not match, or a seed is negative.
        """
        selected = np.arange(self.num_envs) if indices is None else np.asarray(indices, dtype=np.int64).ravel()
        if not ((selected >= 0) & (selected < self.num_envs)).all():
            raise UsageError(f"environments must be 0 to {self.num_envs - 1}, got {selected.tolist()}")
        if seeds is not None:
            if len(seeds) != len(selected):
                raise UsageError(f"{len(seeds)} seeds were given for {len(selected)} environments")
            for e, seed in zip(selected, seeds, strict=True):
                if seed is not None:
                    if seed < 0:
                        raise UsageError(f"a seed must be a non-negative integer, got {seed!r}")
                    self._rng[e] = seeded_state(int(seed))
        p = self.parameters
        reset_batch(
            selected, self._real, self._whole, self._clock, self._rng, p.reals, p.wholes, p.action.target_speeds,
            p.observation.spec, p.observation.ranges, self._result, self._observations,
        )  # fmt: skip
        self._is_reset[selected] = True
        self._all_reset = bool(self._is_reset.all())

    def step(self, actions: np.ndarray, on_frame: Callable[[], None] | None = None) -> None:
        """Advance every environment by one policy step.

        Args:
            actions: ``[E, A]`` floats in [-1, 1] (``[acceleration, steering]``), or ``[E]`` whole numbers.
            on_frame: called after every simulation frame but the last.

        Raises:
            UsageError: for actions of the wrong shape or out of range, or before the first reset.
        """
        if not self._all_reset:
            raise UsageError("call reset() before step()")
        self._store(np.asarray(actions))
        frames = int(self.parameters.wholes[at.FRAMES])
        if on_frame is None or frames < 2:
            self._advance(frames, True, True)
            return
        for frame in range(frames):
            self._advance(1, frame == 0, frame == frames - 1)
            if frame < frames - 1:
                on_frame()

    def _store(self, actions: np.ndarray) -> None:
        """Turn actions into commands."""
        action = self.parameters.action
        if not action.is_discrete:
            if actions.shape != (self.num_envs, action.size):
                raise UsageError(f"actions must have the shape {(self.num_envs, action.size)}, got {actions.shape}")
            action.write_commands(actions, self._command)
            return
        if actions.shape != (self.num_envs,):
            raise UsageError(f"actions must have the shape {(self.num_envs,)}, got {actions.shape}")
        chosen = actions.astype(np.int64)
        if chosen.min() < 0 or chosen.max() >= action.size:
            raise UsageError(f"discrete actions must be 0 to {action.size - 1}, got {actions}")
        if action.table.ndim == 2:
            np.take(action.table, chosen, axis=0, out=self._command)
        else:
            self._command[:, 0] = action.table[chosen]

    def _advance(self, frames: int, begin: bool, finish: bool) -> None:
        p = self.parameters
        arguments = (
            frames, begin, finish, self._real, self._whole, self._clock, self._rng,
            self._corners, self._command, p.reals, p.wholes, p.action.target_speeds, p.observation.spec,
            p.observation.ranges, self._result, self._observations,
        )  # fmt: skip
        if self.num_threads == 1:
            step_batch(0, self.num_envs, *arguments)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.num_threads - 1, thread_name_prefix="highway")
        edges = [self.num_envs * k // self.num_threads for k in range(self.num_threads + 1)]
        others = [self._pool.submit(step_batch, *edges[k : k + 2], *arguments) for k in range(1, self.num_threads)]
        step_batch(0, edges[1], *arguments)
        for other in others:
            other.result()

    def close(self) -> None:
        """End the threads and the viewer; both come back when they are needed."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None

    def render(self, index: int, egos: int = 1, followed: int = 0) -> np.ndarray:
        """Return the frame ``[H, W, 3]`` uint8 of environment ``index``, by highway-env's own viewer.

        The first ``egos`` cars have an ego's colour; the picture follows the car ``followed``.
        """
        if self._viewer is None:
            # highway-env brings pygame and pandas, which nothing but drawing needs
            from racer.envs.highway.simulator.drawing import SceneViewer

            self._viewer = SceneViewer(self.config, self.parameters)
        return self._viewer.draw(self.scene(index), egos, followed)

    def __getstate__(self) -> dict[str, Any]:
        """Copy without threads and viewer."""
        return {**self.__dict__, "_pool": None, "_viewer": None}

    # observations

    def observation_spec(self, config: Mapping[str, Any]) -> Observation:
        """Build another observation of the same scenes, to be read with :meth:`observe`.

        Raises:
            UsageError: for what is not covered; an order of ``shuffled`` would draw from the environment's
                generator and change what follows.
        """
        if config.get("order") == "shuffled":
            raise not_covered("order (of a second observation)", "shuffled")
        return Observation.parse(config, int(self.parameters.wholes[at.LANES]), self.num_vehicles)

    def observe(self, spec: Observation | None = None) -> np.ndarray:
        """Return observations ``[E, K, F]`` float32 of the present states, as an array of the caller's own.

        Without ``spec`` this is the configured observation of the last reset or step. With ``vehicles_count`` 1
        the array has room for all vehicles; :attr:`observed_rows` says how many rows highway-env returns.
        """
        if spec is None:
            return self._observations.copy()
        out = spec.buffer(self.num_envs)
        self.observe_into(spec, np.arange(self.num_envs), out)
        return out

    def show(self, indices: np.ndarray) -> None:
        """Bring the configured observation ``[E, K, F]`` up to date in ``indices``, after :meth:`set_scene`."""
        self.observe_into(self.parameters.observation, np.asarray(indices, dtype=np.int64), self._observations)

    def observe_into(self, spec: Observation, indices: np.ndarray, out: np.ndarray) -> None:
        """Write the observations of the environments ``indices`` (int64) where they belong in ``out [E, K, F]``.

        With ``vehicles_count`` 1 the rows beyond those that highway-env returns keep what stood there.
        """
        p = self.parameters
        observe_batch(indices, self._real, self._whole, self._rng, p.wholes, spec.spec, spec.ranges, out)

    @property
    def shown(self) -> np.ndarray:
        """The configured observation of the last reset or step ``[E, K, F]`` float32: a view, as the results are."""
        return self._observations

    @property
    def observed_rows(self) -> np.ndarray:
        """``[E]`` rows of the configured observation."""
        return self._result[:, at.OBSERVED_ROWS].astype(np.int64)

    # results

    @property
    def results(self) -> np.ndarray:
        """``[E, RESULTS]`` float64, all figures of a step at once; the columns' names stand in ``layout``."""
        return self._result

    @property
    def rewards(self) -> np.ndarray:
        return self._result[:, at.REWARD]

    @property
    def terminated(self) -> np.ndarray:
        return self._result[:, at.TERMINATED] != 0

    @property
    def truncated(self) -> np.ndarray:
        return self._result[:, at.TRUNCATED] != 0

    @property
    def reward_components(self) -> dict[str, np.ndarray]:
        return {name: self._result[:, column] for name, column in at.COMPONENTS.items()}

    @property
    def ego_position(self) -> np.ndarray:
        return self._result[:, at.EGO_X : at.EGO_Y + 1]

    @property
    def ego_heading(self) -> np.ndarray:
        return self._result[:, at.EGO_HEADING]

    @property
    def ego_speed(self) -> np.ndarray:
        return self._result[:, at.EGO_SPEED]

    @property
    def ego_crashed(self) -> np.ndarray:
        return self._result[:, at.EGO_CRASHED] != 0

    @property
    def ego_on_road(self) -> np.ndarray:
        return self._result[:, at.ON_ROAD_REWARD] != 0

    @property
    def ego_lateral_offset(self) -> np.ndarray:
        return self._result[:, at.EGO_OFFSET]

    @property
    def ego_lane(self) -> np.ndarray:
        return self._result[:, at.EGO_LANE].astype(np.int64)

    @property
    def packed(self) -> tuple[np.ndarray, np.ndarray]:
        """All states, ``[E, REALS, V]`` and ``[E, WHOLES, V]``, rows as in ``layout``: views, as the results are.

        Targets of driven cars may be written at any time; positions need :meth:`set_scene` or :meth:`place`.
        """
        return self._real, self._whole

    @property
    def time(self) -> np.ndarray:
        """``[E]`` s since each environment's reset."""
        return self._clock[:, at.TIME]

    def place(self, places: np.ndarray) -> None:
        """Put every replayed car where it is to be, ``[E, 4, V]``: x, y (m), heading (rad), speed (m/s).

        Columns of other cars are not read. Observations are those before until the next step or :meth:`show`.
        """
        place_batch(self._real, self._whole, places, self.parameters.wholes)

    # states and scenes

    def _parts(self) -> dict[str, np.ndarray]:
        return {
            "real": self._real,
            "whole": self._whole,
            "clock": self._clock,
            "rng": self._rng,
            "result": self._result,
            "observations": self._observations,
            "is_reset": self._is_reset,
        }

    def get_state(self) -> dict[str, np.ndarray]:
        """Return everything that decides the future and the arrays of the present, as copies."""
        return {name: array.copy() for name, array in self._parts().items()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a state of :meth:`get_state`, exactly.

        Raises:
            UsageError: a part is missing, belongs to another configuration or batch size, or holds what no simulation
                can have left; nothing has changed then.
        """
        parts = self._parts()
        checked = checked_state(state, parts, self.parameters)
        for name, array in parts.items():
            array[...] = checked[name]
        self._all_reset = bool(self._is_reset.all())

    def get_generator_state(self, index: int) -> np.ndarray:
        """Return environment ``index``'s packed PCG64 state ``[6]`` uint64 (see ``generator.unpack``)."""
        return self._rng[index].copy()

    def set_generator_state(self, index: int, packed: np.ndarray) -> None:
        """Replace environment ``index``'s PCG64 state.

        Raises:
            UsageError: it is no state of that generator.
        """
        check_generator(packed)
        self._rng[index] = packed

    def scene(self, index: int) -> dict[str, Any]:
        """Return everything needed to draw environment ``index``: arrays ``[V]``, vehicle 0 being the ego."""
        real, whole = self._real[index], self._whole[index]
        scene: dict[str, Any] = {name: real[row].copy() for name, row in SCENE_REALS.items()}
        scene["lane"] = whole[at.LANE].copy()
        scene["target_lane"] = whole[at.TARGET_LANE].copy()
        scene["crashed"] = whole[at.CRASHED] != 0
        scene["speed_index"] = int(whole[at.SPEED_INDEX, 0])
        scene["impact"] = np.where(whole[at.HAS_IMPACT] != 0, real[at.IMPACT_X : at.IMPACT_Y + 1], np.nan).T
        scene["time"] = float(self._clock[index, at.TIME])
        return scene

    def set_scene(self, index: int, **fields: Any) -> None:
        """Write a hand-made scene into environment ``index``: the physics goes on from there.

        Args:
            index: the environment; it must have been reset.
            fields: arrays ``[V]`` by name: ``x``, ``y`` (m), ``heading`` (rad), ``speed`` (m/s), ``steering`` (rad),
                ``acceleration`` (m/s2), ``target_speed`` (m/s), ``exponent``, ``timer`` (s), ``guard`` (who decides for
                a car: ``layout.IDM``, ``GUARDING``, ``DRIVEN`` or ``REPLAYED``), ``target_lane``, ``crashed``. What is
                not named keeps its value; closest lanes follow from the positions, and pending impacts are dropped.
                Observations are those of the last reset or step until the next, or :meth:`show`.

        Raises:
            UsageError: for an unknown name or a wrong shape.
        """
        if not self._is_reset[index]:
            raise UsageError("call reset() before set_scene()")
        for name, values in fields.items():
            if name not in SCENE_REALS and name not in SCENE_WHOLES:
                raise UsageError(
                    f"a scene has no field {name!r}; choose from {sorted(SCENE_REALS | SCENE_WHOLES)}"
                )
            if np.shape(values) != (self.num_vehicles,):
                raise UsageError(f"scene field {name!r} must have the shape {(self.num_vehicles,)}")
        for name, values in fields.items():
            if name in SCENE_REALS:
                self._real[index, SCENE_REALS[name]] = values
            else:
                self._whole[index, SCENE_WHOLES[name]] = values
        self._whole[index, at.HAS_IMPACT] = 0
        p = self.parameters
        settle_scene(index, self._real, self._whole, self._clock, p.reals, p.wholes, self._result)
