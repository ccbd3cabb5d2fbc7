"""Copies of a twin, for planners: free ones, simplified ones, and states to return to."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from highway_env.envs.highway_env import HighwayEnv

from racer.core.errors import UsageError
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.simulator.generator import pack, unpack
from racer.envs.highway.twin_base import TwinBase
from racer.envs.highway.twin_common import refused
from racer.envs.highway.twin_keys import same_config
from racer.envs.highway.twin_scene import read_scene
from racer.envs.highway.twin_simulator import TwinSimulator
from racer.envs.highway.twin_types import EpisodeViews
from racer.envs.highway.twin_variants import changed, simplified

__all__ = ["PlanningTwin"]


class PlanningTwin(TwinBase):
    """A twin that can be copied, changed in the copy, and put back into an earlier state."""

    def get_available_actions(self) -> list[int]:
        """Return highway-env's list; for meta-actions from the packed state, as planners ask at every node."""
        if self.simulator is None or self.simulator.parameters.action.kind != "DiscreteMetaAction":
            return super().get_available_actions()
        action = self.simulator.parameters.action
        real, whole = self.simulator.arrays()
        lane, index = int(whole[at.LANE, 0]), int(whole[at.SPEED_INDEX, 0])
        on_stretch = 0 <= real[at.X, 0] < at.LANE_LENGTH + at.LENGTH
        offset = real[at.Y, 0] - at.LANE_WIDTH * lane
        possible = {
            at.IDLE: True,
            at.LANE_LEFT: lane > 0 and on_stretch and abs(offset + at.LANE_WIDTH) <= 2 * at.LANE_WIDTH,
            at.LANE_RIGHT: lane < self.simulator.parameters.wholes[at.LANES] - 1
            and on_stretch
            and abs(offset - at.LANE_WIDTH) <= 2 * at.LANE_WIDTH,
            at.FASTER: index < action.target_speeds.size - 1,
            at.SLOWER: index > 0,
        }
        numbers = {int(code): number for number, code in enumerate(action.table)}
        return [numbers[code] for code, is_possible in possible.items() if is_possible and code in numbers]

    def action_masks(self) -> np.ndarray:
        """Return which discrete actions are available, ``[A]`` bool (the name that maskable agents call)."""
        available = self.get_available_actions()
        size: int = self.action_space.n  # type: ignore[attr-defined]
        return np.isin(np.arange(size), available)

    def simplify(self) -> PlanningTwin:
        """Return a copy without the vehicles that are out of sight, until its next reset."""
        if self.simulator is None:
            return super().simplify()
        twin = copy.deepcopy(self)
        twin.simulator = simplified(self.simulator, self._views.scene(self))
        return twin

    def change_vehicles(self, vehicle_class_path: str) -> PlanningTwin:
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

    def _writable_copy(self, method: str) -> PlanningTwin:
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

    def __deepcopy__(self, memo: dict[int, Any]) -> PlanningTwin:
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

    # the generator, which is the user's between the steps

    def _lend_generator(self) -> None:
        state = self.np_random.bit_generator.state
        if state["bit_generator"] != "PCG64":
            raise refused(f"np_random draws by {state['bit_generator']}, the compiled simulator by PCG64")
        assert self.simulator is not None
        self.simulator.set_generator_state(0, pack(state))

    def _return_generator(self) -> None:
        assert self.simulator is not None
        self.np_random.bit_generator.state = unpack(self.simulator.get_generator_state(0))
