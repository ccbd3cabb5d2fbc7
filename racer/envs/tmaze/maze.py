"""The rules of the T-maze, written once over the array namespace: NumPy arrays and JAX arrays alike.

A corridor of ``length`` cells leads east from the start to a junction, where north and south end the episode. One of
the two is the goal, each equally likely; a sign tells which, and it stands at the start (Bakker 2002, "Reinforcement
learning with long short-term memory"). With ``length`` 10 the shortest way takes 12 steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from racer.envs.tmaze.config import TMazeConfig

__all__ = [
    "EAST",
    "NORTH",
    "NO_ACTION",
    "RIGHT_TURN",
    "SOUTH",
    "WEST",
    "WRONG_TURN",
    "MazeState",
    "MazeStep",
    "observe",
    "restart",
    "start",
    "step",
]

NORTH, SOUTH, EAST, WEST = range(4)
NO_ACTION = -1

RIGHT_TURN = 4.0
WRONG_TURN = -0.1
"""Rewards of the turn at the junction; every other step pays nothing."""


class MazeState(NamedTuple):
    """Where everybody is; int32 arrays of one shape ``[...]``.

    Attributes:
        cell: 0 at the start, 1 to ``length`` in the corridor, ``length + 1`` at the junction, then ``length + 2``
            in the northern arm and ``length + 3`` in the southern one.
        goal: :data:`NORTH` or :data:`SOUTH`.
        steps: taken in the episode.
        action: the last one, or :data:`NO_ACTION`.
    """

    cell: Any
    goal: Any
    steps: Any
    action: Any


class MazeStep(NamedTuple):
    """What a step leads to; ``[...]`` each. The state is the one before any reset."""

    state: MazeState
    reward: Any
    terminated: Any
    truncated: Any
    metrics: dict[str, Any]


def start(goals: Any) -> MazeState:
    """Return the first state of episodes with these goals, int32 ``[...]``."""
    xp = goals.__array_namespace__()
    zeros = xp.zeros_like(goals)
    return MazeState(zeros, goals, zeros, zeros + np.int32(NO_ACTION))


def restart(state: MazeState, ended: Any, goals: Any) -> MazeState:
    """Return ``state`` with new episodes where ``ended``, bool ``[...]``; the other goals are not used."""
    xp = state.cell.__array_namespace__()
    return MazeState(*(xp.where(ended, new, old) for new, old in zip(start(goals), state, strict=True)))


def observe(config: TMazeConfig, state: MazeState) -> Any:
    """Return ``[..., 4]`` float32: the sign (1: the goal is south), in the corridor, at the junction, turned.

    The start counts as corridor. With "plain" the sign reads 0 everywhere but there. With ``previous_action`` four
    more numbers say which action was the last.
    """
    xp = state.cell.__array_namespace__()
    junction = config.length + 1
    sign = state.goal == SOUTH
    if config.observation == "plain":
        sign = sign & (state.cell == 0)
    seen = [sign, state.cell < junction, state.cell == junction, state.cell > junction]
    if config.previous_action:
        seen += [state.action == action for action in (NORTH, SOUTH, EAST, WEST)]
    return xp.stack(seen, axis=-1).astype(np.float32)


def step(config: TMazeConfig, state: MazeState, actions: Any) -> MazeStep:
    """Take one step: east and west move along the corridor, north and south turn at the junction.

    Moves into a wall change nothing and take a step all the same.

    Args:
        config: of the maze.
        state: ``[...]``.
        actions: whole numbers ``[...]``, :data:`NORTH` to :data:`WEST`.
    """
    xp = state.cell.__array_namespace__()
    junction = config.length + 1
    moved = state.cell + (actions == EAST).astype(np.int32) - (actions == WEST).astype(np.int32)
    turned = (state.cell == junction) & ((actions == NORTH) | (actions == SOUTH))
    right = turned & (actions == state.goal)
    cell = xp.where(turned, junction + 1 + actions, xp.clip(moved, 0, junction)).astype(np.int32)
    after = MazeState(cell, state.goal, state.steps + 1, actions.astype(np.int32))
    reward = xp.where(right, RIGHT_TURN, xp.where(turned, WRONG_TURN, 0.0))
    truncated = ~turned & (after.steps >= config.max_episode_steps)
    # Only the last step of an episode pays, so its reward is the return.
    metrics = {
        "return": reward,
        "length": after.steps,
        "discounted_return": reward * config.discount ** (after.steps - 1),
        "success": right,
        "wrong_turn": turned & ~right,
    }
    return MazeStep(after, reward, turned, truncated, metrics)
