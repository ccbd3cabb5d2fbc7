"""Trials as numbers: the road from above, where the goal is, and how the trials of an episode ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from racer.core.drawing import GREEN
from racer.envs.highway.geometry import VEHICLE_LENGTH, VEHICLE_WIDTH
from racer.envs.highway.replay import EXTENT, KINDS, car_boxes, eye_of, road_lines
from racer.envs.replay import Kind, Replay, Scene, Shapes, Trace
from racer.envs.trials.env import HighwayTrialsEnv
from racer.envs.trials.scenes import HOLD, LANE_HALF, LANE_WIDTH, LANES
from racer.envs.trials.world import ENDS
from racer.envs.world import Step

__all__ = ["REPLAY"]

_GOAL = len(KINDS)


class _RecordedTrials(HighwayTrialsEnv):
    """Keeps the moment in which a trial ended; the step shows the first moment of the next one."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self._ended: Shapes | None = None
        self.world.before_next = self._keep

    def step(self, action: Any) -> Any:
        self._ended = None
        return super().step(action)

    def reset(self, **keywords: Any) -> Any:
        self._ended = None
        return super().reset(**keywords)

    def _keep(self) -> None:
        self._ended = self.drawn()

    def moment(self) -> Shapes:
        """Return the moment after the last step, before any next trial."""
        return self.drawn() if self._ended is None else self._ended

    def drawn(self) -> Shapes:
        world = self.world
        row = world.followed
        car, scene = int(world.egos.cars[row]), world.simulator.scene(0)
        size = np.broadcast_to([VEHICLE_LENGTH, VEHICLE_WIDTH], (len(scene["x"]), 2))
        cars = np.column_stack([scene["x"], scene["y"], scene["heading"], size, scene["crashed"]])
        # The goal is reached at its right end, from within its lane.
        end = cars[car, 0] - world.travelled[row] + world.scene.distance
        goal = [end - HOLD / 2, LANE_WIDTH * world.goal_lane[row], 0.0, HOLD, 2 * LANE_HALF, _GOAL]
        return Shapes(np.vstack([goal, car_boxes(cars)]), eye_of(cars[car:], LANES))


def _facts(steps: Sequence[Step], moments: Sequence[Shapes], config: Mapping[str, Any]) -> dict[str, float]:
    """Say how the trials of an episode ended, and when the goal was first reached."""
    # An ego's own ends: the trial of one that is done early ends later, in limbo.
    ended = [step for step in steps if any(step.info[name] for name in ENDS)]
    reached = [step.info["trial"] + 1.0 for step in ended if step.info["goal_reached"]]
    counts = {f"trials that {name}": float(sum(step.info[end] for step in ended)) for end, name in _ENDED.items()}
    speeds = [step.info["speed"] for step in steps if not step.info["limbo"]]
    return {
        "type of traffic in the last trial": steps[-1].info["trial_type"] + 1.0,
        **counts,
        "first trial that reached the goal": reached[0] if reached else np.nan,
        "speed [m/s]": float(np.mean(speeds)),
    }


_ENDED = dict(zip(ENDS, ("reached the goal", "crashed", "ran out of time", "missed the lane"), strict=True))

REPLAY = Replay(
    make=_RecordedTrials,
    scene=Scene(
        shapes=_RecordedTrials.moment,
        lines=lambda config: road_lines(LANES),
        kinds=(*KINDS, Kind("the goal's lane", GREEN, front=False)),
        extent=EXTENT,
    ),
    traces=(
        Trace("trial", lambda step: step.info["trial"] + 1.0),
        Trace("speed [m/s]", lambda step: step.info["speed"]),
    ),
    facts=_facts,
)
