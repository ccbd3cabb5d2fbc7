"""The picture of a T-maze."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from racer.envs.tmaze.config import TMazeConfig
from racer.envs.tmaze.maze import SOUTH, MazeState

__all__ = ["GOAL", "OTHER", "draw"]

_WALL = (46, 52, 64)
_FLOOR = (216, 222, 233)
GOAL = (163, 190, 140)
OTHER = (191, 97, 106)
_AGENT = (38, 86, 148)
_MAX_SIZE = 40
_MAX_WIDTH = 1200


def draw(config: TMazeConfig, state: MazeState, index: int = 0) -> NDArray[np.uint8]:
    """Draw environment ``index``, ``[H, W, 3]`` uint8 with even sides.

    The goal's arm is green and the other red. An arrow-shaped sign at the start points to the goal; the agent is the
    blue disc, on the arm that it took once it has turned.
    """
    columns = config.length + 2
    size = max(4, min(_MAX_SIZE, _MAX_WIDTH // (columns + 1)) // 2 * 2)
    goal, cell = int(state.goal[index]), int(state.cell[index])
    picture = np.empty((4 * size, (columns + 1) * size, 3), np.uint8)
    picture[:] = _WALL
    edge = size // 2

    def square(row: int, column: int) -> NDArray[np.uint8]:
        top, left = edge + row * size, edge + column * size
        return picture[top : top + size - 1, left : left + size - 1]

    for column in range(columns):
        square(1, column)[:] = _FLOOR
    goal_row = 2 if goal == SOUTH else 0
    square(goal_row, columns - 1)[:] = GOAL
    square(2 - goal_row, columns - 1)[:] = OTHER
    y, x = np.mgrid[0 : size - 1, 0 : size - 1] / max(size - 2, 1) * 2.0 - 1.0
    down = y if goal == SOUTH else -y
    square(1, 0)[(np.abs(x) < 0.7 * (1.0 - down) / 2.0) & (down > -0.8)] = GOAL
    row, column = (1, cell) if cell < columns else (2 * (cell - columns), columns - 1)
    square(row, column)[x**2 + y**2 < 0.3] = _AGENT
    return picture
