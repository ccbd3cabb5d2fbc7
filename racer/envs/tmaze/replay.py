"""The T-maze as numbers: its cells, where the goal is and where the agent stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from racer.core.drawing import BLUE
from racer.envs.replay import Kind, Line, Replay, Scene, Shapes, Trace
from racer.envs.tmaze.config import tmaze_config
from racer.envs.tmaze.drawing import GOAL, OTHER
from racer.envs.tmaze.env import TMazeEnv
from racer.envs.tmaze.maze import EAST, NORTH, WEST
from racer.envs.world import Step

__all__ = ["REPLAY"]

_AGENT, _RIGHT, _WRONG = range(3)


def _shapes(env: TMazeEnv) -> Shapes:
    junction = env.config["length"] + 1
    cell, goal = int(env.state.cell[0]), int(env.state.goal[0])
    x, y = (float(cell), 0.0) if cell <= junction else (float(junction), -1.0 if cell == junction + 1 else 1.0)
    side = -1.0 if goal == NORTH else 1.0
    boxes = [
        [junction, side, 0.0, 0.9, 0.9, _RIGHT],
        [junction, -side, 0.0, 0.9, 0.9, _WRONG],
        [0.0, side * 0.35, 0.0, 0.9, 0.2, _RIGHT],  # the sign at the start points there
        [x, y, 0.0, 0.55, 0.55, _AGENT],
    ]
    return Shapes(np.array(boxes), np.array([min(max(x, 6.0), max(junction - 6.0, 6.0)), 0.0]))


def _lines(config: Mapping[str, Any]) -> list[Line]:
    right = config["length"] + 1.5
    walls = [(-0.5, -0.5, right - 1, -0.5), (-0.5, 0.5, right - 1, 0.5), (-0.5, -0.5, -0.5, 0.5)]
    walls += [(right - 1, -1.5, right - 1, -0.5), (right - 1, 0.5, right - 1, 1.5), (right, -1.5, right, 1.5)]
    walls += [(right - 1, -1.5, right, -1.5), (right - 1, 1.5, right, 1.5)]
    return [Line(*wall) for wall in walls]


def _facts(steps: Sequence[Step], moments: Sequence[Shapes], config: Mapping[str, Any]) -> dict[str, float]:
    """Say how an episode went."""
    actions = np.array([int(step.action) for step in steps])
    places = np.stack([moment.boxes[-1, :2] for moment in moments])
    waits = (np.diff(places, axis=0) == 0).all(axis=1)
    return {
        "steps beyond the shortest way": len(steps) - (tmaze_config(config).length + 2.0),
        "steps to the west": float((actions == WEST).sum()),
        "steps into a wall": float(waits.sum()),
        "goal in the north": float(moments[0].boxes[0, 1] < 0),
        "last action to the east": float(actions[-1] == EAST),
    }


REPLAY = Replay(
    make=TMazeEnv,
    scene=Scene(
        shapes=_shapes,
        lines=_lines,
        kinds=(Kind("agent", BLUE, False), Kind("goal, and its sign at the start", GOAL, False),
               Kind("wrong turn", OTHER, False)),
        extent=(16.0, 4.0),
    ),
    traces=(Trace("action: 0 north, 1 south, 2 east, 3 west", lambda step: float(step.action)),),
    facts=_facts,
)  # fmt: skip
